"""A vNIC whose VM changes host: nothing passes one that is frozen or dead, and a dead one comes to life by
what its VM says of itself, with no daemon in between (O30, O33, O35)."""

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, Port, dropped, passed
from tests.harness.packets import IPV4, IPV6, Net, echo, reply_to, tcp, udp
from tests.harness.policies import vnic_id
from vsfwd.datapath import Hold
from vsfwd.datapath.vnics import Vnic

VNICS = {"here": "10.0.0.1 fd00::1 web"}
FROZEN, DEAD = dropped("frozen"), dropped("dead")
EVERYBODY = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def here(host: Host) -> Port:
    """Everything is allowed."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    return here


def rarp(mac: str, **fields: object) -> Packet:
    """As QEMU announces a VM that has moved (announce.c)."""
    given = {"op": 3, "hwsrc": mac, "hwdst": mac, "psrc": "0.0.0.0", "pdst": "0.0.0.0"} | fields
    return Ether(src=mac, dst=EVERYBODY, type=0x8035) / ARP(**given)


def arp(mac: str, **fields: object) -> Packet:
    given = {"op": 1, "hwsrc": mac, "psrc": "10.0.0.1", "pdst": "10.0.0.1"} | fields
    return Ether(src=mac, dst=EVERYBODY) / ARP(**given)


def advertisement(mac: str, destination: str = "ff02::1", hops: int = 255, **fields: object) -> Packet:
    given = {"R": 0, "S": 0, "O": 1, "tgt": "fd00::1"} | fields
    frame = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src="fd00::1", dst=destination, hlim=hops)
    return frame / ICMPv6ND_NA(**given) / ICMPv6NDOptDstLLAddr(lladdr=mac)


def some_packets(net: Net) -> list[tuple[Packet, Packet]]:
    """Out and in."""
    asked = [tcp(net.here, net.peer), udp(net.here, net.peer), echo(net.here, net.peer)]
    return [(packet, reply_to(packet)) for packet in asked]


def test_nothing_passes_a_frozen_vnic(host: Host, here: Port, net: Net) -> None:
    """Neither what is allowed nor what its flows have been saying; ARP and announcements do not either. All
    of it is counted."""
    open_ = tcp(net.here, net.peer)
    here.send(open_), here.receive(reply_to(open_)), here.send(tcp(net.here, net.peer, flags="A"))
    before = here.flow()
    host.datapath.hold(here.id, Hold.FROZEN)
    for out, answer in some_packets(net):
        assert (here.send(out), here.receive(answer)) == (FROZEN, FROZEN)
    for frame in (arp(here.mac), rarp(here.mac), advertisement(here.mac)):
        assert here.send(frame) == FROZEN
    assert here.send(tcp(net.here, net.peer, flags="A", data=10)) == FROZEN
    assert here.flow().packets_out == before.packets_out
    assert here.drops() == {"frozen": 10}


def test_o35_what_is_thawed_goes_on_with_its_flows(host: Host, here: Port, net: Net) -> None:
    """The move was cancelled: every connection as it was."""
    open_ = tcp(net.here, net.peer)
    here.send(open_), here.receive(reply_to(open_)), here.send(tcp(net.here, net.peer, flags="A"))
    host.datapath.hold(here.id, Hold.FROZEN)
    host.datapath.hold(here.id, Hold.NONE)
    assert here.send(tcp(net.here, net.peer, flags="A", data=10)) == passed(1)
    assert here.states() == ["established"]
    assert host.datapath.holds() == {}


@pytest.mark.parametrize("why", [Hold.WAITING, Hold.DEAD])
def test_nothing_passes_a_vnic_whose_vm_is_to_come(host: Host, net: Net, why: Hold) -> None:
    """From its first moment on, and though a policy allows everything."""
    host.datapath.hold(vnic_id("here"), why)
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    for out, answer in some_packets(net):
        assert (here.send(out), here.receive(answer)) == (DEAD, DEAD)
    assert here.receive(arp(PEER_MAC)) == DEAD
    assert here.flows() == []


@pytest.mark.parametrize("announce", [arp, rarp, advertisement], ids=lambda by: by.__name__)
def test_o30_a_vm_that_announces_itself_is_alive(host: Host, here: Port, net: Net, announce: object) -> None:
    """The announcement passes, to tell switches too, and from then on all that the policy allows. The
    daemon learns of it afterwards."""
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(udp(net.here, net.peer)) == DEAD
    seen = here.send(announce(here.mac))  # type: ignore[operator]
    assert seen.verdict == "pass"
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    assert here.receive(reply_to(udp(net.here, net.peer))) == passed(1)
    assert host.datapath.holds() == {}
    assert here.send(udp(net.here, net.peer)) == passed(1)


def test_an_answer_by_arp_about_its_own_address_counts_as_well(host: Host, here: Port) -> None:
    """Some announce by a reply that nobody asked for."""
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(arp(here.mac, op=2)) == PASSED_UNSEEN
    assert host.datapath.holds() == {}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(lambda mac: arp(PEER_MAC), id="ARP of another MAC address"),
        pytest.param(lambda mac: arp(mac, hwsrc=PEER_MAC), id="ARP that speaks of another MAC address"),
        pytest.param(lambda mac: arp(mac, pdst="10.0.9.9"), id="ARP that asks for a neighbour"),
        pytest.param(lambda mac: arp(mac, psrc="0.0.0.0"), id="ARP probe"),
        pytest.param(lambda mac: arp(mac, psrc="0.0.0.0", pdst="0.0.0.0"), id="ARP about nothing"),
        pytest.param(lambda mac: arp(mac, ptype=0x86DD), id="ARP about no IPv4"),
        pytest.param(lambda mac: Ether(bytes(arp(mac))[:41]), id="ARP that ends before it should"),
        pytest.param(lambda mac: rarp(PEER_MAC), id="RARP of another MAC address"),
        pytest.param(lambda mac: rarp(mac, hwdst=PEER_MAC), id="RARP about another MAC address"),
        pytest.param(lambda mac: rarp(mac, op=4), id="RARP reply"),
        pytest.param(lambda mac: advertisement(mac, S=1), id="advertisement that was asked for"),
        pytest.param(lambda mac: advertisement(mac, "fd00::2"), id="advertisement to one"),
        pytest.param(lambda mac: advertisement(mac, hops=254), id="advertisement from beyond the link"),
        pytest.param(lambda mac: advertisement(PEER_MAC), id="advertisement of another MAC address"),
        pytest.param(
            lambda mac: Ether(src=mac) / IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"),
            id="solicitation",
        ),
        pytest.param(
            lambda mac: Ether(src=mac, dst=EVERYBODY) / Dot1Q(vlan=5) / ARP(hwsrc=mac), id="in a tag"
        ),
        pytest.param(lambda mac: Ether(src=mac) / udp("10.0.0.1", "10.0.9.9"), id="anything else"),
    ],
)
def test_o30_what_is_no_announcement_of_its_own_brings_nothing_to_life(
    host: Host, here: Port, frame: object
) -> None:
    """Whoever says it, and in whichever direction: so does no announcement that comes in."""
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(frame(here.mac)) == DEAD  # type: ignore[operator]
    for announcement in (arp(here.mac), rarp(here.mac), advertisement(here.mac)):
        assert here.receive(announcement) == DEAD
    assert host.datapath.holds() == {here.id: Hold.DEAD}


def test_o33_a_vnic_that_waits_for_its_policy_is_not_brought_to_life(host: Host, here: Port) -> None:
    """Its VM may say what it likes, the policy of the host it comes from is not here yet. The daemon can
    see that it has."""
    host.datapath.hold(here.id, Hold.WAITING)
    assert here.send(udp(IPV4.here, IPV4.peer)) == DEAD
    assert host.datapath.holds() == {here.id: Hold.WAITING}
    for frame in (arp(here.mac), rarp(here.mac), advertisement(here.mac)):
        assert here.send(frame) == DEAD
        assert host.datapath.holds() == {here.id: Hold.HEARD}
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(arp(here.mac)) == PASSED_UNSEEN


def test_what_comes_to_life_is_under_its_policy(host: Host) -> None:
    """An Ethernet rule forbids the announcement, SpoofGuard the address in it: alive it is all the same, as
    its VM runs here, and what is forbidden stays so."""
    here = host.port("here")
    host.install(["drop frames 0x8035", "drop"], vnics={"here": "10.0.0.1 web spoofguard=manual"})
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(rarp(here.mac)) == dropped("rule_drop", 1)
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(arp(here.mac, psrc="10.0.0.9", pdst="10.0.0.9")) == dropped("spoofed_arp")
    assert here.send(udp(IPV4.here, IPV4.peer)) == dropped("rule_drop", 2)


def test_a_vm_says_by_rarp_where_it_is_though_nobody_has_announced_it(host: Host) -> None:
    """QEMU says nothing else, and switches send where it has been for as long as they have not heard it. It
    needs no rule: not before there is a policy, nor under SpoofGuard, nor when it is said again."""
    here = host.port("here")
    assert here.send(rarp(here.mac)) == PASSED_UNSEEN
    for mode in ("", " spoofguard=manual"):
        host.install(["drop"], vnics={"here": f"10.0.0.1 web{mode}"})
        host.datapath.hold(here.id, Hold.DEAD)
        for _ in range(2):
            assert here.send(rarp(here.mac)) == PASSED_UNSEEN
    host.install(["drop frames 0x8035"], vnics={"here": "10.0.0.1 web"})
    assert here.send(rarp(here.mac)) == dropped("rule_drop", 1)


@pytest.mark.parametrize("spoofguard", ["", " spoofguard=manual"], ids=["unwatched", "watched"])
def test_no_other_rarp_passes(host: Host, spoofguard: str) -> None:
    """From another MAC address or about one, an answer, one that is cut off; nor any that comes in."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": f"10.0.0.1 web{spoofguard}"})
    forged = "spoofed_mac" if spoofguard else "ethertype"
    assert here.send(Ether(src=PEER_MAC, dst=EVERYBODY, type=0x8035) / rarp(here.mac)[ARP]) == dropped(forged)
    for lie in ({"hwsrc": PEER_MAC}, {"hwdst": PEER_MAC}, {"op": 4}):
        assert here.send(rarp(here.mac, **lie)) == dropped("ethertype")
    assert here.send(Ether(bytes(rarp(here.mac))[:41])) == dropped("ethertype")
    for mac in (here.mac, PEER_MAC):
        assert here.receive(rarp(mac)) == dropped("ethertype")


def test_a_policy_that_comes_meanwhile_brings_nothing_to_life(host: Host, here: Port, net: Net) -> None:
    """With Ethernet rules and without, in place and by a flip, with other guards: what is held is held."""
    host.datapath.hold(here.id, Hold.DEAD)
    for rules in (["drop frames 0x8035", "allow"], ["allow"]):
        host.install(rules, vnics={"here": "10.0.0.1 fd00::1 web router"})
        assert here.receive(udp(net.peer, net.here)) == DEAD
        assert here.send(udp(net.here, net.peer)) == DEAD


@pytest.mark.slow
def test_o30_what_is_held_is_held_whoever_dies(host: Host, here: Port) -> None:
    """A daemon that comes afterwards finds frozen what was frozen, dead what was dead, and alive what has
    come to life meanwhile."""
    host.datapath.hold(here.id, Hold.FROZEN)
    host.restart()
    assert host.datapath.holds() == {here.id: Hold.FROZEN}
    assert here.send(udp(IPV6.here, IPV6.peer)) == FROZEN
    host.datapath.hold(here.id, Hold.DEAD)
    assert here.send(arp(here.mac)) == PASSED_UNSEEN
    host.restart()
    assert host.datapath.holds() == {}
    assert here.send(udp(IPV6.here, IPV6.peer)) == passed(1, new=True)


@pytest.mark.parametrize(
    ("before", "written", "why"),
    [
        (Hold.WAITING, Hold.HEARD, Hold.NONE),
        (Hold.WAITING, Hold.HEARD, Hold.FROZEN),
        (Hold.DEAD, Hold.NONE, Hold.FROZEN),
    ],
)
def test_o30_an_announcement_under_way_undoes_nothing(
    host: Host, here: Port, monkeypatch: pytest.MonkeyPatch, before: Hold, written: Hold, why: Hold
) -> None:
    """The program has read what was before, and writes what follows from that when the daemon has written
    already."""
    host.datapath.hold(here.id, before)
    vnics, under_way = host.datapath._vnics, [written]
    write, put = vnics._map.write, vnics.put

    def put_late(vnic_id: str, vnic: Vnic) -> None:
        put(vnic_id, vnic)
        while under_way:
            write(vnic.ifindex % vnics._map.entries, vnics._layout.size - 1, bytes([under_way.pop()]))

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(vnics, "put", put_late)
        host.datapath.hold(here.id, why)
    assert not under_way
    assert host.datapath.holds() == ({here.id: why} if why else {})
    assert here.send(udp(IPV4.here, IPV4.peer)) == (FROZEN if why else passed(1, new=True))


def test_of_a_vnic_that_is_paused_only_announcements_pass(host: Host, here: Port, net: Net) -> None:
    """Its VM runs here, and they are no news to the daemon. Of flows nothing passes, in neither direction."""
    host.datapath.hold(here.id, Hold.PAUSED)
    for out, answer in some_packets(net):
        assert (here.send(out), here.receive(answer)) == (DEAD, DEAD)
    for frame in (arp(here.mac), rarp(here.mac), advertisement(here.mac)):
        assert here.send(frame).verdict == "pass"
    assert (here.receive(arp(PEER_MAC)), here.flows()) == (DEAD, [])
    assert host.datapath.holds() == {here.id: Hold.PAUSED}


@pytest.mark.slow
def test_o2_a_vnic_that_was_paused_goes_on_when_its_daemon_has_died(host: Host, here: Port, net: Net) -> None:
    """Its VM runs here, and what nobody finishes need not be waited for."""
    host.datapath.hold(here.id, Hold.PAUSED)
    assert here.send(udp(net.here, net.peer)) == DEAD
    host.restart()
    assert host.datapath.holds() == {}
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)


def test_a_vnic_that_is_to_come_is_held_when_its_device_comes_again(host: Host, here: Port) -> None:
    """A hypervisor makes devices anew; one that has left is gone with its device."""
    host.datapath.hold(here.id, Hold.DEAD)
    host.datapath.detach(here.id)
    host.datapath.attach(here.id, here.ifindex, here.mac)
    assert here.send(udp(IPV4.here, IPV4.peer)) == DEAD
    host.datapath.hold(here.id, Hold.FROZEN)
    host.datapath.detach(here.id)
    assert host.datapath.holds() == {}
    host.datapath.hold(here.id, Hold.FROZEN)
    host.datapath.attach(here.id, here.ifindex, here.mac)
    assert host.datapath.holds() == {}
