"""The port guard (O8): frames on a real bridge, to and from ports with programs and without."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from scapy.all import ARP, Ether
from scapy.packet import Packet

from tests.harness.datapath import Host, Port, inside, private_host, until
from tests.harness.packets import IPV4, tcp, udp
from tests.harness.programs import take_all_off
from vsfwd.datapath import Settings, bpf
from vsfwd.datapath.portguard import TABLE, PortGuard

pytestmark = pytest.mark.slow

GUARDED = Settings(flows_per_vnic=1024, guard_ports=("port*", "vnet7"))
VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
UPLINK, BEYOND = "up0", "up1"
EVERYBODY = "ff:ff:ff:ff:ff:ff"


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def shared_host() -> Iterator[tuple[Host, str]]:
    """A bridge with an uplink and the ports of the harness, which are guarded."""
    with private_host("guard", GUARDED) as (host, namespace):
        sh(f"ip -n {namespace} link add br-test type bridge mcast_snooping 0 forward_delay 0")
        sh(f"ip -n {namespace} link add {UPLINK} type veth peer {BEYOND}")
        for device in (UPLINK, BEYOND, "br-test"):
            sh(f"ip -n {namespace} link set {device} addrgenmode none up")
        with inside(namespace):
            for device in (UPLINK, "port0", "port1", "port2", "port3"):
                join(device)
        yield host, namespace


@pytest.fixture
def host(shared_host: tuple[Host, str]) -> Iterator[Host]:
    """Without vNICs, with a guard that has counted nothing."""
    host, namespace = shared_host
    with inside(namespace):
        guard = host.datapath.port_guard
        guard.install(guard.stamp_in_force(), [])
        yield host
        host.unplug()


def join(device: str) -> None:
    """The bridge; it forwards when this returns."""
    sh(f"ip link set {device} master br-test")
    until(lambda: "state forwarding" in sh(f"bridge link show dev {device}"))


class Tap:
    """All frames that arrive at the far end of a device, or at a bridge."""

    def __init__(self, device: str) -> None:
        self._frames: list[bytes] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((device, 0))
        self._socket.setblocking(False)

    def got(self, frame: Packet) -> int:
        """How often until now; frames that went out by the device do not count."""
        with suppress(BlockingIOError):
            while True:
                data, address = self._socket.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING:
                    self._frames.append(data)
        return sum(data.startswith(bytes(frame)[:40]) for data in self._frames)


def send(device: str, frame: Packet, times: int = 1) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        for _ in range(times):
            sender.send(bytes(frame))


def refused(guard: PortGuard) -> int:
    """Frames that it has dropped."""
    return int(guard.status().split("protected, ")[1].split()[0])


def forget(host: Host, map: str) -> None:
    """As when it has another layout in the next version: a new daemon makes it anew."""
    (pin,) = host.pins.glob(f"*/{map}")
    pin.unlink()
    host.unpin()


def from_outside(receiver: str = EVERYBODY) -> Packet:
    return Ether(src="02:00:00:00:77:77", dst=receiver) / udp(IPV4.peer, IPV4.here)


def test_what_nobody_announced_reaches_nobody(host: Host) -> None:
    """O8: no neighbour, nobody beyond the uplink, not the host; to one or to all of them."""
    host.port("here")
    host.install(["allow"], vnics=VNICS)
    taps = [Tap(device) for device in ("far0", BEYOND, "br-test")]
    bridge = json.loads(sh("ip -j link show br-test"))[0]["address"]
    for receiver in (EVERYBODY, "02:00:00:00:00:00", "02:00:00:00:66:66", bridge):
        send("far1", from_outside(receiver), times=5)
    until(lambda: refused(host.datapath.port_guard) >= 20)
    assert [tap.got(from_outside(receiver)) for tap in taps for receiver in (EVERYBODY, bridge)] == 6 * [0]


def test_nothing_reaches_what_nobody_announced(host: Host) -> None:
    """O8: neither what comes by the uplink, nor what the host itself or another vNIC sends; who has programs
    gets it, by what they say."""
    host.port("here")
    host.port("twin")
    host.install(["allow"], vnics=VNICS)
    protected, alone = Tap("far1"), Tap("far2")
    frame = from_outside()
    for sender in (BEYOND, "br-test", "far0"):
        send(sender, frame, times=5)
    until(lambda: refused(host.datapath.port_guard) >= 2 * 15)  # at port2 and at port3
    assert (protected.got(frame), alone.got(frame)) == (15, 0)


def test_vnics_speak_with_each_other_and_the_world(host: Host) -> None:
    """Once they are attached; and before they have a policy they may ask whether an address is free, which is
    what closed means."""
    here, twin = host.port("here"), host.port("twin")
    claims, asks = (
        Ether(src=here.mac, dst=EVERYBODY) / ARP(hwsrc=here.mac, psrc=sender, pdst=IPV4.twin)
        for sender in (IPV4.here, "0.0.0.0")
    )
    there, beyond = Tap("far1"), Tap(BEYOND)
    send("far0", claims)
    send("far0", asks)
    until(lambda: there.got(asks) == 1 and beyond.got(asks) == 1)
    assert (there.got(claims), beyond.got(claims)) == (0, 0)
    host.install(["allow"], vnics=VNICS)
    says = Ether(src=here.mac, dst=twin.mac) / udp(IPV4.here, IPV4.twin)
    send("far0", says, times=3)
    until(lambda: there.got(says) >= 1)
    assert here.drops() == {"spoofed_arp": 1}


def test_the_stamp_is_on_no_frame_that_goes_on(host: Host) -> None:
    """What passes the guard has no mark, so that nobody's rules for marks are met by ours; and a frame that
    the host has marked keeps its own."""
    here = host.port("here")
    host.port("twin")
    host.install(["allow"], vnics=VNICS)
    sh(
        "nft 'table bridge seen { chain c { type filter hook forward priority 0; meta mark != 0 counter; "
        'iifname "port0" counter; }; }\''
    )
    try:
        send("far0", Ether(src=here.mac, dst=EVERYBODY) / udp(IPV4.here, IPV4.peer), times=5)
        until(lambda: "packets 10 bytes" in sh("nft list table bridge seen"))  # to port1 and the uplink
        assert "packets 0 bytes" in sh("nft list table bridge seen")
    finally:
        sh("nft delete table bridge seen")


@pytest.mark.parametrize("inward", [True, False], ids=["in", "out"])
def test_a_reject_reply_gets_through(host: Host, inward: bool) -> None:
    """To who is beyond the uplink, and to the workload."""
    here = host.port("here")
    host.install(["reject"], vnics=VNICS)
    if inward:
        sender, packet = BEYOND, Ether(src="02:00:00:00:77:77", dst=here.mac) / tcp(IPV4.peer, IPV4.here)
    else:
        sender, packet = "far0", Ether(src=here.mac, dst="02:00:00:00:77:77") / tcp(IPV4.here, IPV4.peer)
    tap = Tap(sender)
    send(sender, packet)
    back = bytes(Ether(src=packet.dst, dst=packet.src, type=0x0800))
    until(lambda: tap.got(Ether(back)) == 1)


def test_o4_without_its_out_program_a_port_is_closed(host: Host) -> None:
    """Somebody takes both off: not one frame of the workload passes until they are back."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    beyond, frame = Tap(BEYOND), Ether(src=here.mac, dst=EVERYBODY) / udp(IPV4.here, IPV4.peer)
    take_all_off(here.ifindex)
    send("far0", frame, times=5)
    until(lambda: refused(host.datapath.port_guard) >= 5)
    assert beyond.got(frame) == 0
    host.datapath.attach(here.id, here.ifindex, here.mac)
    send("far0", frame, times=5)
    until(lambda: beyond.got(frame) >= 1)


def test_o44_a_vnic_that_is_withdrawn_is_closed(host: Host) -> None:
    """In both directions: to let it go is no order to open it. Nor is it to end the daemon."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    beyond, there = Tap(BEYOND), Tap("far0")
    out = Ether(src=here.mac, dst=EVERYBODY) / udp(IPV4.here, IPV4.peer)
    host.datapath.detach(here.id)
    for _ in ("with a daemon", "without"):
        before = host.datapath.port_guard.status()
        send("far0", out)
        send(BEYOND, from_outside())
        until(lambda: host.datapath.port_guard.status() != before)  # noqa: B023
        assert (beyond.got(out), there.got(from_outside())) == (0, 0)
        host.restart()


@contextmanager
def extra_port(name: str, far: str) -> Iterator[int]:
    sh(f"ip link add {name} type veth peer {far}")
    try:
        for end in (name, far):
            sh(f"ip link set {end} addrgenmode none up")
        join(name)
        yield socket.if_nametoindex(name)
    finally:
        sh(f"ip link delete {name}")


def test_o9_a_port_that_is_made_anew_is_another_one(host: Host) -> None:
    """Under the same name, before anybody has told the daemon that the old one is gone."""
    with extra_port("vnet7", "far7") as number:
        host.datapath.attach("00000000-0000-4000-8000-000000000007", number, "02:00:00:00:00:07")
        tap, frame = Tap("far7"), Ether(src="02:00:00:00:77:77", dst=EVERYBODY) / ARP(psrc=IPV4.peer)
        send(BEYOND, frame)
        until(lambda: tap.got(frame) == 1)
    with extra_port("vnet7", "far7"):
        tap, before = Tap("far7"), refused(host.datapath.port_guard)
        send(BEYOND, frame)
        send("far7", from_outside())
        until(lambda: refused(host.datapath.port_guard) >= before + 2)
        assert tap.got(frame) == 0


def test_o9_a_device_whose_name_is_a_number_is_not_the_one_with_that_number(host: Host) -> None:
    """What goes to the one that is attached gets there, and nothing to the other."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    guard = host.datapath.port_guard
    with extra_port(str(here.ifindex), "far7"):
        for protect in (
            lambda: guard.install(guard.stamp_in_force(), [here.ifindex]),
            lambda: (guard.release(here.ifindex), guard.protect(here.ifindex)),
        ):
            protect()
            assert guard.protected_in_force() == {here.ifindex}


def test_o4_a_guard_that_is_removed_is_made_anew(host: Host) -> None:
    """Whole, with the ports that have programs; and so is one that is changed."""
    host.port("here")
    guard = host.datapath.port_guard
    assert not guard.restore()
    for change in (
        f"delete table {TABLE}",
        f"flush set {TABLE} protected",
        f"flush chain {TABLE} forward",
        f"insert rule {TABLE} forward accept",
        "flush ruleset",
    ):
        sh(f"nft {change}")
        assert guard.restore(), change
        assert not guard.restore(), change
        assert guard.status().startswith("on, 1 ports protected"), change


def test_a_reload_while_the_guard_is_another_one_takes_nothing_from_it(host: Host) -> None:
    """What is made anew has the stamp of before, and so have packets: none is lost."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    table = sh(f"nft list table {TABLE}")
    stamp = re.search("mark (0x[0-9a-f]+)", table)
    assert stamp
    sh(f"nft delete table {TABLE}; nft '{table.replace(stamp[1], '0x00000007')}'")
    host.datapath.configure(host.settings)
    assert host.datapath.port_guard.restore()
    beyond, frame = Tap(BEYOND), Ether(src=here.mac, dst=EVERYBODY) / udp(IPV4.here, IPV4.peer)
    send("far0", frame)
    until(lambda: beyond.got(frame) == 1)


def test_a_vnic_that_comes_and_goes_while_the_guard_is_gone(host: Host) -> None:
    """Nothing fails for it; what is made anew has those that are there then."""
    here = host.port("here")
    sh(f"nft delete table {TABLE}")
    host.port("twin")
    host.datapath.detach(here.id)
    assert host.datapath.port_guard.restore()
    assert "port1" in sh(f"nft list set {TABLE} protected")
    assert "port0" not in sh(f"nft list set {TABLE} protected")


def test_o1_the_guard_outlives_the_daemon_and_goes_on_under_the_next(host: Host) -> None:
    """No frame is lost meanwhile: the stamp is the one of the table that is there, also for a daemon whose
    maps know of none, as after an upgrade."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    stamp = host.datapath.port_guard.stamp_in_force()
    beyond, frame = Tap(BEYOND), Ether(src=here.mac, dst=EVERYBODY) / udp(IPV4.here, IPV4.peer)
    sent = 0
    for forgetful in (False, True):
        host.datapath.close()
        send("far0", frame, times=5)
        if forgetful:
            forget(host, "settings")
        host.datapath = type(host.datapath).open(host.pins, host.settings)
        assert host.datapath.port_guard.stamp_in_force() == stamp
        send("far0", frame, times=5)
        sent += 10
    until(lambda: beyond.got(frame) == sent)


def test_what_bears_programs_stays_protected_under_a_daemon_that_knows_no_vnics(host: Host) -> None:
    """As after an upgrade, until the vNICs are recognised: what goes to them is filtered as before. Others
    are not."""
    here, twin = host.port("here"), host.port("twin")
    host.datapath.close()
    take_all_off(twin.ifindex)
    forget(host, "vnics")
    host.datapath = type(host.datapath).open(host.pins, host.settings)
    assert host.datapath.slots == {}
    assert host.datapath.port_guard.protected_in_force() == {here.ifindex}
    host.datapath.attach(here.id, here.ifindex, here.mac)
    assert host.datapath.port_guard.protected_in_force() == {here.ifindex}


def test_o6_from_boot_on_every_port_is_closed(host: Host) -> None:
    """Before any daemon, without maps: the guard alone. Where it is there already, nothing changes."""
    host.datapath.port_guard.remove()
    alone = PortGuard(GUARDED.guard_ports)
    alone.close_until_told()
    frame = from_outside()
    beyond, there = Tap(BEYOND), Tap("far1")
    send("far0", frame, times=5)
    send(BEYOND, frame, times=5)
    from_port0, to_four_ports = 5, 20
    until(lambda: refused(alone) >= from_port0 + to_four_ports)
    assert "mark" not in sh(f"nft list table {TABLE}")
    assert (beyond.got(frame), there.got(frame)) == (0, 0)
    host.restart()
    stamp = host.datapath.port_guard.stamp_in_force()
    PortGuard(GUARDED.guard_ports).close_until_told()
    assert stamp == host.datapath.port_guard.stamp_in_force() != 0


def test_a_guard_that_is_not_wanted_goes(host: Host) -> None:
    """Without ports to guard there is no table, and no mark on anything."""
    host.settings = Settings(flows_per_vnic=1024)
    try:
        host.restart()
        here = host.port("here")
        assert "vsfwd" not in sh("nft list tables")
        frame = bytes(Ether(src=here.mac, dst=EVERYBODY) / ARP(hwsrc=here.mac, psrc="0.0.0.0"))
        assert bpf.run_program(host.datapath.vnic_out, frame, ifindex=here.ifindex)[2] == 0
        assert host.datapath.status()["port_guard"].startswith("off")
        assert not host.datapath.port_guard.restore()
        assert "vsfwd" not in sh("nft list tables")
    finally:
        host.settings = GUARDED
        host.restart()


def test_what_passes_out_bears_the_stamp_and_nothing_else_does(host: Host) -> None:
    """A packet that passes, ARP, an answer to a rejected packet; not what is dropped, nor what goes in."""
    here = host.port("here")
    host.install(["allow service udp", "drop"], vnics=VNICS)
    stamp = host.datapath.port_guard.stamp_in_force()
    arp = Ether(src=here.mac, dst=EVERYBODY) / ARP(hwsrc=here.mac, psrc=IPV4.here)

    def mark(program: int, frame: Packet, mark: int = 0) -> int:
        return bpf.run_program(program, bytes(frame), ifindex=here.ifindex, mark=mark)[2]

    out, into = host.datapath.vnic_out, host.datapath.vnic_in
    assert mark(out, here.frame_out(udp(IPV4.here, IPV4.peer))) == stamp
    assert mark(out, arp) == stamp
    assert mark(out, here.frame_out(tcp(IPV4.here, IPV4.peer)), mark=host.mark(here)) == stamp
    assert mark(out, here.frame_out(tcp(IPV4.here, IPV4.peer))) == 0
    assert mark(into, here.frame_in(udp(IPV4.peer, IPV4.here))) == 0
    assert mark(into, here.frame_in(tcp(IPV4.peer, IPV4.here)), mark=host.mark(here)) == 0


def test_what_goes_to_the_link_s_own_groups_is_guarded_too(host: Host) -> None:
    """A bridge hands it to the host past the hook that all else meets (LACP, 802.1X)."""
    send("far1", Ether(src="02:00:00:00:66:66", dst="01:80:c2:00:00:03", type=0x888E) / (b"\0" * 46), times=5)
    until(lambda: refused(host.datapath.port_guard) >= 5)


def test_a_kernel_that_refuses_is_said_and_tried_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """vNICs are filtered all the same; when the kernel takes it, the guard is there."""
    guard = PortGuard(('broken"',))
    guard.install(1, [])
    assert "syntax error" in guard.fault
    assert guard.status().startswith("not in force")
    guard.protect(7)
    assert not guard.restore()
    monkeypatch.setattr(guard, "_ports", GUARDED.guard_ports)
    assert not guard.restore()
    assert guard.status().startswith("on, 1 ports protected")


def test_stamp_and_marks_never_meet(host: Host) -> None:
    """The mark of a reject reply lets it pass unseen: the stamp is none of them."""
    here: Port = host.port("here")
    assert host.mark(here) >> 31 == 1
    assert host.datapath.port_guard.stamp_in_force() >> 31 == 0
