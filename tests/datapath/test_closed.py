"""A vNIC without a policy is closed: it has what a workload needs to come up, and claims nothing meanwhile.

Row O8 of the fault catalogue; X27, X28 and X31 of the attack catalogue, in the moment after a VM is plugged:
whose addresses are whose is said by the policy, so until that is in, none is this vNIC's."""

import pytest
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, Port, dropped, passed
from tests.harness.packets import Net, tcp, udp

VNICS = {"here": "10.0.0.1 fd00::1 web"}
MAC = "02:00:00:00:00:00"
MADE = "fe80::ff:fe00:0"
"""The link-local address that MAC makes."""
BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def here(host: Host) -> Port:
    return host.port("here")


def frame(payload: Packet, source: str = MAC) -> Packet:
    return Ether(src=source, dst=BROADCAST) / payload


def arp(sender: str, target: str = "10.0.0.3", op: int = 1, mac: str = MAC) -> Packet:
    return ARP(op=op, hwsrc=mac, psrc=sender, pdst=target)


def discovery(source: str, message: Packet) -> Packet:
    return IPv6(src=source, dst="ff02::1", hlim=255) / message


def icmpv6(type_: int) -> Packet:
    """Of a type, long enough to be one."""
    return IPv6(src=MADE, dst="ff02::1", nh=58, hlim=255) / Raw(bytes([type_]) + bytes(31))


def dhcp(source: str = "0.0.0.0", client: str = MAC) -> Packet:
    message = BOOTP(op=1, chaddr=bytes.fromhex(client.replace(":", "")))
    return IP(src=source, dst="255.255.255.255") / UDP(sport=68, dport=67) / message


COMES_UP = {
    "ARP probe": frame(arp("0.0.0.0")),
    "duplicate address detection": frame(discovery("::", ICMPv6ND_NS(tgt="fd00::1"))),
    "router solicitation": frame(discovery("::", ICMPv6ND_RS())),
    "its link-local address": frame(discovery(MADE, ICMPv6ND_NS(tgt="fe80::9"))),
    "DHCP": frame(dhcp()),
    "DHCPv6": frame(udp(MADE, "ff02::1:2", 547, sport=546)),
}
CLAIMS = {
    "ARP request": (arp("10.0.0.2"), "spoofed_arp"),
    "ARP reply": (arp("10.0.0.2", op=2), "spoofed_arp"),
    "ARP announcement": (arp("10.0.0.2", "10.0.0.2"), "spoofed_arp"),
    "ARP with another MAC": (arp("0.0.0.0", mac=PEER_MAC), "spoofed_arp"),
    "neighbour solicitation": (discovery("fd00::2", ICMPv6ND_NS(tgt="fd00::3")), "spoofed_nd"),
    "neighbour advertisement": (discovery("fd00::2", ICMPv6ND_NA(tgt="fd00::2")), "spoofed_nd"),
    "advertisement of another's": (discovery(MADE, ICMPv6ND_NA(tgt="fd00::2")), "spoofed_nd"),
    "solicitation with another MAC": (
        discovery(MADE, ICMPv6ND_NS(tgt="fd00::3") / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)),
        "spoofed_nd",
    ),
    "advertisement of another MAC": (
        discovery(MADE, ICMPv6ND_NA(tgt=MADE) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)),
        "spoofed_nd",
    ),
    "DHCP of another": (dhcp(client=PEER_MAC), "spoofed_mac"),
    "DHCP from an address": (dhcp("10.0.0.2"), "closed"),
    "DHCPv6 from an address": (udp("fd00::2", "ff02::1:2", 547, sport=546), "closed"),
}


@pytest.mark.parametrize("what", COMES_UP)
def test_o8_what_a_workload_needs_to_come_up_passes(here: Port, what: str) -> None:
    """A lease, the test whether an address is free, and the address that is its MAC address anyway; no flow
    comes of it."""
    assert here.send(COMES_UP[what]) == PASSED_UNSEEN
    assert here.flows() == []


@pytest.mark.parametrize("what", CLAIMS)
def test_o8_x27_x28_x31_no_address_is_its_own(here: Port, what: str) -> None:
    """Whoever plugs a VM cannot make neighbours believe that it is one of them, before the policy says
    whether anybody watches; nor ask for or give away another's lease."""
    packet, reason = CLAIMS[what]
    assert here.send(frame(packet)) == dropped(reason)
    assert here.send(frame(packet, source=PEER_MAC)) == dropped("spoofed_mac")


@pytest.mark.parametrize(
    "packet",
    [
        icmpv6(127),
        icmpv6(138),
        udp("0.0.0.0", "255.255.255.255", 66, sport=68),
        udp("0.0.0.0", "255.255.255.255", 67, sport=69),
        udp("10.0.0.1", "10.0.9.9", 68, sport=67),
        udp(MADE, "fe80::2", 546, sport=547),
        udp("10.0.0.1", "10.0.9.9", 547, sport=546),
        tcp("10.0.0.1", "10.0.9.9", 67, sport=68),
        tcp("fd00::1", "fd00::9:9"),
    ],
    ids=Packet.summary,
)
def test_o8_nothing_else_leaves(here: Port, packet: Packet) -> None:
    """Not even what is next to it by type or port."""
    assert here.send(packet) == dropped("closed")


def test_o8_what_answers_it_comes_in(here: Port, net: Net) -> None:
    """ARP, neighbour discovery and the answers of DHCP servers; not what clients ask, and nothing else."""
    ports = (68, 67) if net.family == "ipv4" else (546, 547)
    assert here.receive(udp(net.peer, net.here, ports[0], sport=ports[1])) == PASSED_UNSEEN
    assert here.receive(Ether(src=PEER_MAC, dst=MAC) / arp("10.0.9.9", mac=PEER_MAC)) == PASSED_UNSEEN
    assert here.receive(discovery("fd00::9:9", ICMPv6ND_NA(tgt="fd00::9:9"))) == PASSED_UNSEEN
    assert here.receive(udp(net.peer, net.here, ports[1], sport=ports[0])) == dropped("closed")
    assert here.receive(tcp(net.peer, net.here)) == dropped("closed")
    assert here.flows() == []


def test_its_policy_says_whether_anybody_watches(host: Host, here: Port) -> None:
    """Once that is in, SpoofGuard is as the policy has it; when it goes, as before, over a restart too."""
    claim = frame(arp("10.0.0.2"))
    assert here.send(claim) == dropped("spoofed_arp")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 spoofguard=manual"})
    assert here.send(claim) == dropped("spoofed_arp")
    host.install(["allow"], vnics=VNICS)
    assert here.send(claim) == PASSED_UNSEEN
    host.install(["allow"], vnics={})
    assert here.send(claim) == dropped("spoofed_arp")
    host.restart()
    assert here.send(claim) == dropped("spoofed_arp")
    assert host.port("twin").send(Ether(src="02:00:00:00:00:01", dst=BROADCAST) / arp("10.0.0.1")) == dropped(
        "spoofed_arp"
    )


def test_a_vnic_that_loses_its_policy_is_closed_again(host: Host, here: Port, net: Net) -> None:
    """Taken out of the policy, a vNIC's flows end too."""
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    host.install(["allow"], vnics={})
    assert here.receive(udp(net.peer, net.here)) == dropped("closed")
