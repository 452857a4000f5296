"""Frames into claims, against scapy's idea of the frames; and hostile frames into nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply, DHCP6OptIA_NA, DHCP6OptIAAddress
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from vsfwd.protocol.messages import Claim, Source
from vsfwd.snooping import claims

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
RAW = bytes.fromhex(MAC.replace(":", ""))
NOW = 1_000_000


def sent(packet: Packet, source: str = MAC) -> list[Claim]:
    return claims(bytes(Ether(src=source, dst=OTHER) / packet), "out", RAW, NOW)


def received(packet: Packet, destination: str = MAC) -> list[Claim]:
    return claims(bytes(Ether(src=OTHER, dst=destination) / packet), "in", RAW, NOW)


@pytest.mark.parametrize("op", [1, 2])
def test_arp_claims_its_sender(op: int) -> None:
    """A request says who asks, a reply who answers."""
    assert sent(ARP(op=op, hwsrc=MAC, psrc="10.0.0.1")) == [Claim("10.0.0.1", Source.ARP)]


@pytest.mark.parametrize(
    "packet",
    [
        ARP(hwsrc=OTHER, psrc="10.0.0.1"),
        ARP(hwsrc=MAC, psrc="0.0.0.0"),
        ARP(hwsrc=MAC, psrc="224.0.0.1"),
        ARP(hwsrc=MAC, psrc="255.255.255.255"),
        ARP(hwsrc=MAC, psrc="127.0.0.1"),
        ARP(hwtype=6, hwsrc=MAC, psrc="10.0.0.1"),
    ],
)
def test_arp_of_others_of_nobody_and_of_everybody_claims_nothing(packet: Packet) -> None:
    """Probes come from 0.0.0.0; groups and the loopback are no hosts."""
    assert sent(packet) == []


def test_another_ethernet_source_claims_nothing() -> None:
    """x33: whoever forges the frame does not speak for this vNIC."""
    assert sent(ARP(hwsrc=MAC, psrc="10.0.0.1"), source=OTHER) == []
    assert sent(IPv6(src="fd00::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), source=OTHER) == []


def test_discovery_claims_targets_and_sources() -> None:
    """An advertisement and duplicate address detection their target, a solicitation its source."""
    base = IPv6(src="fe80::5", dst="ff02::1", hlim=255)
    assert sent(base / ICMPv6ND_NA(tgt="fd00::7")) == [Claim("fd00::7", Source.ND)]
    assert sent(base / ICMPv6ND_NS(tgt="fd00::7")) == [Claim("fe80::5", Source.ND)]
    assert sent(base / ICMPv6ND_RS()) == [Claim("fe80::5", Source.ND)]
    assert sent(IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::7")) == [
        Claim("fd00::7", Source.ND)
    ]
    assert sent(IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS()) == []
    assert sent(IPv6(src="fe80::5", dst="ff02::1", hlim=254) / ICMPv6ND_NA(tgt="fd00::7")) == []
    assert sent(base / ICMPv6EchoRequest()) == []
    assert sent(base / ICMPv6ND_NA(tgt="::ffff:10.0.0.1")) == []
    assert sent(base / ICMPv6ND_NA(tgt="ff02::1")) == []


def dhcp(
    kind: str = "ack", mac: str = MAC, lease: int = 3600, yiaddr: str = "10.0.0.9", op: int = 2
) -> Packet:
    body = BOOTP(op=op, yiaddr=yiaddr, chaddr=bytes.fromhex(mac.replace(":", "")))
    options = DHCP(options=["pad", ("message-type", kind), ("lease_time", lease), "end"])
    return IP(src="10.0.0.254", dst="255.255.255.255") / UDP(sport=67, dport=68) / body / options


def test_an_acknowledged_lease_is_a_claim_that_ends() -> None:
    """To everybody's MAC address or the vNIC's own, with that of its server; forever is forever."""
    assert received(dhcp()) == [Claim("10.0.0.9", Source.DHCP, NOW + 3600, OTHER)]
    assert received(dhcp(), "ff:ff:ff:ff:ff:ff") == [Claim("10.0.0.9", Source.DHCP, NOW + 3600, OTHER)]
    assert received(dhcp(lease=0xFFFFFFFF)) == [Claim("10.0.0.9", Source.DHCP, server=OTHER)]


@pytest.mark.parametrize(
    "packet", [dhcp("offer"), dhcp("nak"), dhcp(mac=OTHER), dhcp(yiaddr="0.0.0.0"), dhcp(op=1)]
)
def test_other_dhcp_is_no_lease(packet: Packet) -> None:
    """Offers, refusals, another's lease, an answer to an inform, a request."""
    assert received(packet) == []


def test_a_workload_leases_itself_nothing() -> None:
    """The same bytes on the way out are no lease."""
    assert sent(dhcp()) == []


def dhcpv6(kind: type[Packet] = DHCP6_Reply, valid: int = 7200) -> Packet:
    leased = [DHCP6OptIAAddress(addr=f"fd00::{n}", validlft=valid) for n in (8, 9)]
    head = IPv6(src="fe80::1", dst="fe80::5") / UDP(sport=547, dport=546)
    return head / kind(trid=1) / DHCP6OptIA_NA(iaid=1, ianaopts=leased)


def test_dhcpv6_replies_lease_every_address_in_them() -> None:
    """To the vNIC's own MAC address, with that of their server; an advertisement is no lease, nor is one that
    ends now."""
    ends = NOW + 7200
    assert received(dhcpv6()) == [Claim(f"fd00::{n}", Source.DHCPV6, ends, OTHER) for n in (8, 9)]
    assert received(dhcpv6(), OTHER) == []
    assert received(dhcpv6(DHCP6_Advertise)) == []
    assert received(dhcpv6(valid=0)) == []


WHOLE = [
    ("out", Ether(src=MAC, dst=OTHER) / ARP(hwsrc=MAC, psrc="10.0.0.1")),
    ("out", Ether(src=MAC, dst=OTHER) / IPv6(src="fd00::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1")),
    ("in", Ether(src=OTHER, dst=MAC) / dhcp()),
    ("in", Ether(src=OTHER, dst=MAC) / dhcpv6()),
]


@pytest.mark.parametrize(("direction", "frame"), WHOLE)
def test_a_frame_that_ends_early_is_no_crash(direction: str, frame: Packet) -> None:
    """Every beginning of a good frame; only what is whole says something."""
    raw = bytes(frame)
    assert claims(raw, direction, RAW, NOW)
    for end in range(len(raw)):
        claims(raw[:end], direction, RAW, NOW)


@given(st.sampled_from(WHOLE), st.data())
def test_any_bytes_at_all_are_no_crash(whole: tuple[str, Packet], data: st.DataObject) -> None:
    """Good frames with hostile bytes in them, and an arbitrary tail."""
    direction, raw = whole[0], bytearray(bytes(whole[1]))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=8)):
        raw[at] = data.draw(st.integers(0, 255))
    claims(bytes(raw) + data.draw(st.binary(max_size=64)), direction, RAW, NOW)
    claims(data.draw(st.binary(max_size=300)), direction, RAW, NOW)
