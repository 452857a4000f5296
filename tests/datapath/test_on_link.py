"""What no rule is asked about: addresses no packet on a wire has, redirects from a workload, and neighbour
discovery or MLD that may come from beyond the link. The policy allows everything."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.packet import Packet, Raw

from tests.harness.datapath import dropped, passed
from tests.harness.journey import Journey
from tests.harness.packets import IPV4, IPV6, ip, udp, unreachable

pytestmark = pytest.mark.slow

ONLY_IPV6 = pytest.mark.parametrize("net", [IPV6], ids=["ipv6"])
DISCOVERY = [ICMPv6ND_RS(), ICMPv6ND_RA(), ICMPv6ND_NS(tgt="fd00::1"), ICMPv6ND_NA(tgt="fd00::1")]
MEMBERSHIP = [ICMPv6MLReport(), ICMPv6MLDone(), ICMPv6MLReport2()]
MARTIAN_SOURCES = {
    "ipv4": ["127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255", "255.255.255.255"],
    "ipv6": ["::1", "ff02::1", "ffff::"],
}
ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert()])


def name_of(packet: Packet) -> str:
    return type(packet).__name__


def from_link(
    message: Packet, hop_limit: int, source: str = "fe80::9", header: Packet | None = None
) -> Packet:
    base = IPv6(src=source, dst="ff02::1", hlim=hop_limit)
    return (base / header.copy() if header else base) / message.copy()


@pytest.mark.parametrize("end", ["source", "destination"])
def test_martian_addresses_are_dropped(journey: Journey, end: str) -> None:
    """Groups and the loopback send nothing; nothing goes to the loopback or to nowhere. Their neighbours are
    hosts like any."""
    four = journey.net is IPV4
    martian = {
        "source": MARTIAN_SOURCES[journey.net.family],
        "destination": ["127.0.0.1", "127.8.8.8", "0.0.0.0"] if four else ["::1", "::"],
    }
    hosts = {
        "source": ["126.255.255.255", "128.0.0.1", "223.255.255.255", "0.0.0.0", "240.0.0.1"]
        if four
        else ["::2", "feff::1", "::", "1::1"],
        "destination": ["126.255.255.255", "224.0.0.1", "255.255.255.255", "0.0.0.1"]
        if four
        else ["::2", "ff02::1", "1::"],
    }
    source, destination = journey.ends
    for addresses, verdict in ((martian, "drop"), (hosts, "pass")):
        for address in addresses[end]:
            ends = (address, destination) if end == "source" else (source, address)
            seen = journey.take(udp(*ends))
            assert (seen.verdict, seen.reason) == (verdict, "address" if verdict == "drop" else None), address


def test_a_packet_from_itself_to_itself_is_dropped(journey: Journey) -> None:
    """Land: neither as a first packet nor as an echo; the address next to it may."""
    address = journey.net.here
    assert journey.take(udp(address, address)) == dropped("address")
    following = str(ip_address(address) + 1)
    assert journey.take(udp(following, address)).verdict == "pass"


def test_x23_an_icmp_error_from_nowhere_is_dropped(journey: Journey) -> None:
    """Any router may send an error about a flow, but none has a group's address, or the loopback's."""
    about = udp(*reversed(journey.ends))
    assert (journey.port.send if journey.inward else journey.port.receive)(about) == passed(1, new=True)
    for source in MARTIAN_SOURCES[journey.net.family]:
        assert journey.take(unreachable(source, about)) == dropped("address")
    assert journey.take(unreachable(journey.net.other, about)) == passed(1)


def test_x23_nobody_asks_for_smaller_packets_than_there_are(journey: Journey) -> None:
    """68 bytes in IPv4, 1,280 in IPv6, or an MTU that an old router does not know (0, in IPv4 only)."""
    about = udp(*reversed(journey.ends))
    assert (journey.port.send if journey.inward else journey.port.receive)(about) == passed(1, new=True)
    four = journey.net is IPV4
    quoted = Raw(bytes(about)[: 28 if four else 48])
    for mtu, good in {0: four, 67: False, 68: four, 1279: four, 1280: True, 9000: True}.items():
        error = ICMP(type=3, code=4, nexthopmtu=mtu) if four else ICMPv6PacketTooBig(mtu=mtu)
        seen = journey.take(ip(*journey.ends) / error / quoted)
        assert seen == (passed(1) if good else dropped("mtu")), mtu


@ONLY_IPV6
@pytest.mark.parametrize("message", DISCOVERY, ids=name_of)
def test_x29_neighbour_discovery_comes_from_the_link(journey: Journey, message: Packet) -> None:
    """Its hop limit is 255, as no router leaves it (RFC 4861)."""
    journey.install("allow", marks="router")
    assert journey.take(from_link(message, 255)) == passed(1)
    for hop_limit in (254, 64, 1, 0):
        assert journey.take(from_link(message, hop_limit)) == dropped("not_on_link")


@ONLY_IPV6
@pytest.mark.parametrize("message", DISCOVERY, ids=name_of)
@pytest.mark.parametrize("header", [IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop()], ids=name_of)
def test_x29_neighbour_discovery_hides_behind_nothing(
    journey: Journey, message: Packet, header: Packet
) -> None:
    """With extension headers it is dropped: guards on the way would not see it."""
    assert journey.take(from_link(message, 255, header=header)) == dropped("not_on_link")


@ONLY_IPV6
def test_x28_neighbour_discovery_is_not_believed_before_a_policy_is_in(journey: Journey) -> None:
    """A closed vNIC passes it, with the same conditions; out of it what claims nothing."""
    journey.host.install(["allow"], vnics={})
    message = ICMPv6ND_NS(tgt="fd00::1")
    assert journey.take(from_link(message, 255, "::")).verdict == "pass"
    assert journey.take(from_link(message, 254, "::")) == dropped("not_on_link")


@ONLY_IPV6
def test_x25_discovery_and_membership_make_no_flow(journey: Journey) -> None:
    """Nothing of it lets an echo by that has the identifier a flow of theirs would have had: 0."""
    journey.install("allow", marks="router")
    for message in DISCOVERY:
        assert journey.take(from_link(message, 255, journey.source)) == passed(1)
    for message in MEMBERSHIP:
        assert journey.take(from_link(message, 1, journey.source, ALERT)) == passed(1)
    assert journey.port.flows() == []
    journey.install("allow service icmpv6/135,icmpv6/136", "drop")
    solicitation = IPv6(src=journey.source, dst=journey.destination, hlim=255) / ICMPv6ND_NS(tgt="fd00::1")
    assert journey.take(solicitation) == passed(1)
    for echo in (ICMPv6EchoRequest(id=0), ICMPv6EchoReply(id=0)):
        there = IPv6(src=journey.source, dst=journey.destination) / echo
        back = IPv6(src=journey.destination, dst=journey.source) / echo
        assert journey.take(there) == dropped("rule_drop", 2)
        assert (journey.port.send if journey.inward else journey.port.receive)(back) == dropped(
            "rule_drop", 2
        )


def redirect(journey: Journey) -> Packet:
    if journey.net is IPV4:
        return ip(*journey.ends) / ICMP(type=5, code=1, gw="10.0.9.7") / bytes(udp(*journey.ends))
    return ip(*journey.ends, hlim=255) / ICMPv6ND_Redirect(tgt="fe80::7", dst="fd00::9:9")


def test_x26_a_workload_sends_no_redirects(journey: Journey) -> None:
    """No workload is a router; what comes in is judged by rules."""
    assert journey.take(redirect(journey)) == (passed(1) if journey.inward else dropped("redirect"))


@ONLY_IPV6
def test_x29_a_redirect_comes_from_the_link(journey: Journey) -> None:
    """Like the rest of neighbour discovery."""
    packet = redirect(journey)
    packet.hlim = 254
    assert journey.take(packet) == dropped("not_on_link")


@ONLY_IPV6
@pytest.mark.parametrize("message", MEMBERSHIP, ids=name_of)
def test_x39_membership_reports_stay_on_the_link(journey: Journey, message: Packet) -> None:
    """Their hop limit is 1; they may come from the unspecified address, before a workload has one."""
    for source in ("fe80::9", "::"):
        assert journey.take(from_link(message, 1, source, ALERT)) == passed(1)
        for hop_limit in (0, 2, 64, 255):
            assert journey.take(from_link(message, hop_limit, source, ALERT)) == dropped("not_on_link")


@ONLY_IPV6
def test_x39_a_membership_query_comes_from_a_link_local_address(journey: Journey) -> None:
    """Not from the unspecified one, not from one that is routed, and with a hop limit of 1."""
    query = ICMPv6MLQuery()
    assert journey.take(from_link(query, 1, "fe80::9", ALERT)) == passed(1)
    assert journey.take(from_link(query, 1, "febf::9", ALERT)) == passed(1)
    for source in ("::", "fd00::9:9", "fec0::9", "fe7f::9"):
        assert journey.take(from_link(query, 1, source, ALERT)) == dropped("not_on_link")
    assert journey.take(from_link(query, 2, "fe80::9", ALERT)) == dropped("not_on_link")
