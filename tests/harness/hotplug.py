"""vNICs that are plugged while they and everybody else send: a vsfwd as it runs, on a bridge.

    with hot_host(directory) as host, End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour:
        plug_unannounced(host, neighbour, turn=0)

Frames are of two kinds: `ALLOWED` by the policy of the vNIC, once it is in force there, and `FORBIDDEN`
always."""

import itertools
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from scapy.all import IP, UDP, Ether

from tests.harness.lone import LoneHost, lone_host
from tests.harness.policies import objects, vnic_id
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until

VNICS: Final = 16
"""That the policy knows; they are plugged again and again."""
ALLOWED, FORBIDDEN = 7000, 7001
NEIGHBOUR_MAC: Final = "02:00:00:00:99:99"
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
"""Of linux/socket.h and linux/if_packet.h."""
SO_RCVBUFFORCE: Final = 33
ETH_P_IP: Final = 0x0800
_names = itertools.count()
BEFORE: Final = 50
"""Frames each way before anybody says whose device it is."""


class Plugged(NamedTuple):
    """Frames that the VM has sent, and those that arrived, its own or for it, and had not to."""

    sent: int
    early: int


@contextmanager
def hot_host(directory: Path) -> Iterator[LoneHost]:
    """Its ports that are called hot are guarded."""
    with lone_host(directory, flows_per_vnic=64, guard_ports=["hot*"]) as host:
        vnics = {f"hot{n}": f"10.0.0.{100 + n} {mac(n)}" for n in range(VNICS)}
        host.daemon.keep(objects([f"allow service udp/{ALLOWED}", "drop"], {}, vnics))
        host.daemon.start()
        yield host


def plug_unannounced(host: LoneHost, neighbour: "End", turn: int) -> Plugged:
    """Nobody says whose device it is before both ends have sent for a while: until then nothing may pass, and
    from then on what its policy allows, for which this waits."""
    number, device = turn % VNICS, f"hot-{next(_names)}"  # one that was a vNIC's before would say whose it is
    neighbour.got.clear()
    with plugged(host, number, device) as vm:
        there, here = neighbour.sent, vm.sent
        wait_until(lambda: min(neighbour.sent - there, vm.sent - here) >= BEFORE, "frames in both directions")
        early = arrived(vm, neighbour, number, (ALLOWED,))
        recognised(host, number, device)
        wait_until(
            lambda: neighbour.got[mac(number), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED],
            "what the policy allows, both ways",
            30,
        )
        return Plugged(vm.sent, early + arrived(vm, neighbour, number, (FORBIDDEN,)))


def mac(number: int) -> str:
    return f"02:00:00:01:00:{number:02x}"


def frame(source: str, address: str, port: int) -> bytes:
    packet = Ether(src=source, dst="ff:ff:ff:ff:ff:ff") / IP(src=address, dst="10.0.0.255")
    return bytes(packet / UDP(sport=4000, dport=port))


def ip(namespace: str, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True)


class End:
    """Sends a frame of each kind all the time by a device that is far from the bridge, and counts what comes
    in there by sender and kind."""

    def __init__(self, namespace: str, device: str, source: str, address: str) -> None:
        self.sent = 0
        self.got: Counter[tuple[str, int]] = Counter()
        self._frames = [frame(source, address, port) for port in (ALLOWED, FORBIDDEN)]
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)  # hears nothing yet
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            self._socket.bind((device, ETH_P_IP))
        self._socket.settimeout(0.002)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            for each in self._frames:
                try:
                    self._socket.send(each)
                    self.sent += 1
                except OSError:  # the link is not up yet, or no longer
                    pass
            self._hear()

    def _hear(self) -> None:
        try:
            while data := self._socket.recv(2048):
                if len(data) >= 42 and data[23] == socket.IPPROTO_UDP:
                    (port,) = struct.unpack_from("!H", data, 36)
                    self.got[data[6:12].hex(":"), port] += 1
        except OSError:  # nothing there
            pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


@contextmanager
def plugged(host: LoneHost, number: int, device: str = "hot0") -> Iterator[End]:
    """A VM that floods before its device is on the bridge, and while it is."""
    far = f"far{number}"
    ip(host.namespace, f"link add {device} type veth peer {far} netns {host.vm}")
    try:
        ip(host.vm, f"link set {far} addrgenmode none address {mac(number)} up")
        with End(host.vm, far, mac(number), f"10.0.0.{100 + number}") as vm:
            ip(host.namespace, f"link set {device} addrgenmode none up", f"link set {device} master bridge")
            yield vm
    finally:
        ip(host.namespace, f"link delete {device}")


def recognised(host: LoneHost, number: int, device: str = "hot0") -> None:
    """As by whoever plugs it, late."""
    ip(host.namespace, f"link set {device} alias vsfwd:{vnic_id(f'hot{number}')}")


def arrived(vm: End, neighbour: End, number: int, ports: tuple[int, ...]) -> int:
    """Frames of these kinds that one had of the other."""
    return sum(neighbour.got[mac(number), port] + vm.got[NEIGHBOUR_MAC, port] for port in ports)
