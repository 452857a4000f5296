"""Ethernet rules: asked about frames before anything in them is looked at."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, Port, Seen, dropped, passed, until
from tests.harness.packets import Net, reply_to, tcp, udp
from vsfwd.packetlog import line

pytestmark = pytest.mark.slow

MAC = "02:00:00:00:00:00"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
GROUPS = {"routers": [PEER_MAC]}
VNICS = {
    "here": f"10.0.0.1 fd00::1 {MAC} web",
    "twin": "10.0.0.2 fd00::2 02:00:00:00:00:01 db",
}
LLDP, RARP = 0x88CC, 0x8035


def plugged(host: Host, *rules: str) -> Port:
    """`here` under these rules, whose counters begin at zero."""
    port = host.port("here")
    host.install([])
    host.install(rules, GROUPS, VNICS)
    return port


def out(ethertype: int, destination: str = PEER_MAC, source: str = MAC) -> Packet:
    return Ether(src=source, dst=destination, type=ethertype) / Raw(bytes(50))


def into(ethertype: int, destination: str = MAC, source: str = PEER_MAC) -> Packet:
    return out(ethertype, destination, source)


def tagged(net: Net, vlan: int, **ethernet: str | int) -> Packet:
    header = Ether(**({"src": MAC, "dst": PEER_MAC, "type": 0x8100} | ethernet))
    return header / Dot1Q(vlan=vlan) / udp(net.here, net.peer)


def test_x35_an_unknown_ethertype_passes_only_if_a_rule_allows_it(host: Host) -> None:
    """The one that is named, in the direction that is named, counted; a neighbouring number is dropped."""
    here = plugged(host, "allow out frames 88cc", "allow")
    assert here.send(out(LLDP)) == passed(1)
    assert here.receive(into(LLDP)) == dropped("ethertype")
    assert here.send(out(LLDP + 1)) == dropped("ethertype")
    assert here.flows() == []


@pytest.mark.parametrize("ethertype", [0x88CC, 0x8035, 0x8847, 0x8863, 0x88A2, 0x0806])
def test_x35_any_allows_every_ethertype(host: Host, ethertype: int) -> None:
    """What is behind it is nobody's business then: that is what the operator asked for."""
    here = plugged(host, "allow frames any", "drop")
    assert here.send(out(ethertype)) == passed(1)
    assert here.receive(into(ethertype)) == passed(1)


def test_x35_llc_and_snap_are_dropped_whatever_a_rule_says(host: Host, net: Net) -> None:
    """A length is no EtherType: what hides behind it is not let by, not even by a rule for everything."""
    here = plugged(host, "allow frames any", "allow")
    snap = Ether(src=MAC, dst=PEER_MAC, type=64) / LLC() / SNAP(code=0x0800) / udp(net.here, net.peer)
    assert here.send(snap).verdict == "drop"
    bpdu = (
        Ether(src=MAC, dst="01:80:c2:00:00:00", type=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(35))
    )
    assert here.send(bpdu).verdict == "drop"
    assert host.datapath.rule_counters()[1].packets == 0


def test_arp_can_be_denied(host: Host) -> None:
    """By a rule of its own, or by one for everything below an allowed rest."""
    here = plugged(host, "drop frames 806", "allow")
    assert here.send(Ether(src=MAC, dst=EVERYBODY) / ARP()) == dropped("rule_drop", 1)
    assert here.receive(Ether(src=PEER_MAC, dst=MAC) / ARP(op=2)) == dropped("rule_drop", 1)


def test_a_frame_that_is_allowed_is_not_yet_a_packet_that_is(host: Host, net: Net) -> None:
    """Frames first, then what is in them; both rules count, and each layer can deny by itself."""
    here = plugged(
        host, "allow frames 800,86dd to routers", "drop frames any out", "allow service udp", "drop"
    )
    both = Seen("pass", None, {1: (1, 0), 3: (1, 1)})
    assert here.send(udp(net.here, net.peer)) == both
    assert here.send(udp(net.here, net.peer)) == Seen("pass", None, {1: (1, 0), 3: (1, 0)})
    assert here.send(tcp(net.here, net.peer)) == Seen("drop", "rule_drop", {1: (1, 0), 4: (1, 0)})
    stranger = Ether(src=MAC, dst="02:00:00:00:77:77") / udp(net.here, net.peer)
    assert here.send(stranger) == dropped("rule_drop", 2)


def test_the_frames_of_an_established_flow_are_asked_about_too(host: Host, net: Net) -> None:
    """Ethernet rules know no connections: a reply needs its own, and a change ends what goes on."""
    here = plugged(host, "allow out frames 800,86dd", "drop frames any", "allow")
    here.send(udp(net.here, net.peer))
    assert here.receive(reply_to(udp(net.here, net.peer))) == dropped("rule_drop", 2)
    host.install(["drop frames any", "allow"], GROUPS, VNICS)
    assert here.send(udp(net.here, net.peer)) == dropped("rule_drop", 1)


def test_groups_are_sets_of_mac_addresses(host: Host) -> None:
    """Those that are listed, and those of members; as source and as destination; negated."""
    here = plugged(
        host,
        "allow frames 88cc from web to routers",
        "allow frames 88cc from routers to web",
        "allow frames 8035 from not routers",
    )
    assert here.send(out(LLDP)) == passed(1)
    assert here.receive(into(LLDP)) == passed(2)
    assert here.send(out(LLDP, EVERYBODY)) == dropped("ethertype")
    assert here.send(out(RARP)) == passed(3)
    assert here.receive(into(RARP)) == dropped("ethertype")


def test_x32_a_forged_mac_address_joins_no_group(host: Host) -> None:
    """Who sends from the address of another vNIC is not in its groups; who lists it is believed."""
    here = host.port("here")
    host.port("twin")
    forged = out(LLDP, source="02:00:00:00:00:01")
    host.install(["allow frames 88cc from db"], GROUPS, VNICS)
    assert here.send(forged) == dropped("ethertype")
    assert here.receive(into(LLDP, source="02:00:00:00:00:01")) == passed(1)
    host.install(["allow frames 88cc from db"], {"db": ["02:00:00:00:00:01"]}, VNICS)
    assert here.send(forged) == passed(1)


def test_x32_an_ethernet_rule_is_no_way_around_spoofguard(host: Host) -> None:
    """A frame from another MAC address is dropped before the rule that would allow it."""
    here = host.port("here")
    host.install(["allow frames any"], GROUPS, {"here": f"{VNICS['here']} spoofguard=manual"})
    assert here.send(out(LLDP)) == passed(1)
    assert here.send(out(LLDP, source="02:00:00:00:77:77")) == dropped("spoofed_mac")


def test_an_empty_group_matches_nothing(host: Host) -> None:
    """Nor do addresses of packets: a group that lists networks names no frame."""
    here = plugged(host, "allow frames 88cc from nobody", "allow frames 88cc from nets")
    assert here.send(out(LLDP)) == dropped("ethertype")


def test_a_rule_is_asked_where_it_is_applied(host: Host) -> None:
    """Its scope; another vNIC of the host knows nothing of it."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["allow frames 88cc on web"], GROUPS, VNICS)
    assert here.send(out(LLDP)) == passed(1)
    assert twin.send(out(LLDP, source=twin.mac)) == dropped("ethertype")


def test_a_frame_for_another_mac_is_not_asked_about(host: Host) -> None:
    """What the bridge floods here is dropped before any rule of either layer; to everybody is to us."""
    here = plugged(host, "allow frames any")
    assert here.receive(into(LLDP, "02:00:00:00:77:77")) == dropped("not_mine")
    assert here.receive(into(LLDP, "01:80:c2:00:00:0e")) == passed(1)


def test_the_last_ethernet_rule_gone_nothing_is_asked(host: Host, net: Net) -> None:
    """Known frames pass on, others are dropped, as before the first."""
    here = plugged(host, "allow frames any", "allow")
    assert here.send(out(LLDP)) == passed(1)
    host.install(["allow"], GROUPS, VNICS)
    assert here.send(out(LLDP)) == dropped("ethertype")
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    assert here.send(Ether(src=MAC, dst=EVERYBODY) / ARP()) == PASSED_UNSEEN


@pytest.mark.slow
def test_ethernet_rules_survive_the_daemon(host: Host, net: Net) -> None:
    """A new one takes over: its programs ask the bank that is there; and so do they when it has gone."""
    here = plugged(host, "allow frames 88cc", "drop frames 806", "allow")
    host.restart()
    assert here.send(out(LLDP)) == passed(1)
    assert here.send(Ether(src=MAC, dst=EVERYBODY) / ARP()) == dropped("rule_drop", 2)
    assert here.send(udp(net.here, net.peer)) == passed(3, new=True)


def test_logged_ethernet_rules_tell_of_frames(host: Host) -> None:
    """MAC addresses and EtherType, for what is allowed and for what is dropped."""
    here = plugged(host, "allow frames 88cc logged", "drop frames any logged")
    (event,) = here.send(out(LLDP)).events
    assert line(event) == f"{here.slot} ETHERNET match PASS mainrs/1 OUT 64 0x88cc {MAC}->{PEER_MAC}"
    (event,) = here.receive(into(RARP)).events
    assert line(event) == f"{here.slot} ETHERNET match DROP mainrs/2 IN 64 0x8035 {PEER_MAC}->{MAC}"
    assert event.reason == "rule_drop"


# VLAN tags that the kernel has taken off exist on real devices only.


def test_x34_a_tag_passes_only_if_a_rule_names_its_vlan(host: Host, net: Net) -> None:
    """The packet behind it is then judged like any; other ids are dropped, and so is a rule without ids no
    rule for tags."""
    here = plugged(host, "allow frames any vlan 10,20-29", "allow frames any", "allow service udp")
    here.wire(bytes(tagged(net, 10)))
    until(lambda: host.datapath.rule_counters()[1].packets == 1)
    until(lambda: len(here.flows()) == 1)
    assert host.datapath.rule_counters()[3].sessions == 1
    here.wire(bytes(tagged(net, 20)), bytes(tagged(net, 29)))
    until(lambda: host.datapath.rule_counters()[1].packets == 3)
    here.wire(bytes(tagged(net, 19)), bytes(tagged(net, 30)), bytes(tagged(net, 0)))
    until(lambda: here.drops() == {"vlan_tag": 3})
    assert host.datapath.rule_counters()[2].packets == 0


def test_x34_a_tagged_packet_asks_the_rules_for_packets_too(host: Host, net: Net) -> None:
    """An allowed VLAN is no way around them."""
    here = plugged(host, "allow frames any vlan 10", "drop")
    here.wire(bytes(tagged(net, 10)))
    until(lambda: here.drops() == {"rule_drop": 1})
    assert host.datapath.rule_counters()[2].packets == 1


def test_x42_each_vlan_has_flows_of_its_own(host: Host, net: Net) -> None:
    """The same addresses and ports on two VLANs, and without one, are three flows."""
    here = plugged(host, "allow frames any vlan 10-11", "allow")
    here.wire(bytes(tagged(net, 10)), bytes(tagged(net, 11)))
    until(lambda: len(here.flows()) == 2)
    assert here.send(udp(net.here, net.peer)) == passed(2, new=True)
    assert len(here.flows()) == 3
    here.wire(bytes(tagged(net, 10)))
    until(lambda: host.datapath.rule_counters()[2].packets == 4)
    assert host.datapath.rule_counters()[2].sessions == 3


@pytest.mark.parametrize("outer", [0x8100, 0x88A8])
def test_x34_a_second_tag_is_dropped_whatever_a_rule_says(host: Host, net: Net, outer: int) -> None:
    """And so is an outer tag of a provider."""
    here = plugged(host, "allow frames any vlan 0-4094", "allow frames any", "allow")
    inner = Dot1Q(vlan=20) / IP(src="10.0.0.1", dst="10.0.9.9") / UDP()
    here.wire(bytes(Ether(src=MAC, dst=PEER_MAC, type=outer) / Dot1Q(vlan=10, type=0x8100) / inner))
    until(lambda: here.drops() == {"vlan_tag": 1})
    here.wire(bytes(tagged(net, 10, type=0x88A8)))
    until(lambda: here.drops() == {"vlan_tag": 2})
    assert host.datapath.rule_counters()[1].packets == 0


def test_x34_a_tag_nobody_took_off_is_dropped(host: Host, net: Net) -> None:
    """It stands where the EtherType should: only the host itself could have sent that."""
    here = plugged(host, "allow frames any vlan 0-4094", "allow frames any", "allow")
    assert here.receive(tagged(net, 10, src=PEER_MAC, dst=MAC)) == dropped("vlan_tag")


def test_logged_frames_tell_their_vlan(host: Host, net: Net) -> None:
    """As the rule was asked about it."""
    here = plugged(host, "drop frames any vlan 10 logged")
    host.datapath.poll_events()
    here.wire(bytes(tagged(net, 10)))
    until(lambda: here.drops() == {"rule_drop": 1})
    (event,) = host.datapath.poll_events()
    assert event.ether is not None
    assert event.ether.vlan == 10
    assert " VLAN 10 " in line(event)
