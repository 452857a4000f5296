"""vNICs that are plugged while they and everybody else send: a vsfwd as it runs, on a bridge.

Nobody announces them before they are on the bridge. Frames are of two kinds: `ALLOWED` by the policy of the
vNIC, once it is in force there, and `FORBIDDEN` always."""

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from scapy.all import IP, UDP, Ether

from tests.harness.lone import CHAINS, LoneHost, lone_host, refused_version
from tests.harness.policies import objects, vnic_id
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until
from vsfwd.datapath import bpf
from vsfwd.ipc.client import ask

pytestmark = pytest.mark.slow
LONG = pytest.mark.timeout(3600)
FEW, MANY = 12, 1000
VNICS: Final = 16
"""That the policy knows; they are plugged again and again."""
ALLOWED, FORBIDDEN = 7000, 7001
NEIGHBOUR_MAC: Final = "02:00:00:00:99:99"
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
"""Of linux/socket.h and linux/if_packet.h."""
SO_RCVBUFFORCE: Final = 33
BEFORE: Final = 50
"""Frames each way before anybody says whose device it is."""


def mac(number: int) -> str:
    return f"02:00:00:01:00:{number:02x}"


def frame(source: str, address: str, port: int) -> bytes:
    packet = Ether(src=source, dst="ff:ff:ff:ff:ff:ff") / IP(src=address, dst="10.0.0.255")
    return bytes(packet / UDP(sport=4000, dport=port))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneHost]:
    directory = tmp_path_factory.mktemp("hotplug")
    with lone_host(directory, flows_per_vnic=64, guard_ports=["hot*"]) as host:
        vnics = {f"hot{n}": f"10.0.0.{100 + n} {mac(n)}" for n in range(VNICS)}
        host.daemon.keep(objects([f"allow service udp/{ALLOWED}", "drop"], {}, vnics))
        host.daemon.start()
        yield host


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
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            self._socket.bind((device, 0))
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


def nothing_passed(vm: End, neighbour: End, number: int, ports: tuple[int, ...]) -> bool:
    return not any(neighbour.got[mac(number), port] or vm.got[NEIGHBOUR_MAC, port] for port in ports)


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=[pytest.mark.deep, LONG])])
def test_o8_no_frame_passes_a_new_vnic_before_its_policy(host: LoneHost, times: int) -> None:
    """In either direction: nothing as long as nobody says whose device it is, and then what its policy
    allows."""
    sent = 0
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour:
        for turn in range(times):
            number, device = turn % VNICS, f"hot-{turn}"  # a name that was one's before would say whose it is
            neighbour.got.clear()
            with plugged(host, number, device) as vm:
                there, here = neighbour.sent, vm.sent
                wait_until(
                    lambda: min(neighbour.sent - there, vm.sent - here) >= BEFORE,  # noqa: B023
                    "frames in both directions",
                )
                assert nothing_passed(vm, neighbour, number, (ALLOWED, FORBIDDEN))
                sent += vm.sent
                recognised(host, number, device)
                wait_until(
                    lambda: neighbour.got[mac(number), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED],  # noqa: B023
                    "what the policy allows, both ways",
                    30,
                )
                assert nothing_passed(vm, neighbour, number, (FORBIDDEN,))
    print(f"{times} vNICs plugged unannounced: 0 of {sent} frames passed before policy")


def test_o9_a_device_that_goes_elsewhere_and_comes_back_is_filtered_all_the_time(host: LoneHost) -> None:
    """To another network namespace and back, under its number; renamed; made anew under its name, by which it
    is known: what its policy forbids never passes, what it allows does in the end."""
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)

        def allowed() -> None:
            neighbour.got.clear()
            vm.got.clear()
            wait_until(
                lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30
            )
            assert nothing_passed(vm, neighbour, 0, (FORBIDDEN,))

        allowed()
        for _ in range(5):
            ip(host.namespace, f"link set hot0 netns {host.neighbour}")
            ip(host.neighbour, f"link set hot0 netns {host.namespace}")
            ip(host.namespace, "link set hot0 master bridge up")
            allowed()
            ip(host.namespace, "link set hot0 name hotter")
            ip(host.namespace, "link set hotter name hot0")
            allowed()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert nothing_passed(vm, neighbour, 0, (FORBIDDEN,))


@pytest.mark.parametrize("times", [40, pytest.param(MANY, marks=[pytest.mark.deep, LONG])])
def test_o37_vnics_that_come_and_go_leave_nothing(host: LoneHost, times: int) -> None:
    """No descriptor, no map, no pin, no port in the guard: the daemon has as many as before."""
    before, others = None, protected(host)
    for turns in (VNICS, times):
        for start in range(0, turns, VNICS):
            numbers = range(min(VNICS, turns - start))
            ip(
                host.namespace,
                *(f"link add hot{n} type veth peer far{n} netns {host.vm}" for n in numbers),
                *(f"link set hot{n} alias vsfwd:{vnic_id(f'hot{n}')} master bridge up" for n in numbers),
            )
            wait_until(lambda: protected(host) == others + len(numbers), "all attached", 30)  # noqa: B023
            ip(host.namespace, *(f"link delete hot{n}" for n in numbers))
            wait_until(lambda: protected(host) == others, "all gone", 30)
        if before is None:
            before = held(host)
    descriptors, pins = before
    wait_until(lambda: held(host)[0] <= descriptors, "no more descriptors than before")
    assert held(host)[1] == pins


def test_o4_nothing_gets_out_while_programs_are_gone(host: LoneHost) -> None:
    """Somebody takes them off a guarded port, again and again: not one frame leaves the workload until they
    are back. How long that takes is how long what goes to it is not filtered; it is printed."""
    exposures = []
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)
        for _ in range(5):
            neighbour.got.clear()
            wait_until(lambda: neighbour.got[mac(0), ALLOWED], "traffic", 30)
            with inside(host.namespace):
                number = socket.if_nametoindex("hot0")
                for chain in CHAINS:
                    for program in bpf.attached_programs(number, chain):
                        bpf.detach_program(number, chain, program)
                begun = time.monotonic()
                wait_until(
                    lambda: all(bpf.attached_programs(number, chain) for chain in CHAINS),  # noqa: B023
                    "the programs back",
                )
            exposures.append(time.monotonic() - begun)
            assert neighbour.got[mac(0), FORBIDDEN] == 0
        assert vm.sent
    print(f"programs that were taken off were back within {max(exposures):.2f} s")


def protected(host: LoneHost) -> int:
    """Ports in the set of the guard."""
    argv = ["ip", "netns", "exec", host.namespace, "nft", "-j", "list", "set", "bridge", "vsfwd", "protected"]
    listed = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["nftables"]
    return sum(len(each["set"].get("elem", ())) for each in listed if "set" in each)


def held(host: LoneHost) -> tuple[int, dict[str, int]]:
    """The daemon's descriptors (but sockets: it looks for its broker), and what is pinned."""
    assert host.daemon.process is not None
    ask(host.daemon.directory / "vsfwd.sock", lambda vsfwd: vsfwd.Status())  # after what it is at
    names = []
    for fd in Path("/proc", str(host.daemon.process.pid), "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(fd))
    return sum(not name.startswith("socket:") for name in names), host.pinned()


def test_o6_a_host_that_boots_is_closed_until_its_policy_is_in(host: LoneHost) -> None:
    """Everything the kernel had is gone. `vsfwd --guard` needs nobody and closes the ports; VMs run and send
    before the daemon does; with the daemon comes the policy from disk, without a broker."""
    host.daemon.kill()
    host.forget()
    host.daemon.guard()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        wait_until(lambda: min(neighbour.sent, vm.sent) >= BEFORE, "frames in both directions")
        assert nothing_passed(vm, neighbour, 0, (ALLOWED, FORBIDDEN))
        recognised(host, 0)
        host.daemon.start()
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert nothing_passed(vm, neighbour, 0, (FORBIDDEN,))


@pytest.mark.parametrize("booted", [True, False], ids=["after a boot", "on a running host"])
def test_o40_a_new_port_is_closed_while_the_kernel_refuses_the_programs(
    host: LoneHost, tmp_path: Path, booted: bool
) -> None:
    """An upgrade brings programs that do not verify here: nothing passes a port that comes then, announced or
    not, until a version comes whose programs do. `vsfwd --guard` needs none, nor does the guard of before."""
    host.daemon.kill()
    if booted:
        host.forget()
        host.daemon.guard()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)
        assert host.daemon.launch(refused_version(tmp_path / "other")).wait(timeout=90) == 1
        ended = neighbour.sent, vm.sent
        wait_until(lambda: min(neighbour.sent - ended[0], vm.sent - ended[1]) >= BEFORE, "frames both ways")
        assert nothing_passed(vm, neighbour, 0, (ALLOWED, FORBIDDEN))
        host.daemon.start()
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert nothing_passed(vm, neighbour, 0, (FORBIDDEN,))
