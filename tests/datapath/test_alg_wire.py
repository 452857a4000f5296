"""FTP between two workloads through both their vNICs, with Python's own client. Row X40 of the catalogue."""

import ftplib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.harness.datapath import inside
from tests.harness.packets import IPV4, IPV6, Net
from tests.harness.wired import Wired

CONTENT = bytes(range(256)) * 256
PATIENCE_S = 20


class Server:
    """Speaks as much FTP as it takes to fetch a file, to one client."""

    def __init__(self, net: Net) -> None:
        self._family = socket.AF_INET6 if net is IPV6 else socket.AF_INET
        self._address = net.twin
        self._listener = socket.create_server((net.twin, 21), family=self._family)
        self._open: Callable[[], socket.socket] | None = None

    def serve(self, namespace: str) -> None:
        with inside(namespace), self._listener:
            self._listener.settimeout(PATIENCE_S)
            control, _ = self._listener.accept()
            control.settimeout(PATIENCE_S)
            with control, control.makefile("r", newline="\r\n") as lines:
                control.sendall(b"220 hello\r\n")
                for line in lines:
                    command, _, argument = line.strip().partition(" ")
                    control.sendall(f"{self._answer(command, argument, control)}\r\n".encode())
                    if command == "QUIT":
                        return

    def _answer(self, command: str, argument: str, control: socket.socket) -> str:
        if command in ("PASV", "EPSV"):
            return self._passive(command)
        if command in ("PORT", "EPRT"):
            numbers = argument.split(",")
            port = (
                int(argument.split("|")[3]) if command == "EPRT" else int(numbers[4]) * 256 + int(numbers[5])
            )
            peer = control.getpeername()[0]
            self._open = lambda: socket.create_connection((peer, port), PATIENCE_S)
            return "200 ok"
        if command == "RETR":
            return self._retrieve(control)
        return {"USER": "230 come in", "QUIT": "221 bye"}.get(command, "200 ok")

    def _passive(self, command: str) -> str:
        listener = socket.create_server((self._address, 0), family=self._family)
        listener.settimeout(PATIENCE_S)
        port = listener.getsockname()[1]

        def accept() -> socket.socket:
            with listener:
                return listener.accept()[0]

        self._open = accept
        numbers = ",".join([*self._address.split("."), str(port >> 8), str(port & 255)])
        if command == "EPSV":
            return f"229 Entering Extended Passive Mode (|||{port}|)"
        return f"227 Entering Passive Mode ({numbers})."

    def _retrieve(self, control: socket.socket) -> str:
        assert self._open
        try:
            data = self._open()
        except OSError:
            return "425 no data connection"
        control.sendall(b"150 here it comes\r\n")
        with data:
            data.sendall(CONTENT)
        return "226 done"


def _port(command: str, argument: str) -> int:
    if command == "EPRT":
        return int(argument.split("|")[3])
    high, low = argument.split(",")[4:]
    return int(high) << 8 | int(low)


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def served(wired: Wired, request: pytest.FixtureRequest) -> Iterator[tuple[Wired, Net]]:
    """A server at port 21 of `twin`."""
    net: Net = request.param
    with inside(wired.twin):
        server = Server(net)
    thread = threading.Thread(target=server.serve, args=[wired.twin])
    thread.start()
    yield wired, net
    thread.join()


def fetch(wired: Wired, net: Net, passive: bool) -> bytes:
    received: list[bytes] = []
    with inside(wired.here), ftplib.FTP(timeout=PATIENCE_S) as client:
        client.connect(net.twin)
        client.login()
        client.set_pasv(passive)
        client.retrbinary("RETR file", received.append)
    return b"".join(received)


def policy(service: str) -> list[str]:
    return ["allow service icmpv6", f"allow from web to db service {service}", "reject"]


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
def test_x40_ftp_works_where_the_service_says_so(served: tuple[Wired, Net], passive: bool) -> None:
    """A file arrives whole over the data connection, whichever side opens it."""
    wired, net = served
    wired.install(policy("ftp/21"))
    assert fetch(wired, net, passive) == CONTENT


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
def test_x40_without_an_alg_there_is_no_data_connection(served: tuple[Wired, Net], passive: bool) -> None:
    """The same conversation under a service of TCP: who opens the data connection is refused."""
    wired, net = served
    wired.install(policy("tcp/21"))
    with pytest.raises((ConnectionRefusedError, ftplib.error_temp)):
        fetch(wired, net, passive)
