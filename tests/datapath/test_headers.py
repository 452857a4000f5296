"""Headers that lie, hide what is behind them or lead elsewhere. The policy allows everything, so only the
parser drops, and the port the flow gets shows where it found the protocol's header."""

import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.harness.datapath import Seen, dropped, passed
from tests.harness.journey import Journey
from tests.harness.packets import IPV4, IPV6, other, reply_to, udp

pytestmark = pytest.mark.slow

ONLY_IPV4 = pytest.mark.parametrize("net", [IPV4], ids=["ipv4"])
ONLY_IPV6 = pytest.mark.parametrize("net", [IPV6], ids=["ipv6"])

TO_4242 = bytes(UDP(sport=1, dport=4242, len=16)) + bytes(8)
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60


def with_options(journey: Journey, options: bytes) -> Packet:
    """IPv4, whole words of options, UDP."""
    header = IP(src=journey.source, dst=journey.destination, proto=17, ihl=5 + len(options) // 4)
    return header / Raw(options + TO_4242)


def with_extensions(journey: Journey, *headers: tuple[int, bytes], last: int = 17) -> Packet:
    """IPv6, extension headers given by number and content from the third byte on, UDP."""
    numbers = [number for number, _ in headers] + [last]
    chain = b"".join(
        bytes([following, (len(content) + 2) // 8 - 1]) + content
        for following, (_, content) in zip(numbers[1:], headers, strict=True)
    )
    return IPv6(src=journey.source, dst=journey.destination, nh=numbers[0]) / Raw(chain + TO_4242)


def assert_found(journey: Journey, packet: Packet) -> None:
    """It passes, by the port that is behind everything."""
    assert journey.take(packet) == passed(1, new=True)
    assert 4242 in (journey.port.flow().local_port, journey.port.flow().remote_port)


@ONLY_IPV6
@pytest.mark.parametrize(("count", "seen"), [(6, passed(1, new=True)), (7, dropped("extensions"))])
def test_x9_a_long_chain_of_extension_headers_is_dropped(journey: Journey, count: int, seen: Seen) -> None:
    """Six extension headers are followed, behind a seventh nobody looks."""
    assert journey.take(with_extensions(journey, *[(DESTINATION, b"\1\4" + bytes(4))] * count)) == seen


@ONLY_IPV6
def test_x9_extension_headers_that_go_on_and_on_are_dropped(journey: Journey) -> None:
    """Neither 24 headers and options together nor 512 bytes are passed over, however few headers they are."""
    assert journey.take(with_extensions(journey, (DESTINATION, bytes(6 + 16)))) == passed(1, new=True)
    assert journey.take(with_extensions(journey, (DESTINATION, bytes(6 + 24)))) == dropped("extensions")
    wide = b"\1\xff" + bytes(255) + b"\1\xf9" + bytes(249)
    assert journey.take(with_extensions(journey, (DESTINATION, wide + bytes(2)))) == dropped("extensions")


@pytest.mark.parametrize("protocol", [50, 51, 59, 135, 253], ids=["esp", "ah", "none", "mobility", "unknown"])
def test_x10_a_header_that_is_not_followed_is_the_protocol(journey: Journey, protocol: int) -> None:
    """ESP, AH and unknown headers match rules for their number or for anything, never rules for ports, even
    if what is behind them looks like TCP."""
    inner = bytes([6, 2]) + bytes(10) + bytes(TCP(dport=80, flags="S"))
    packet = other(*journey.ends, protocol)
    packet[Raw].load = inner
    journey.install("allow service tcp,udp,icmp,icmpv6", "drop")
    assert journey.take(packet) == dropped("rule_drop", 2)
    journey.install(f"allow service {protocol}", "drop")
    assert journey.take(packet) == passed(1, new=True)
    assert journey.port.flow().protocol == protocol


@pytest.mark.parametrize("protocol", [132, 33, 136], ids=["sctp", "dccp", "udp-lite"])
def test_x46_other_transports_are_their_protocol(journey: Journey, protocol: int) -> None:
    """They have ports where TCP has, but rules know them by number only: no rule for TCP or UDP allows or
    drops them. All of it between two hosts is one flow, and no INIT, ABORT or tag of an association changes
    it."""

    def chunk(source: int, destination: int) -> Packet:
        packet = other(*journey.ends, protocol)
        packet[Raw].load = struct.pack("!HHII", source, destination, 0, 0) + bytes(8)
        return packet

    journey.install("allow service tcp/80,udp/80", "drop")
    assert journey.take(chunk(1000, 80)) == dropped("rule_drop", 2)
    journey.install("drop service tcp,udp", f"allow service {protocol}", "drop")
    assert journey.take(chunk(1000, 80)) == passed(2, new=True)
    assert journey.take(chunk(1001, 81)) == passed(2)
    answer = reply_to(chunk(1000, 80))
    assert (journey.port.send if journey.inward else journey.port.receive)(answer) == passed(2)
    assert journey.port.flow().state == "multiple"


@ONLY_IPV6
@pytest.mark.parametrize(
    "options",
    [b"\1\4" + bytes(4), bytes(6), b"\5\2\0\0\1\0", b"\x3e\4abcd", b"\xfe\4abcd", b"\xc2\4\0\1\0\0"],
    ids=["padn", "pad1", "router-alert", "skip-me", "discard-me", "jumbo"],
)
@pytest.mark.parametrize("header", [HOP_BY_HOP, DESTINATION], ids=["hop-by-hop", "destination"])
def test_x11_options_are_followed_to_the_port(journey: Journey, header: int, options: bytes) -> None:
    """Whatever well-formed options say (what to do about unknown ones is the end host's business), the port
    behind them counts."""
    assert_found(journey, with_extensions(journey, (header, options)))


@ONLY_IPV6
@pytest.mark.parametrize("options", [b"\1\5" + bytes(4), b"\1\xff" + bytes(4), bytes(5) + b"\1"])
@pytest.mark.parametrize("header", [HOP_BY_HOP, DESTINATION], ids=["hop-by-hop", "destination"])
def test_x11_options_that_lie_about_their_length_are_dropped(
    journey: Journey, header: int, options: bytes
) -> None:
    """An option that ends behind its header, by one byte, by many, or by having no length at all."""
    assert journey.take(with_extensions(journey, (header, options))) == dropped("header")


@ONLY_IPV6
def test_x11_hop_by_hop_options_come_first_or_not_at_all(journey: Journey) -> None:
    """Behind another extension header no host would accept them (RFC 8200 4.1)."""
    padding = b"\1\4" + bytes(4)
    late = with_extensions(journey, (DESTINATION, padding), (HOP_BY_HOP, padding))
    assert journey.take(late) == dropped("extensions")


@ONLY_IPV6
def test_x11_a_chain_that_leaves_the_packet_is_dropped(journey: Journey) -> None:
    """A header that claims more than the packet has, though the frame goes on behind it."""
    packet = with_extensions(journey, (DESTINATION, b"\1\4" + bytes(4)), last=253)
    packet[Raw].load = bytes([253, 1]) + packet[Raw].load[2:]
    packet.plen = 8
    assert journey.take(packet) == dropped("short")
    packet.plen = 4
    assert journey.take(packet) == dropped("short")


@ONLY_IPV4
@pytest.mark.parametrize("number", [131, 137, 3, 9], ids=["lsrr", "ssrr", "lsrr-uncopied", "ssrr-uncopied"])
@pytest.mark.parametrize("before", [b"", b"\1", b"\x94\4\0\0"], ids=["first", "after-nop", "after-alert"])
def test_x12_source_routing_is_dropped(journey: Journey, number: int, before: bytes) -> None:
    """Whatever the rules say: the destination they would judge is not the last one."""
    route = bytes([number, 7, 4]) + bytes(4)
    options = before + route
    packet = with_options(journey, options + bytes(-len(options) % 4))
    assert journey.take(packet) == dropped("source_route")


@ONLY_IPV6
@pytest.mark.parametrize(("type_", "left"), [(0, 0), (0, 1), (2, 1), (3, 2), (4, 1), (253, 255)])
def test_x12_ipv6_source_routing_is_dropped(journey: Journey, type_: int, left: int) -> None:
    """Routing headers with segments left, and those of type 0 in any case (RFC 5095)."""
    routing = bytes([type_, left]) + bytes(4 + 16)
    assert journey.take(with_extensions(journey, (ROUTING, routing))) == dropped("source_route")
    hidden = with_extensions(journey, (DESTINATION, b"\1\4" + bytes(4)), (ROUTING, routing))
    assert journey.take(hidden) == dropped("source_route")


@ONLY_IPV6
@pytest.mark.parametrize("type_", [2, 3, 4, 253])
def test_x12_a_route_that_is_done_is_no_route(journey: Journey, type_: int) -> None:
    """Without segments left the destination is the last one."""
    assert_found(journey, with_extensions(journey, (ROUTING, bytes([type_, 0]) + bytes(4 + 16))))


@ONLY_IPV4
@pytest.mark.parametrize(
    "options",
    [
        b"\x94\4\0\0",
        b"\1" * 20,
        b"\7\x0f\4" + bytes(13),
        b"\x44\x08\5\0" + bytes(4),
        b"\0\x83\7\4",
        b"\x99\4\1\2" + bytes(36),
    ],
    ids=["router-alert", "nop", "record-route", "timestamp", "behind-the-end", "unknown-40"],
)
def test_x12_other_options_pass_by_rules(journey: Journey, options: bytes) -> None:
    """The port behind the options counts; what stands behind their end is padding."""
    assert_found(journey, with_options(journey, options))


@ONLY_IPV4
@pytest.mark.parametrize(
    "options", [b"\x94\5\0\0", b"\x94\0\0\0", b"\x94\1\0\0", b"\1\1\1\x94", b"\7\xff\4\0"]
)
def test_x12_options_that_lie_about_their_length_are_dropped(journey: Journey, options: bytes) -> None:
    """An option that ends behind the header, is shorter than itself, or has no length at all."""
    assert journey.take(with_options(journey, options)) == dropped("header")


@ONLY_IPV4
def test_x12_more_options_than_anybody_needs_are_dropped(journey: Journey) -> None:
    """Options are counted like extension headers."""
    assert journey.take(with_options(journey, b"\1" * 28)) == dropped("extensions")


@ONLY_IPV4
def test_x12_a_header_length_outside_the_packet_is_dropped(journey: Journey) -> None:
    """IHL below 5, and beyond what the packet claims to have."""
    packet = udp(*journey.ends)
    for ihl, length, seen in (
        (4, 36, dropped("header")),
        (0, 36, dropped("header")),
        (15, 36, dropped("length")),
        (6, 23, dropped("length")),
        (5, 36, passed(1, new=True)),
    ):
        packet[IP].ihl, packet[IP].len = ihl, length
        assert journey.take(journey.frame(packet)) == seen


@pytest.mark.parametrize("lie", [1, 500, 65000])
def test_x13_more_claimed_than_present_is_dropped(journey: Journey, lie: int) -> None:
    """By the IP header or by the UDP header."""
    packet = udp(*journey.ends, data=8)
    packet[UDP].len = 16 + lie
    assert journey.take(packet) == dropped("length")
    packet = udp(*journey.ends, data=8)
    if IP in packet:
        packet.len = 36 + lie
    else:
        packet.plen = min(16 + lie, 65535)
    assert journey.take(packet) == dropped("length")


@pytest.mark.parametrize("length", [0, 1, 7])
def test_x13_a_udp_length_below_its_header_is_dropped(journey: Journey, length: int) -> None:
    """Eight bytes are the least there can be."""
    packet = udp(*journey.ends)
    packet[UDP].len = length
    assert journey.take(packet) == dropped("length")
    packet[UDP].len = 8
    assert journey.take(packet) == passed(1, new=True)


def test_x13_headers_are_not_read_from_trailing_bytes(journey: Journey) -> None:
    """What is behind the IP packet does not count, though it is in the frame: a TCP header must end before,
    its options too, and a UDP length."""
    for protocol, payload, length, seen in (
        (6, bytes(TCP(flags="S")), 19, dropped("short")),
        (6, bytes(TCP(flags="S", dataofs=6)) + bytes(4), 23, dropped("header")),
        (17, TO_4242, 15, dropped("length")),
        (17, TO_4242, 7, dropped("short")),
        (17, TO_4242, 16, passed(1, new=True)),
    ):
        packet = other(*journey.ends, protocol)
        packet[Raw].load = payload + bytes(30)
        if IP in packet:
            packet.len = 20 + length
        else:
            packet.plen = length
        assert journey.take(packet) == seen


def test_x41_families_are_separate(journey: Journey) -> None:
    """ICMP allowed is not ICMPv6 allowed, nor the other way round; each in the other's IP is nothing."""
    ours, theirs = (1, 58) if journey.net is IPV4 else (58, 1)
    journey.install(f"allow service {'icmp' if theirs == 1 else 'icmpv6'}", "drop")
    packet = other(*journey.ends, ours)
    packet[Raw].load = bytes([8 if ours == 1 else 128]) + bytes(15)
    assert journey.take(packet) == dropped("rule_drop", 2)
    alien = other(*journey.ends, theirs)
    assert journey.take(alien) == dropped("icmp_family")
