"""A vNIC with SpoofGuard speaks for itself only: from its MAC address, from the addresses bound to it.

Rows X27, X28, X32 and X33 of the attack catalogue, and X31 as far as it is about the client. `here` is
guarded and `twin` is not; the rules allow everything, so only SpoofGuard can drop."""

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, Port, dropped, passed
from tests.harness.packets import IPV4, Net, echo, other, reply_to, tcp, udp, unreachable

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 spoofguard=manual", "twin": "10.0.0.2 fd00::2"}
MAC = "02:00:00:00:00:00"
EUI64 = "fe80::ff:fe00:0"
"""The link-local address that MAC makes."""
BROADCAST = "ff:ff:ff:ff:ff:ff"
NEXT = {"ipv4": "10.0.0.3", "ipv6": "fd00::3"}


@pytest.fixture
def here(host: Host) -> Port:
    port = host.port("here")
    host.install(["allow"], vnics=VNICS)
    return port


def frame(payload: Packet, source: str = MAC, destination: str = PEER_MAC) -> Packet:
    return Ether(src=source, dst=destination) / payload


# X32: MAC and IP


def test_x32_another_mac_is_spoofed(here: Port, net: Net) -> None:
    """A frame from another MAC address is dropped, whatever is in it, also in the middle of a flow."""
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    for wrong in (PEER_MAC, "02:00:00:00:00:01", "02:00:00:01:00:00", "03:00:00:00:00:00"):
        assert here.send(frame(udp(net.here, net.peer), source=wrong)) == dropped("spoofed_mac")
        assert here.send(frame(ARP(hwsrc=MAC, psrc="10.0.0.1"), source=wrong)) == dropped("spoofed_mac")


def test_x32_addresses_are_exact(here: Port, net: Net) -> None:
    """Its own address passes; its neighbour's, nobody's and the other family's idea of none do not."""
    assert here.send(tcp(net.here, net.peer)) == passed(1, new=True)
    for wrong in (net.twin, NEXT[net.family], "0.0.0.0" if net is IPV4 else "::"):
        for packet in (tcp(wrong, net.peer), udp(wrong, net.peer), echo(wrong, net.peer)):
            assert here.send(packet) == dropped("spoofed_ip"), packet.summary()
        assert here.send(other(wrong, net.peer, 47)) == dropped("spoofed_ip")
        assert here.send(frame(udp(wrong, net.peer), destination=BROADCAST)) == dropped("spoofed_ip")
    assert len(here.flows()) == 1


def test_x32_a_link_local_address_is_made_of_the_mac_or_bound(host: Host) -> None:
    """The one that the vNIC's MAC makes needs no binding; another one does."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": "fe80::77 spoofguard=tofu"})
    assert here.send(udp(EUI64, "fe80::2")) == passed(1, new=True)
    assert here.send(udp("fe80::77", "fe80::2")) == passed(1, new=True)
    for wrong in ("fe80::ff:fe00:1", "fe80::2ff:fe00:0", "fe80:0:0:1:0:ff:fe00:0", "fe90::ff:fe00:0"):
        assert here.send(udp(wrong, "fe80::2")) == dropped("spoofed_ip")


def test_x32_without_spoofguard_nothing_of_this_is_asked(host: Host, net: Net) -> None:
    """Off is the default, as NSX ships: any MAC, any source, any ARP."""
    twin = host.port("twin")
    host.install(["allow"], vnics=VNICS)
    assert twin.send(frame(tcp(NEXT[net.family], net.peer), source=PEER_MAC)) == passed(1, new=True)
    assert twin.send(frame(ARP(hwsrc=PEER_MAC, psrc="10.0.0.77"), source=PEER_MAC)) == PASSED_UNSEEN


def test_x32_what_is_bound_at_one_vnic_is_not_at_another(host: Host, net: Net) -> None:
    """Two guarded vNICs: neither sends from the other's address."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["allow"], vnics={name: f"{text} spoofguard=tofu" for name, text in {
        "here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}.items()})  # fmt: skip
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    assert twin.send(udp(net.twin, net.peer)) == passed(1, new=True)
    assert here.send(udp(net.twin, net.peer)) == dropped("spoofed_ip")
    assert twin.send(udp(net.here, net.peer)) == dropped("spoofed_ip")


def test_x32_a_guarded_vnic_without_addresses_has_only_dhcp_and_discovery(host: Host, net: Net) -> None:
    """CVE-2018-14635: no address does not mean any address."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": "spoofguard=tofu"})
    assert here.send(udp(net.here, net.peer)) == dropped("spoofed_ip")
    assert here.send(frame(dhcp(MAC), destination=BROADCAST)) == passed(1)
    assert here.send(detection("fe80::77")) == passed(1)


def test_x32_what_comes_in_opens_no_way_out(here: Port, net: Net) -> None:
    """A packet to an address that is not the vNIC's may come in, but makes no flow for its answer."""
    question = udp(net.peer, NEXT[net.family])
    assert here.receive(question) == passed(1)
    assert here.flows() == []
    assert here.send(reply_to(question)) == dropped("spoofed_ip")
    opening = tcp(net.peer, NEXT[net.family])
    assert here.receive(opening) == passed(1)
    assert here.send(reply_to(opening)) == dropped("spoofed_ip")
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    assert here.send(reply_to(udp(net.peer, net.here))) == passed(1)


def test_x32_an_icmp_error_comes_from_a_bound_address(here: Port, net: Net) -> None:
    """The flow it quotes does not excuse its own source."""
    question = udp(net.peer, net.here)
    assert here.receive(question) == passed(1, new=True)
    assert here.send(unreachable(net.twin, question)) == dropped("spoofed_ip")
    assert here.send(unreachable(net.here, question)) == passed(1)


def test_x33_a_binding_that_goes_cuts_its_flows(host: Host, net: Net) -> None:
    """Established flows of an address that is no longer the vNIC's end in both directions."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    packet = udp(net.here, net.peer)
    assert here.send(packet) == passed(1, new=True)
    assert here.receive(reply_to(packet)) == passed(1)
    host.install(["allow"], vnics={"here": "10.0.0.3 fd00::3 spoofguard=manual"})
    assert here.send(packet) == dropped("spoofed_ip")
    assert here.flows() == []
    assert here.send(udp(NEXT[net.family], net.peer)) == passed(1, new=True)


def test_x33_an_answer_after_a_binding_went_ends_the_flow(host: Host, net: Net) -> None:
    """The first packet after the change is one that comes in: it does not keep the flow alive."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    packet = udp(net.here, net.peer)
    assert here.send(packet) == passed(1, new=True)
    assert here.receive(reply_to(packet)) == passed(1)
    host.install(["allow"], vnics={"here": "spoofguard=manual"})
    assert here.receive(reply_to(packet)) == passed(1)
    assert here.flows() == []
    assert here.send(packet) == dropped("spoofed_ip")


def test_x33_turned_on_it_holds_for_flows_that_live(host: Host, net: Net) -> None:
    """A flow that began from a foreign address before SpoofGuard was on does not outlive that."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1"})
    packet = udp(NEXT[net.family], net.peer)
    assert here.send(packet) == passed(1, new=True)
    host.install(["allow"], vnics=VNICS)
    assert here.send(packet) == dropped("spoofed_ip")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1"})
    assert here.send(packet) == passed(1, new=True)


@pytest.mark.slow
def test_x33_bindings_outlive_the_daemon(host: Host, net: Net) -> None:
    """After a restart, before any policy is installed, the kernel still knows whose addresses are whose."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    host.restart()
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    assert here.send(udp(net.twin, net.peer)) == dropped("spoofed_ip")
    host.install(["allow"], vnics={"here": "spoofguard=manual"})
    assert here.send(udp(net.here, net.peer)) == dropped("spoofed_ip")


def test_x33_a_slot_is_given_on_without_its_bindings(host: Host, net: Net) -> None:
    """The next vNIC in the slot may not send from the addresses of the one before."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    host.datapath.detach(here.id)
    next_ = host.port("next")
    assert next_.slot == here.slot
    host.install(["allow"], vnics={"next": "10.0.0.9 spoofguard=manual"})
    assert next_.send(udp(net.here, net.peer)) == dropped("spoofed_ip")


# X27: ARP


def test_x27_arp_speaks_of_the_vnic_itself(here: Port) -> None:
    """Request, reply and announcement from its own addresses pass; from others' they do not."""
    for op in (1, 2):
        assert here.send(frame(ARP(op=op, hwsrc=MAC, psrc="10.0.0.1", pdst="10.0.9.9"))) == PASSED_UNSEEN
        assert here.send(frame(ARP(op=op, hwsrc=MAC, psrc="10.0.0.2"))) == dropped("spoofed_arp")
    gratuitous = {"hwsrc": MAC, "hwdst": "00:00:00:00:00:00"}
    own, forged = (ARP(psrc=ip, pdst=ip, **gratuitous) for ip in ("10.0.0.1", "10.0.0.2"))
    assert here.send(frame(own, destination=BROADCAST)) == PASSED_UNSEEN
    assert here.send(frame(forged, destination=BROADCAST)) == dropped("spoofed_arp")


def test_x27_the_sender_mac_inside_is_the_one_outside(here: Port) -> None:
    """A right Ethernet source does not excuse a forged sender MAC address."""
    assert here.send(frame(ARP(hwsrc=PEER_MAC, psrc="10.0.0.1"))) == dropped("spoofed_arp")
    assert here.send(frame(ARP(hwsrc="02:00:00:00:00:01", psrc="10.0.0.1"))) == dropped("spoofed_arp")


def test_x27_a_probe_may_ask_for_any_address(here: Port) -> None:
    """RFC 5227: who has no address yet asks from 0.0.0.0; with the wrong MAC address it is no probe."""
    assert here.send(frame(ARP(hwsrc=MAC, psrc="0.0.0.0", pdst="10.0.0.2"))) == PASSED_UNSEEN
    assert here.send(frame(ARP(hwsrc=PEER_MAC, psrc="0.0.0.0", pdst="10.0.0.2"))) == dropped("spoofed_arp")


@pytest.mark.parametrize("wrong", [{"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}, {"plen": 16}, {"plen": 0}])
def test_x27_other_shapes_of_arp_are_dropped(here: Port, wrong: dict[str, int]) -> None:
    """Ethernet and IPv4 only: other lengths put the addresses elsewhere."""
    raw = bytearray(bytes(ARP(hwsrc=MAC, psrc="10.0.0.1")))
    at, size = {"hwtype": (0, 2), "ptype": (2, 2), "hwlen": (4, 1), "plen": (5, 1)}[next(iter(wrong))]
    raw[at : at + size] = next(iter(wrong.values())).to_bytes(size, "big")
    assert here.send(Ether(src=MAC, dst=PEER_MAC, type=0x0806) / Raw(bytes(raw))) == dropped("spoofed_arp")


def test_x27_half_an_arp_is_short(here: Port) -> None:
    """One byte less than the whole."""
    raw = bytes(ARP(hwsrc=MAC, psrc="10.0.0.1"))[:27]
    assert here.send(Ether(src=MAC, dst=PEER_MAC, type=0x0806) / Raw(raw)) == dropped("short")


def test_x27_what_comes_in_is_not_asked(here: Port) -> None:
    """Others speak for themselves: SpoofGuard is theirs, not the receiver's."""
    assert here.receive(Ether(src=PEER_MAC, dst=MAC) / ARP(op=2, psrc="10.0.0.1")) == PASSED_UNSEEN


# X28: neighbour discovery


def advertisement(target: str, mac: str = MAC, source: str = "fd00::1") -> Packet:
    option = ICMPv6NDOptDstLLAddr(lladdr=mac)
    return IPv6(src=source, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=target, R=0) / option


def solicitation(source: str, mac: str = MAC, target: str = "fd00::2") -> Packet:
    option = ICMPv6NDOptSrcLLAddr(lladdr=mac)
    return IPv6(src=source, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=target) / option


def detection(target: str) -> Packet:
    """Duplicate address detection, with the nonce of RFC 7527."""
    nonce = ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce!")
    return IPv6(src="::", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=target) / nonce


def test_x28_advertisements_are_of_bound_addresses(here: Port) -> None:
    """Target and source are the vNIC's, and so is the MAC address in the option."""
    assert here.send(advertisement("fd00::1")) == passed(1)
    assert here.send(advertisement(EUI64, source=EUI64)) == passed(1)
    assert here.send(advertisement("fd00::2")) == dropped("spoofed_nd")
    assert here.send(advertisement("fd00::1", mac=PEER_MAC)) == dropped("spoofed_nd")
    assert here.send(advertisement("fd00::1", source="fd00::2")) == dropped("spoofed_nd")
    assert here.send(advertisement("::", source="fd00::1")) == dropped("spoofed_nd")
    bare = IPv6(src="fd00::1", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1")
    assert here.send(bare) == passed(1)


def test_x28_solicitations_come_from_a_bound_address(here: Port) -> None:
    """Asking puts the asker's address into the neighbour's cache, so it is checked like an answer."""
    assert here.send(solicitation("fd00::1")) == passed(1)
    assert here.send(solicitation("fd00::2")) == dropped("spoofed_nd")
    assert here.send(solicitation("fd00::1", mac=PEER_MAC)) == dropped("spoofed_nd")
    router = IPv6(src="fd00::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    assert here.send(router / ICMPv6NDOptSrcLLAddr(lladdr=MAC)) == passed(1)
    assert here.send(router / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)) == dropped("spoofed_nd")


def test_x28_duplicate_address_detection_always_passes(here: Port) -> None:
    """From :: for any target; what comes from :: and is no question is dropped."""
    assert here.send(detection("fd00::2")) == passed(1)
    assert here.send(IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS()) == passed(1)
    assert here.send(advertisement("fd00::1", source="::")) == dropped("spoofed_ip")


def test_x28_options_are_walked_to_the_end(here: Port) -> None:
    """A forged option behind another one counts; one of length 0, half of one, or a fifth is dropped."""
    base = IPv6(src="fd00::1", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1")
    filler = ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce!")
    own, forged = (ICMPv6NDOptDstLLAddr(lladdr=mac) for mac in (MAC, PEER_MAC))
    assert here.send(base / filler / own) == passed(1)
    assert here.send(base / ICMPv6NDOptUnknown(type=14, len=2, data=bytes(14)) / own) == passed(1)
    assert here.send(base / filler / forged) == dropped("spoofed_nd")
    assert here.send(base / ICMPv6NDOptUnknown(type=14, len=2, data=bytes(14)) / forged) == dropped(
        "spoofed_nd"
    )
    assert here.send(base / own / ICMPv6NDOptUnknown(type=14, len=0, data=b"nonce!")) == dropped("spoofed_nd")
    assert here.send(base / ICMPv6NDOptUnknown(type=14, len=3, data=b"nonce!")) == dropped("spoofed_nd")
    assert here.send(base / Raw(bytes([2, 1]) + bytes(3))) == dropped("spoofed_nd")
    assert here.send(base / Raw(bytes([2, 2]) + bytes.fromhex(MAC.replace(":", "")) + bytes(8))) == dropped(
        "spoofed_nd"
    )
    assert here.send(base / filler / filler / filler / own) == passed(1)
    assert here.send(base / filler / filler / filler / filler / own) == dropped("spoofed_nd")


def test_x28_what_comes_in_is_not_asked(here: Port) -> None:
    """Advertisements of others come in."""
    assert here.receive(advertisement("fd00::2", mac=PEER_MAC, source="fd00::2")) == passed(1)


def test_x39_multicast_reports_may_come_from_no_address(here: Port) -> None:
    """RFC 3590: a report from :: is what a workload sends before it has an address; UDP from :: is not."""
    report = IPv6(src="::", dst="ff02::16", hlim=1) / ICMPv6MLReport2()
    assert here.send(frame(report, destination="33:33:00:00:00:16")) == passed(1)
    assert here.send(udp("::", "ff02::16")) == dropped("spoofed_ip")


# X31: DHCP requests


def dhcp(client: str, source: str = "0.0.0.0") -> Packet:
    """DISCOVER."""
    body = BOOTP(op=1, chaddr=bytes.fromhex(client.replace(":", ""))) / DHCP(
        options=[("message-type", 1), "end"]
    )
    return IP(src=source, dst="255.255.255.255") / UDP(sport=68, dport=67) / body


def test_x31_dhcp_requests_are_for_the_own_mac(here: Port) -> None:
    """chaddr is the vNIC's, or a VM could use up all leases; and who has no address yet sends from none, or a
    VM could release what another has leased."""
    assert here.send(frame(dhcp(MAC), destination=BROADCAST)) == passed(1)
    assert here.send(frame(dhcp(MAC, source="10.0.0.77"), destination=BROADCAST)) == dropped("spoofed_ip")
    assert here.send(frame(dhcp(PEER_MAC), destination=BROADCAST)) == dropped("spoofed_mac")
    assert here.send(dhcp(MAC)).verdict == "pass"
    assert here.send(dhcp(PEER_MAC)) == dropped("spoofed_mac")
    cut = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(bytes(33))
    assert here.send(frame(cut, destination=BROADCAST)) == dropped("short")
    first = IP(src="0.0.0.0", dst="255.255.255.255", flags="MF") / UDP(sport=68, dport=67) / Raw(bytes(40))
    assert here.send(frame(first, destination=BROADCAST)) == dropped("fragment")


def test_x31_dhcpv6_requests_come_from_the_link(here: Port) -> None:
    """From any link-local address; a global one that is not bound is spoofed."""
    assert here.send(udp("fe80::77", "ff02::1:2", 547, sport=546)).verdict == "pass"
    assert here.send(udp("fd00::2", "ff02::1:2", 547, sport=546)) == dropped("spoofed_ip")
    assert here.send(udp("fe80::77", "ff02::1:2", 548, sport=546)) == dropped("spoofed_ip")
