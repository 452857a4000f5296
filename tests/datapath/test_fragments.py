"""Fragments go the way of the first one, contiguous and in order. Whoever puts a packet together from what
has passed gets one opinion of every byte, and the one that was judged.

Each piece is built by hand; nothing here leaves it to a library what a fragment is."""

import socket
import subprocess

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from tests.harness.datapath import Host, Seen, dropped, inside, passed, until
from tests.harness.journey import VNICS, Journey
from tests.harness.packets import IPV4, IPV6, Net, tcp, udp
from tests.harness.wired import Wired

pytestmark = pytest.mark.slow

ONLY_IPV6 = pytest.mark.parametrize("net", [IPV6], ids=["ipv6"])
HEAD = bytes(UDP(sport=1000, dport=53, len=8 + 16 + 16 + 5)) + bytes(16)
"""The first 24 of 45 bytes of a UDP packet."""
POISONED = dropped("fragment_order")
ALONE = dropped("fragment")


def piece(
    ends: tuple[str, str],
    data: bytes,
    at: int = 0,
    *,
    more: bool = True,
    id: int = 7,
    protocol: int = 17,
) -> Packet:
    """One fragment: `data` belongs `at` this byte of the packet's payload."""
    source, destination = ends
    if ":" in source:
        header = IPv6ExtHdrFragment(id=id, m=int(more), offset=at // 8, nh=protocol)
        return IPv6(src=source, dst=destination) / header / Raw(data)
    flags = "MF" if more else 0
    return IP(src=source, dst=destination, id=id, flags=flags, frag=at // 8, proto=protocol) / Raw(data)


def first(journey: Journey, **fields: int) -> Seen:
    return journey.take(piece(journey.ends, HEAD, **fields))


def middle(journey: Journey, **fields: int) -> Seen:
    return journey.take(piece(journey.ends, bytes(16), 24, **fields))


def last(journey: Journey, **fields: int) -> Seen:
    return journey.take(piece(journey.ends, bytes(5), 40, more=False, **fields))


def test_fragments_in_order_pass_with_the_first(journey: Journey) -> None:
    """Each counts for the rule that let the first pass; the first makes the flow; with the last all is
    forgotten."""
    assert first(journey) == passed(1, new=True)
    assert middle(journey) == passed(1)
    assert last(journey) == passed(1)
    assert journey.port.flow().protocol == 17
    assert last(journey) == ALONE
    assert (first(journey), last(journey)) == (passed(1), POISONED)


def test_fragments_go_as_the_first_has_gone(journey: Journey) -> None:
    """If it is dropped, they have nothing to go with; nor have they an answer if it is rejected."""
    for action in ("drop", "reject"):
        journey.install(f"{action} service udp/53", "allow")
        assert first(journey) == dropped(f"rule_{action}", 1)
        assert middle(journey) == ALONE
        assert last(journey) == ALONE
    assert journey.port.flows() == []


@pytest.mark.parametrize(
    ("protocol", "head", "reason"),
    [
        (6, bytes(TCP(flags="S"))[:16], "short"),
        (6, bytes(TCP(flags="S"))[:8], "short"),
        (6, bytes(TCP(flags="S", dataofs=7)) + bytes(4), "header"),
        (17, b"", "length"),
    ],
)
def test_x1_a_tiny_first_fragment_is_dropped(
    journey: Journey, protocol: int, head: bytes, reason: str
) -> None:
    """It must have the whole header of its protocol, TCP's with its options (RFC 1858, RFC 7112)."""
    assert journey.take(piece(journey.ends, head, protocol=protocol)) == dropped(reason)
    assert journey.take(piece(journey.ends, bytes(24), len(head) or 8, protocol=protocol)) == ALONE


@pytest.mark.parametrize("at", [8, 16])
def test_x2_no_fragment_writes_over_the_header(journey: Journey, at: int) -> None:
    """At an offset where TCP's flags or ports are (RFC 3128): with the first fragment and without it."""
    syn = bytes(TCP(flags="S", dport=80, dataofs=5)) + bytes(4)
    flags = piece(journey.ends, bytes(24), at, more=False, protocol=6)
    assert journey.take(flags) == ALONE
    assert journey.take(piece(journey.ends, syn, protocol=6)) == passed(1, new=True)
    assert journey.take(flags) == POISONED


@pytest.mark.parametrize(
    ("at", "size"), [(0, 24), (8, 32), (16, 24), (24, 8), (40, 8), (48, 8)], ids=lambda value: str(value)
)
def test_x3_overlaps_duplicates_and_gaps_spoil_the_packet(journey: Journey, at: int, size: int) -> None:
    """After two fragments up to byte 32, one that begins anywhere else; then the right one comes too late,
    and so does everything else of this packet, and of this packet only."""
    assert first(journey) == passed(1, new=True)
    assert journey.take(piece(journey.ends, bytes(8), 24)) == passed(1)
    data = HEAD if at == 0 else bytes(size)
    assert journey.take(piece(journey.ends, data, at)) == POISONED
    assert journey.take(piece(journey.ends, bytes(8), 32)) == POISONED
    assert journey.take(piece(journey.ends, bytes(8), 32, more=False)) == POISONED
    assert first(journey) == POISONED
    assert first(journey, id=8) == passed(1)
    assert middle(journey, id=8) == passed(1)


def test_x4_fragments_out_of_order_are_dropped(journey: Journey) -> None:
    """The last first, and the middle ones swapped: dropped, counted, none held back."""
    assert last(journey) == ALONE
    assert first(journey) == passed(1, new=True)
    assert last(journey) == POISONED
    assert middle(journey) == POISONED


def test_x5_a_flood_of_fragments_costs_only_fragments(host: Host, net: Net) -> None:
    """Packets that are never completed take no more than a small table: flows stay, and the fragments of
    another vNIC go on."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["allow"], vnics=VNICS | {"twin": "10.0.0.2 fd00::2 db"})
    assert here.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    others = (net.peer, net.twin)
    assert twin.receive(piece(others, HEAD)) == passed(1, new=True)
    for id in range(2000):
        flood = piece((net.other, net.here), HEAD, id=id)
        assert here.run_raw(host.datapath.vnic_in, bytes(here.frame_in(flood))) == 0
    assert sorted(here.states()) == ["single", "syn_sent"]
    assert twin.receive(piece(others, bytes(16), 24)) == passed(1)
    fresh = (net.peer, net.here)
    assert here.receive(piece(fresh, HEAD)) == passed(1, new=True)
    assert here.receive(piece(fresh, bytes(5), 24, more=False)) == passed(1)


def test_x5_a_packet_has_64_fragments_at_most(journey: Journey) -> None:
    """What needs more than any host sends is dropped."""
    assert first(journey) == passed(1, new=True)
    for number in range(63):
        assert journey.take(piece(journey.ends, bytes(8), 24 + 8 * number)) == passed(1)
    assert journey.take(piece(journey.ends, bytes(8), 24 + 8 * 63)) == POISONED


def test_x5_fragments_wait_for_a_while_only(journey: Journey) -> None:
    """After 30 seconds (here 0) what follows a first fragment is too late, and its id is free again."""
    with journey.host.timers(FRAGMENTS=0):
        assert first(journey) == passed(1, new=True)
        assert middle(journey) == ALONE
        assert first(journey) == passed(1)


@ONLY_IPV6
def test_x6_an_atomic_fragment_is_a_whole_packet(journey: Journey) -> None:
    """It is judged by itself and touches no fragments, even if they have its identification (RFC 6946)."""
    whole = bytes(UDP(sport=1000, dport=53, len=16)) + bytes(8)
    assert first(journey) == passed(1, new=True)
    assert journey.take(piece(journey.ends, whole, more=False)) == passed(1)
    assert middle(journey) == passed(1)
    liar = bytes(UDP(sport=1000, dport=53, len=17)) + bytes(8)
    assert journey.take(piece(journey.ends, liar, more=False)) == dropped("length")
    journey.install("drop service udp/53", "allow")
    assert journey.take(piece(journey.ends, whole, more=False)) == dropped("rule_drop", 1)


@ONLY_IPV6
@pytest.mark.parametrize("outer", [(0, 0), (0, 1), (8, 0)], ids=["atomic", "first", "later"])
@pytest.mark.parametrize("between", [False, True], ids=["adjacent", "apart"])
def test_x7_two_fragment_headers_are_dropped(journey: Journey, outer: tuple[int, int], between: bool) -> None:
    """Whatever they say, and whatever is between them."""
    offset, more = outer
    packet = IPv6(src=journey.source, dst=journey.destination) / IPv6ExtHdrFragment(offset=offset, m=more)
    if between:
        packet = packet / IPv6ExtHdrDestOpt()
    packet = packet / IPv6ExtHdrFragment(m=1) / Raw(HEAD)
    assert journey.take(packet) == (dropped("extensions") if offset == 0 else ALONE)


@ONLY_IPV6
@pytest.mark.parametrize("size", [8, 16])
def test_x8_a_header_chain_that_goes_on_in_the_next_fragment_is_dropped(journey: Journey, size: int) -> None:
    """The first fragment has all headers (RFC 7112): neither the protocol's nor half of an extension header
    comes later."""
    options = bytes([17, 1, 1, 12]) + bytes(12)
    assert journey.take(piece(journey.ends, options[:size], protocol=60)) == dropped("short")
    assert journey.take(piece(journey.ends, HEAD, size, protocol=60)) == ALONE
    assert journey.take(piece(journey.ends, options + HEAD, protocol=60)) == passed(1, new=True)
    assert journey.take(piece(journey.ends, bytes(5), 40, more=False, protocol=60)) == passed(1)


def test_a_packet_of_fragments_is_never_too_long(journey: Journey) -> None:
    """The ping of death: a last fragment that ends behind byte 65,535 is dropped, one that ends there is
    only without its first."""
    room = 65535 - (20 if journey.net is IPV4 else 0) - 65504
    for size, seen in ((room, ALONE), (room + 1, dropped("length")), (1000, dropped("length"))):
        assert journey.take(piece(journey.ends, bytes(size), 65504, more=False)) == seen


@pytest.mark.parametrize("size", [0, 1, 7, 9, 15])
def test_fragments_but_the_last_are_multiples_of_eight(journey: Journey, size: int) -> None:
    """No offset could say where the next one begins; and one without a byte would never end."""
    assert first(journey) == passed(1, new=True)
    assert journey.take(piece(journey.ends, bytes(size), 24)) == dropped("length")
    assert middle(journey) == passed(1)
    assert journey.take(piece(journey.ends, b"", 40, more=False)) == dropped("length")


def test_fragments_do_not_outlive_their_policy(journey: Journey) -> None:
    """When the policy changes between the first and the rest, the rest is dropped, whatever the new policy
    says; the next packet, also of the same identification, goes by the new one."""
    assert first(journey) == passed(1, new=True)
    journey.install("allow", "drop")
    assert middle(journey) == ALONE
    assert first(journey) == passed(1)
    assert middle(journey) == passed(1)
    journey.install("drop")
    assert last(journey) == ALONE


def test_fragments_are_of_one_packet_only(journey: Journey) -> None:
    """Another identification, another source, another direction: another packet. In IPv4 also another
    protocol; IPv6 tells packets apart without it."""
    assert first(journey) == passed(1, new=True)
    assert middle(journey, id=7 + 0x100) == ALONE
    assert journey.take(piece((journey.net.other, journey.destination), bytes(16), 24)) == ALONE
    back = piece((journey.destination, journey.source), bytes(16), 24)
    assert (journey.port.send if journey.inward else journey.port.receive)(back) == ALONE
    assert middle(journey, protocol=6) == (ALONE if journey.net is IPV4 else passed(1))


def test_x29_fragmented_neighbour_discovery_is_dropped(host: Host) -> None:
    """RFC 6980, also for a packet of one fragment."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    message = bytes(ICMPv6ND_NS(tgt="fd00::1"))
    for more in (True, False):
        packet = piece(("fe80::1", "fe80::2"), message, more=more, protocol=58)
        packet.hlim = 255
        assert here.send(packet) == dropped("not_on_link")
        assert here.receive(packet) == dropped("not_on_link")


def test_a_fragmented_icmp_error_belongs_to_nothing(journey: Journey) -> None:
    """No error is long enough to be cut, and what one quotes could come in pieces."""
    ends = journey.ends
    back = (ends[1], ends[0])
    assert journey.take(udp(*ends)) == passed(1, new=True)
    quoted = bytes(udp(*ends))
    error = ICMP(type=3, code=3) if journey.net is IPV4 else ICMPv6DestUnreach(code=4)
    data = bytes(error)[:8] + quoted
    fragment = piece(back, data[: len(data) // 8 * 8], protocol=1 if journey.net is IPV4 else 58)
    other_way = journey.port.send if journey.inward else journey.port.receive
    assert other_way(fragment) == dropped("icmp_error_unrelated")


def test_a_long_ping_is_one_echo(journey: Journey) -> None:
    """By the first fragment's identifier."""
    echo = ICMP(type=8, id=9) if journey.net is IPV4 else ICMPv6EchoRequest(id=9)
    protocol = 1 if journey.net is IPV4 else 58
    assert journey.take(piece(journey.ends, bytes(echo)[:8] + bytes(16), protocol=protocol)) == passed(
        1, new=True
    )
    assert journey.take(piece(journey.ends, bytes(99), 24, more=False, protocol=protocol)) == passed(1)
    assert journey.port.states() == ["echo"]


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_long_pings_pass_between_workloads(wired: Wired, net: Net) -> None:
    """4,000 bytes there and back, in three fragments each way, cut by the kernel."""
    wired.install(
        [
            "allow from web to db service icmp/8,icmpv6/128",
            "allow service icmpv6",
            "drop service icmp",
            "drop",
        ]
    )
    before = wired.lost(3)
    with inside(wired.here):
        subprocess.run(["ping", "-c3", "-i0.2", "-W5", "-s4000", net.twin], check=True, capture_output=True)
    assert wired.lost(3) == before


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no-offload"])
def test_long_datagrams_pass_between_workloads(wired: Wired, net: Net, offload: bool) -> None:
    """What the rule for their port allows arrives whole; what it does not, not at all, and its fragments are
    dropped at the sender's vNIC."""
    wired.offload(offload)
    wired.install(["allow from web to db service udp/9", "allow service icmpv6", "drop service udp", "drop"])
    family = socket.AF_INET6 if net is IPV6 else socket.AF_INET
    with inside(wired.twin):
        allowed, refused = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        allowed.bind((net.twin, 9))
        refused.bind((net.twin, 10))
    with inside(wired.here):
        speaker = socket.socket(family, socket.SOCK_DGRAM)
    with allowed, refused, speaker:
        before = wired.lost(3)
        allowed.settimeout(5)
        for size in (1400, 4000, 60000):
            message = bytes([size % 251]) * size
            speaker.sendto(message, (net.twin, 9))
            assert allowed.recv(65535) == message
        assert wired.lost(3) == before
        speaker.sendto(bytes(4000), (net.twin, 10))
        until(lambda: wired.lost(3)[0] > before[0])
        refused.setblocking(False)
        with pytest.raises(BlockingIOError):
            refused.recv(65535)


def test_fragments_of_an_authenticated_packet_are_of_its_protocol(journey: Journey) -> None:
    """CVE-2019-5597: AH in a fragment is protocol 51, whatever it protects; what follows goes with it."""
    pieces = [
        piece(journey.ends, bytes([17, 4]) + bytes(22), protocol=51),
        piece(journey.ends, bytes(16), 24, more=False, protocol=51),
    ]
    journey.install("allow service tcp,udp,icmp,icmpv6", "drop")
    assert [journey.take(fragment) for fragment in pieces] == [dropped("rule_drop", 2), ALONE]
    journey.install("allow service 51", "drop")
    assert [journey.take(fragment) for fragment in pieces] == [passed(1, new=True), passed(1)]
