"""What is not a packet a firewall can judge is dropped before any rule, each kind with its own reason.

All of it happens under a policy that allows everything: only the guard can drop."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, Port, dropped, passed, until
from tests.harness.packets import Net, tcp, udp

VNICS = {"here": "10.0.0.1 fd00::1 web"}
OUR_MAC = "02:00:00:00:00:00"


@pytest.fixture
def here(host: Host) -> Port:
    """A vNIC whose policy allows everything."""
    port = host.port("here")
    host.install(["allow"], vnics=VNICS)
    return port


def frame(payload: Packet, **ethernet: int | str) -> Packet:
    return Ether(**({"src": PEER_MAC, "dst": OUR_MAC} | ethernet)) / payload


def test_frames_for_another_mac_are_not_mine(here: Port, net: Net) -> None:
    """Unicast that the bridge floods to this port is dropped before any rule and makes no flow."""
    assert here.receive(frame(udp(net.peer, net.here), dst="02:00:00:00:00:01")) == dropped("not_mine")
    assert here.receive(frame(udp(net.peer, net.here), dst="02:00:00:00:01:00")) == dropped("not_mine")
    assert here.receive(frame(udp(net.peer, net.here), dst="03:00:00:00:00:00")) == passed(1)
    assert here.flows() == []
    assert here.receive(frame(udp(net.peer, net.here))) == passed(1, new=True)


def test_a_workload_may_send_to_any_mac(here: Port, net: Net) -> None:
    """The check of the destination MAC is for what comes in only."""
    assert here.send(frame(udp(net.here, net.peer), dst="02:00:00:00:01:00")) == passed(1, new=True)


@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8])
def test_a_vlan_tag_is_dropped(here: Port, net: Net, ethertype: int) -> None:
    """Tags have no business on an access port, whatever they carry."""
    tagged = frame(Dot1Q(vlan=0) / udp(net.here, net.peer), type=ethertype)
    assert here.send(tagged).verdict == "drop"
    assert here.send(tagged).reason == "vlan_tag"


@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8])
def test_a_vlan_tag_is_dropped_when_the_kernel_has_taken_it_off(here: Port, net: Net, ethertype: int) -> None:
    """On a real device the outer tag is no longer in the data, but in the packet's metadata."""
    here.wire(bytes(frame(Dot1Q(vlan=5) / udp(net.here, net.peer), type=ethertype, src=OUR_MAC)))
    until(lambda: here.drops() == {"vlan_tag": 1})


@pytest.mark.parametrize("ethertype", [0x0004, 0x0805, 0x8035, 0x8847, 0x8863, 0x88CC])
def test_other_ethertypes_are_dropped(here: Port, ethertype: int) -> None:
    """Only IPv4, IPv6 and ARP pass; a neighbouring number does not."""
    assert here.send(frame(Raw(bytes(50)), type=ethertype)) == dropped("ethertype")


def test_arp_passes(here: Port) -> None:
    """ARP passes in both directions, to everybody and to one."""
    assert here.send(frame(ARP(), dst="ff:ff:ff:ff:ff:ff")) == PASSED_UNSEEN
    assert here.receive(frame(ARP(op=2))) == PASSED_UNSEEN


@pytest.mark.parametrize("ip_header", [20, 40], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("protocol", "size"), [("tcp", 20), ("udp", 8)])
def test_a_truncated_header_is_short_or_lies(here: Port, ip_header: int, protocol: str, size: int) -> None:
    """One byte less than a whole header is dropped, for what the frame lacks or for what the length
    claims."""
    net = ("10.0.9.9", "10.0.0.1") if ip_header == 20 else ("fd00::9:9", "fd00::1")
    whole = (tcp(*net) if protocol == "tcp" else udp(*net, data=0)).copy()
    claims = bytearray(bytes(frame(whole))[: 14 + ip_header + size - 1])
    assert here.receive(Ether(bytes(claims))) == dropped("length")
    field = 16 if ip_header == 20 else 18
    claims[field : field + 2] = (size - 1 + (20 if ip_header == 20 else 0)).to_bytes(2, "big")
    assert here.receive(Ether(bytes(claims))) == dropped("short")
    assert here.receive(whole) == passed(1, new=True)


def test_a_frame_that_ends_in_its_ip_header_is_short(here: Port, net: Net) -> None:
    """Nothing behind the frame is read. By the wire: a test run refuses to build such a packet."""
    header = 20 if net.family == "ipv4" else 40
    here.wire(bytes(frame(udp(net.here, net.peer)))[: 14 + header - 1])
    until(lambda: here.drops().get("short") == 1)


def test_a_length_beyond_the_frame_is_dropped(here: Port) -> None:
    """Claiming one byte more than there is, or less than the header, is a lie; trailing bytes are not."""
    packet = udp("10.0.9.9", "10.0.0.1", data=8)
    packet[IP].len = 20 + 8 + 8 + 1
    assert here.receive(packet) == dropped("length")
    packet[IP].len = 19
    assert here.receive(packet) == dropped("length")
    packet[IP].len = 0
    assert here.receive(packet) == dropped("length")
    packet[IP].len, packet[UDP].len = 20 + 8 + 8, 16
    assert here.receive(packet / Raw(bytes(10))) == passed(1, new=True)
    packet = udp("fd00::9:9", "fd00::1", data=8)
    packet[IPv6].plen = 8 + 8 + 1
    assert here.receive(packet) == dropped("length")
    packet[IPv6].plen, packet[UDP].len = 8 + 8, 16
    assert here.receive(packet / Raw(bytes(10))) == passed(1, new=True)


def test_a_wrong_ip_header_is_dropped(here: Port) -> None:
    """Wrong version, header length below 5, TCP offset below 5 or beyond the packet."""
    base = {"src": "10.0.9.9", "dst": "10.0.0.1"}
    assert here.receive(frame(IP(version=6, **base) / UDP(), type=0x0800)) == dropped("header")
    assert here.receive(frame(IP(ihl=4, **base) / UDP() / Raw(bytes(8)), type=0x0800)) == dropped("header")
    six = frame(IPv6(version=4, src="fd00::9:9", dst="fd00::1") / UDP(), type=0x86DD)
    assert here.receive(six) == dropped("header")
    assert here.receive(IP(**base) / TCP(dataofs=4, flags="S")) == dropped("header")
    assert here.receive(IP(**base) / TCP(dataofs=6, flags="S")) == dropped("header")
    assert here.receive(IP(**base) / TCP(dataofs=5, flags="S")) == passed(1, new=True)


def test_ip_options_are_skipped(here: Port) -> None:
    """The ports behind options are the ones that count."""
    packet = IP(src="10.0.9.9", dst="10.0.0.1", options=[IPOption_NOP()] * 4) / UDP(sport=1, dport=4242)
    assert here.receive(packet) == passed(1, new=True)
    assert here.flow().local_port == 4242


def test_extension_headers_are_followed_to_a_limit(here: Port) -> None:
    """Hop-by-hop, routing and destination options are followed; six of them, not seven."""
    base = IPv6(src="fd00::9:9", dst="fd00::1")
    chain = (
        IPv6ExtHdrHopByHop(options=[PadN(optdata=b"12")]) / IPv6ExtHdrRouting(type=4) / IPv6ExtHdrDestOpt()
    )
    assert here.receive(base / chain / UDP(sport=1, dport=4242)) == passed(1, new=True)
    assert here.flow().local_port == 4242
    for count, seen in ((6, passed(1, new=True)), (7, dropped("extensions"))):
        packet = base.copy()
        for _ in range(count):
            packet = packet / IPv6ExtHdrDestOpt()
        assert here.receive(packet / UDP(sport=2, dport=4243)) == seen


def test_mapped_addresses_never_arrive_as_ipv6(here: Port) -> None:
    """::ffff:0:0/96 is where IPv4 is kept: as source or destination of a real IPv6 packet it is forged."""
    assert here.receive(udp("::ffff:10.0.9.9", "fd00::1")) == dropped("mapped")
    assert here.send(udp("fd00::1", "::ffff:10.0.9.9")) == dropped("mapped")
    assert here.receive(udp("::fffe:10.0.9.9", "fd00::1")) == passed(1, new=True)


def test_each_family_has_its_own_icmp(here: Port) -> None:
    """ICMP inside IPv6 and ICMPv6 inside IPv4 are nothing."""
    six = IPv6(src="fd00::9:9", dst="fd00::1", nh=1) / Raw(bytes(ICMP()))
    assert here.receive(six) == dropped("icmp_family")
    four = IP(src="10.0.9.9", dst="10.0.0.1", proto=58) / Raw(bytes(ICMPv6EchoRequest()))
    assert here.receive(four) == dropped("icmp_family")


def test_groups_are_judged_packet_by_packet(here: Port, net: Net) -> None:
    """Broadcast and multicast ask the rules each time and never become flows."""
    for _ in range(2):
        assert here.receive(frame(udp(net.peer, net.here), dst="33:33:00:00:00:01")) == passed(1)
    assert here.flows() == []
