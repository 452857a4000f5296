"""TCP Fast Open (RFC 7413): data in the SYN, and a server that answers before the handshake has ended."""

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness.datapath import inside, until
from tests.harness.packets import IPV6, Net
from tests.harness.pairs import PATIENCE_S
from tests.harness.wired import Wired

pytestmark = pytest.mark.slow

RULES = ["allow service icmpv6", "allow from web to db service tcp/9", "drop service tcp", "drop"]
QUESTION, ANSWER = b"question", bytes(8000)
_SYN_DATA = 32  # TCPI_OPT_SYN_DATA of linux/tcp.h
_FIRST_ACK_IS_LOST = """table inet lossy { chain out { type filter hook output priority 0;
    tcp dport 9 tcp flags & (syn|ack|psh|fin) == ack quota until 80 bytes drop; }; }"""


@contextmanager
def fast_open(wired: Wired, net: Net) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection from `here` to `twin` whose SYN has carried QUESTION; the first one, before
    it, fetches the cookie."""
    for namespace in wired.here, wired.twin:
        command = ["ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3"]
        subprocess.run(command, check=True)
    family = socket.AF_INET6 if net is IPV6 else socket.AF_INET
    with inside(wired.twin):
        listener = socket.create_server((net.twin, 9), family=family)
    listener.settimeout(PATIENCE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    with listener:
        with _connected(wired, net, listener):
            pass
        _nft(wired.here, _FIRST_ACK_IS_LOST)
        try:
            with _connected(wired, net, listener) as ends:
                yield ends
        finally:
            _nft(wired.here, "delete table inet lossy")


@contextmanager
def _connected(
    wired: Wired, net: Net, listener: socket.socket
) -> Iterator[tuple[socket.socket, socket.socket]]:
    with inside(wired.here):
        client = socket.socket(listener.family)
    with client:
        client.sendto(QUESTION, socket.MSG_FASTOPEN, (net.twin, 9))
        client.settimeout(PATIENCE_S)
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE_S)
            assert server.recv(100) == QUESTION
            yield client, server


def _nft(namespace: str, text: str) -> None:
    subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=text, text=True, check=True)


def _receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = end.recv(size)
        assert chunk
        data += chunk
    return data


@pytest.mark.parametrize("closes", [False, True], ids=["goes-on", "closes"])
def test_a_server_answers_before_the_handshake_ends(wired: Wired, net: Net, closes: bool) -> None:
    """The client's first acknowledgement is lost, so the next one is of SYN and answer at once, or of SYN,
    answer and FIN. Nothing is dropped, and both flows end as they should."""
    wired.install(RULES)
    before = wired.lost(3)
    with fast_open(wired, net) as (client, server):
        port = client.getsockname()[1]
        assert (
            struct.unpack_from("6B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8))[5] & _SYN_DATA
        )
        server.sendall(ANSWER)
        if closes:
            server.shutdown(socket.SHUT_WR)
        assert _receive(client, len(ANSWER)) == ANSWER
        client.sendall(b"thanks")
        assert _receive(server, 6) == b"thanks"
    until(lambda: wired.states(port) == ["fin_wait", "fin_wait"])
    assert wired.lost(3) == before
