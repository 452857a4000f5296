"""Early drop: what the XDP program drops, and above all what it leaves to TC."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random

import pytest
from pyroute2 import IPRoute
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PEER_MAC, Host, until
from tests.harness.packets import IPV4, IPV6, Net, udp
from vsfwd.datapath import DatapathError, EarlyDrop, bpf
from vsfwd.datapath.build import compile_text
from vsfwd.policy.bits import prefixes_of

pytestmark = pytest.mark.slow

DEVICE = "port0"
PREFIXES = {IPV4: "10.0.9.0/25", IPV6: "fd00::9:0/112"}
OUTSIDE = {IPV4: "10.0.9.128", IPV6: "fd00::a:0"}
PASS, DROP = "pass", "drop"
ETHER = Ether(src=PEER_MAC, dst=PEER_MAC)
VERDICTS = {1: DROP, 2: PASS}  # XDP_DROP, XDP_PASS of linux/bpf.h


class Drop:
    """The early drop on DEVICE."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def attach(self, *blocked: str, rate: int = 0, burst: int = 0) -> None:
        prefixes = [prefix for text in blocked for prefix in prefixes_of(text)]
        self._host.datapath.early.attach(DEVICE, prefixes, rate, burst)

    def program(self) -> AbstractContextManager[int]:
        return self._host.datapath.early.program(DEVICE)

    def verdict(self, packet: Packet | bytes) -> str:
        frame = packet if isinstance(packet, bytes) or Ether in packet else ETHER / packet
        with self.program() as program:
            return VERDICTS[bpf.run_xdp(program, bytes(frame))[0]]

    def verdicts(self, packet: Packet, repeat: int) -> list[str]:
        return [self.verdict(packet) for _ in range(repeat)]

    def now(self) -> EarlyDrop:
        (found,) = self._host.datapath.early.all()
        return found

    def counted(self) -> tuple[int, int, int]:
        return self.now().passed, self.now().dropped_blocked, self.now().dropped_rate


@pytest.fixture
def drop(host: Host) -> Iterator[Drop]:
    yield Drop(host)
    for left in host.datapath.early.all():
        host.datapath.early.detach(left.device)


def test_what_comes_from_a_prefix_is_dropped(drop: Drop, net: Net) -> None:
    """And counted; the addresses around it pass, and so does what goes to it."""
    drop.attach(PREFIXES[net])
    assert drop.verdict(udp(net.peer, net.here)) == DROP
    assert drop.counted() == (0, 1, 0)
    assert drop.verdict(udp(OUTSIDE[net], net.here)) == PASS
    assert drop.verdict(udp(net.here, net.peer)) == PASS
    assert drop.counted() == (2, 1, 0)


@pytest.mark.parametrize(("blocked", "other"), [("0.0.0.0/0", IPV6), ("::/0", IPV4)])
def test_x41_a_prefix_covers_its_own_family_only(drop: Drop, blocked: str, other: Net) -> None:
    """IPv4 is kept inside IPv6, but ::/0 does not mean it."""
    drop.attach(blocked)
    assert drop.verdict(udp(other.peer, other.here)) == PASS


def test_x41_ipv6_with_an_ipv4_mapped_source_is_left_to_tc(drop: Drop) -> None:
    """It is not the IPv4 host it looks like."""
    drop.attach("10.0.9.9", "::/0")
    assert drop.verdict(udp("::ffff:10.0.9.9", "fd00::1")) == PASS


def test_what_is_not_ip_is_left_to_tc(drop: Drop) -> None:
    """Also when everybody is blocked: ARP, and whatever nobody knows."""
    drop.attach("0.0.0.0/0", "::/0")
    for frame in (
        ETHER / ARP(psrc="10.0.9.9"),
        Ether(src=PEER_MAC, dst=PEER_MAC, type=0x88CC) / Raw(bytes(60)),
        bytes(14),
    ):
        assert drop.verdict(frame) == PASS


@pytest.mark.parametrize(
    "tags",
    [Dot1Q(vlan=5), Dot1Q(vlan=0), Dot1AD(vlan=5), Dot1AD(vlan=5) / Dot1Q(vlan=6)],
    ids=["802.1Q", "priority", "802.1ad", "QinQ"],
)
def test_x38_a_tag_does_not_change_the_verdict(drop: Drop, net: Net, tags: Packet) -> None:
    """Where the driver takes tags off they are not to be seen, so where they are they must not count."""
    drop.attach(PREFIXES[net])
    assert drop.verdict(ETHER / tags / udp(net.peer, net.here)) == DROP
    assert drop.verdict(ETHER / tags / udp(OUTSIDE[net], net.here)) == PASS


def test_x38_a_third_tag_is_left_to_tc(drop: Drop, net: Net) -> None:
    """Which drops it for its tag."""
    drop.attach(PREFIXES[net])
    assert drop.verdict(ETHER / Dot1Q() / Dot1Q() / Dot1Q() / udp(net.peer, net.here)) == PASS


def test_x38_a_header_that_is_cut_is_left_to_tc(drop: Drop, net: Net) -> None:
    """Whatever the length; from a whole IP header on the source is known."""
    drop.attach(PREFIXES[net])
    frame = bytes(ETHER / udp(net.peer, net.here))
    whole = 14 + (20 if net is IPV4 else 40)
    for length in range(14, len(frame)):
        assert drop.verdict(frame[:length]) == (DROP if length >= whole else PASS), length


def expected(frame: bytes) -> str:
    """By a second, slower reading of the frame, of a list of the two prefixes in PREFIXES."""
    rest, tags = frame[12:], 0
    while rest[:2] in (b"\x81\x00", b"\x88\xa8") and tags < 2:
        rest, tags = rest[4:], tags + 1
    kind, header = rest[:2], rest[2:]
    if kind == b"\x08\x00" and len(header) >= 20 and header[0] >> 4 == 4 and header[0] & 15 >= 5:
        return DROP if IPv4Address(header[12:16]) in ip_network(PREFIXES[IPV4]) else PASS
    if kind == b"\x86\xdd" and len(header) >= 40 and header[0] >> 4 == 6:
        return DROP if IPv6Address(header[8:24]) in ip_network(PREFIXES[IPV6]) else PASS
    return PASS


def test_x38_mutated_frames_are_dropped_only_for_their_source(drop: Drop, net: Net) -> None:
    """1,000 frames with bytes changed and ends cut: the program reads each as the second reading does."""
    drop.attach(*PREFIXES.values())
    packet, random = udp(net.peer, net.here), Random(38)
    frames = [bytes(tags / packet) for tags in (ETHER, ETHER / Dot1Q(), ETHER / Dot1AD() / Dot1Q())]
    seen = set()
    for _ in range(1000):
        frame = bytearray(random.choice(frames))
        for _ in range(random.randrange(3)):
            frame[random.randrange(12, 40)] = random.choice((0, 0x08, 0x45, 0x60, 0x81, 0x86, 0xDD, 0xFF))
        cut = bytes(frame[: random.choice((len(frame), random.randrange(14, len(frame))))])
        assert drop.verdict(cut) == expected(cut), cut.hex()
        seen.add(expected(cut))
    assert seen == {PASS, DROP}


def test_a_source_may_send_its_burst(drop: Drop, net: Net) -> None:
    """Then it is dropped, and counted as that, while others pass."""
    drop.attach(rate=1, burst=3)
    assert drop.verdicts(udp(net.peer, net.here), 5) == [PASS] * 3 + [DROP] * 2
    assert drop.verdict(udp(net.other, net.here)) == PASS
    assert drop.counted() == (4, 0, 2)


def test_a_bucket_fills_again(drop: Drop, net: Net) -> None:
    """At the rate, up to the burst."""
    drop.attach(rate=4, burst=2)
    with drop.program() as program:
        bpf.run_xdp(program, bytes(ETHER / udp(net.peer, net.here)), repeat=1000)
    passed, _, dropped = drop.counted()
    assert 2 <= passed < dropped
    until(lambda: drop.verdict(udp(net.peer, net.here)) == PASS)


def test_a_flood_passes_at_the_rate(drop: Drop, host: Host, net: Net) -> None:
    """Half a second of one source, by the programs' clock: what passes is the burst and what the rate gives
    in that time. The bucket is emptied first and last, and holds five seconds' tokens between, so none is
    lost while the test has no CPU."""
    drop.attach(rate=1000, burst=5000)
    frame = bytes(ETHER / udp(net.peer, net.here))
    hz, jiffies = host.datapath.status()["hz"], host.datapath._programs.jiffies
    with drop.program() as program:
        begun = jiffies()
        bpf.run_xdp(program, frame, repeat=20_000)
        emptied = jiffies()
        while jiffies() < emptied + hz / 2:
            bpf.run_xdp(program, frame, repeat=10)
        ended = jiffies()
        bpf.run_xdp(program, frame, repeat=20_000)
        over = jiffies()
    passed, _, dropped = drop.counted()
    assert 4999 + 1000 * (ended - emptied) / hz <= passed <= 5001 + 1000 * (over - begun) / hz
    assert dropped > passed


def test_a_source_that_is_dropped_by_prefix_takes_no_tokens(drop: Drop, net: Net) -> None:
    """The list comes first."""
    drop.attach(PREFIXES[net], rate=1, burst=1)
    assert drop.verdicts(udp(net.peer, net.here), 3) == [DROP] * 3
    assert drop.counted() == (0, 3, 0)
    drop.attach(rate=1, burst=1)
    assert drop.verdicts(udp(net.peer, net.here), 2) == [PASS, DROP]


def test_a_new_limit_forgets_the_debt_of_the_old_one(drop: Drop, net: Net) -> None:
    """Who has emptied a bucket that takes minutes to fill is judged by the new limit at once."""
    drop.attach(rate=1, burst=500)
    with drop.program() as program:
        bpf.run_xdp(program, bytes(ETHER / udp(net.peer, net.here)), repeat=1000)
    assert drop.verdict(udp(net.peer, net.here)) == DROP
    drop.attach(rate=100, burst=1)
    until(lambda: drop.verdict(udp(net.peer, net.here)) == PASS)


def test_more_sources_than_there_is_room_for(drop: Drop) -> None:
    """The table is bounded: a flood from everywhere is no error, and everybody has a first packet."""
    drop.attach(rate=1, burst=1)
    frame = bytearray(bytes(ETHER / udp("10.0.0.0", "10.1.0.1")))
    with drop.program() as program:
        for number in range(70_000):
            frame[26:30] = IPv4Address(0x0A000000 + number).packed
            assert VERDICTS[bpf.run_xdp(program, bytes(frame))[0]] == PASS


def test_attaching_again_replaces_list_and_limit(drop: Drop, net: Net) -> None:
    """What is not said again is gone; counters go on."""
    drop.attach(PREFIXES[net], rate=1, burst=1)
    assert drop.verdict(udp(net.peer, net.here)) == DROP
    drop.attach(OUTSIDE[net])
    assert drop.verdicts(udp(net.peer, net.here), 3) == [PASS] * 3
    assert drop.verdict(udp(OUTSIDE[net], net.here)) == DROP
    assert drop.counted() == (3, 2, 0)
    assert (drop.now().blocked, drop.now().rate, drop.now().burst) == (prefixes_of(OUTSIDE[net]), 0, 0)


def test_an_update_has_no_gap(drop: Drop) -> None:
    """A source that is on every list never passes while lists are exchanged."""
    drop.attach("10.0.9.9")
    frame, stop = bytes(ETHER / udp("10.0.9.9", "10.0.0.1")), threading.Event()

    def flood(program: int) -> None:
        while not stop.is_set():
            bpf.run_xdp(program, frame, repeat=100)

    with drop.program() as program:
        thread = threading.Thread(target=flood, args=[program])
        thread.start()
        for number in range(30):
            drop.attach("10.0.9.9", f"192.0.2.{number}")
        stop.set()
        thread.join()
    passed, dropped, _ = drop.counted()
    assert passed == 0
    assert dropped > 1000


@pytest.mark.slow
def test_it_outlives_the_daemon(drop: Drop, host: Host) -> None:
    """The next one finds all of it, and can change and end it."""
    drop.attach("10.0.9.9", "fd00::9:0/112", rate=1000, burst=20)
    assert drop.verdict(udp("10.0.9.9", "10.0.0.1")) == DROP
    before = drop.now()
    host.restart()
    assert drop.now() == before
    assert before == EarlyDrop(
        DEVICE, "native", (*prefixes_of("10.0.9.9"), *prefixes_of("fd00::9:0/112")), 1000, 20, 0, 1, 0
    )
    drop.attach("10.0.9.10")
    assert drop.verdict(udp("10.0.9.9", "10.0.0.1")) == PASS
    host.datapath.early.detach(DEVICE)
    assert host.datapath.early.all() == []


def test_it_ends_with_its_device(drop: Drop, host: Host) -> None:
    """Nothing stays behind, and a device that comes with the same name begins without; others go on."""
    drop.attach("10.0.9.9")
    ip("link", "add", "gone", "type", "veth", "peer", "name", "gone-far")
    host.datapath.early.attach("gone", prefixes_of("10.0.9.9"), 0, 0)
    pins = host.pins / "early"
    assert len(list(pins.iterdir())) == 2
    ip("link", "delete", "gone")
    host.datapath.remove_older_pins()
    assert len(list(pins.iterdir())) == 1
    assert host.datapath.early.all() == [drop.now()]


def test_without_native_mode_it_is_generic(host: Host) -> None:
    """A bridge has no driver that runs XDP; it can be attached, changed and detached like the others."""
    early = host.datapath.early
    ip("link", "add", "plain", "type", "bridge")
    try:
        for text in "10.0.9.9", "10.0.9.10":
            early.attach("plain", prefixes_of(text), 0, 0)
            (found,) = early.all()
            assert (found.mode, found.blocked) == ("generic", prefixes_of(text))
        early.detach("plain")
        assert early.all() == []
    finally:
        ip("link", "delete", "plain")


def test_what_cannot_be_is_refused_by_name(host: Host) -> None:
    """No such device, the loopback, nothing to detach."""
    early = host.datapath.early
    for device, reason in ("nosuch", "No such device"), ("lo", "loopback"):
        with pytest.raises(DatapathError, match=rf"device {device}: .*{reason}"):
            early.attach(device, (), 1, 1)
        with pytest.raises(DatapathError, match=rf"device {device}: .*{reason}"):
            early.detach(device)
    with pytest.raises(DatapathError, match=rf"device {DEVICE}: has no early drop"):
        early.detach(DEVICE)


def test_a_program_of_somebody_else_is_left_alone(host: Host) -> None:
    """It is neither replaced, nor taken off, nor shown."""
    early, netlink = host.datapath.early, IPRoute()
    theirs = compile_text("int theirs(struct xdp_md *context) { return XDP_PASS; }")
    index = netlink.link_lookup(ifname=DEVICE)[0]
    with theirs.loaded(bpf.ProgramType.XDP) as programs:
        netlink.link("set", index=index, xdp_fd=programs["theirs"])
    try:
        with pytest.raises(DatapathError, match=r"has the XDP program \d+ \(of another tool\)"):
            early.attach(DEVICE, (), 1, 1)
        with pytest.raises(DatapathError, match="has no early drop"):
            early.detach(DEVICE)
        assert early.all() == []
    finally:
        netlink.link("set", index=index, xdp_fd=-1)
        netlink.close()


def test_real_frames_are_dropped_before_tc(drop: Drop, host: Host) -> None:
    """What a workload sends from a blocked source never reaches the vNIC's program, tagged or not; the rest
    is judged there."""
    port = host.port("web")
    drop.attach("10.0.9.9", "fd00::9:9")
    early = [
        udp("10.0.9.9", "10.0.0.1"),
        udp("fd00::9:9", "fd00::1"),
        Dot1Q(vlan=5) / udp("10.0.9.9", "10.0.0.1"),
    ]
    port.wire(*(bytes(Ether(src=port.mac, dst=PEER_MAC) / packet) for packet in early))
    port.wire(bytes(Ether(src=port.mac, dst=PEER_MAC) / udp("10.0.9.10", "10.0.0.1")))
    until(lambda: drop.counted() == (1, 3, 0))
    until(lambda: port.drops() == {"closed": 1})


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
