"""The daemon is shown the frames by which vNICs claim addresses, once, and never faster than it can look.

Row X33 of the attack catalogue; leases are in test_leases.py, and what the frames are worth is decided
elsewhere."""

import time

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tests.harness.datapath import PEER_MAC, Host, Port, dropped
from tests.harness.packets import udp

pytestmark = pytest.mark.slow

MAC = "02:00:00:00:00:00"


@pytest.fixture
def here(host: Host) -> Port:
    port = host.port("here")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1"})
    host.datapath.poll_snoops()
    return port


def frame(payload: Packet) -> Packet:
    return Ether(src=MAC, dst=PEER_MAC) / payload


def arp(address: str, mac: str = MAC) -> Packet:
    return frame(ARP(hwsrc=mac, psrc=address, pdst="10.0.9.9"))


ADVERTISEMENT = frame(IPv6(src="fd00::1", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"))


DETECTION = frame(IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"))


@pytest.mark.parametrize("packet", [arp("10.0.0.1"), ADVERTISEMENT, DETECTION], ids=["arp", "nd", "dad"])
def test_x33_what_a_workload_claims_is_shown(host: Host, here: Port, packet: Packet) -> None:
    """The frame as it was sent, with the vNIC's slot."""
    here.send(packet)
    (snoop,) = host.datapath.poll_snoops()
    assert (snoop.slot, snoop.direction, snoop.frame) == (here.slot, "out", bytes(packet))


def test_x33_what_is_known_is_not_shown_again(host: Host, here: Port) -> None:
    """Steady state costs nothing; another address, and the same one when it is forgotten, are shown."""
    host.datapath.know(here.slot, {0xFFFF0A000001, 0xFD00 << 112 | 1})
    here.send(arp("10.0.0.1"))
    here.send(ADVERTISEMENT)
    here.send(DETECTION)
    assert host.datapath.poll_snoops() == []
    here.send(arp("10.0.0.2"))
    assert len(host.datapath.poll_snoops()) == 1
    host.datapath.know(here.slot, set())
    here.send(arp("10.0.0.1"))
    assert len(host.datapath.poll_snoops()) == 1


def test_x33_what_is_known_is_not_trusted(host: Host) -> None:
    """A claim that was seen at a guarded vNIC stays cut until the policy binds it, and is known then."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": "10.0.0.1 spoofguard=manual"})
    assert here.send(arp("10.0.0.2")) == dropped("spoofed_arp")
    assert len(host.datapath.poll_snoops()) == 1
    host.datapath.know(here.slot, {0xFFFF0A000002})
    assert here.send(arp("10.0.0.2")) == dropped("spoofed_arp")
    assert here.send(udp("10.0.0.2", "10.0.9.9")) == dropped("spoofed_ip")
    host.install(["allow"], vnics={"here": "10.0.0.2 spoofguard=manual"})
    assert here.send(arp("10.0.0.2")).verdict == "pass"
    assert here.send(arp("10.0.0.1")) == dropped("spoofed_arp")
    assert [snoop.frame[28:32] for snoop in host.datapath.poll_snoops()] == [bytes([10, 0, 0, 1])]


def test_x33_probes_and_anothers_mac_claim_nothing(host: Host, here: Port) -> None:
    """Nobody's address, somebody else's MAC address, a question for routers from nobody."""
    here.send(arp("0.0.0.0"))
    here.send(arp("10.0.0.2", mac=PEER_MAC))
    here.send(frame(IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS()))
    assert host.datapath.poll_snoops() == []


def test_x33_a_flood_of_claims_is_cut_to_a_rate(host: Host, here: Port) -> None:
    """A few are shown and the rest is not; the neighbour's are."""
    twin = host.port("twin")
    began = time.monotonic()
    for n in range(1, 200):
        here.run_raw(host.datapath.vnic_out, bytes(arp(f"10.7.0.{n}")))
    allowed = 16 + 8 * (time.monotonic() - began) + 1
    assert 16 <= len(host.datapath.poll_snoops()) <= allowed
    twin.send(Ether(src=twin.mac, dst=PEER_MAC) / ARP(hwsrc=twin.mac, psrc="10.0.0.2"))
    assert [snoop.slot for snoop in host.datapath.poll_snoops()] == [twin.slot]


@pytest.mark.parametrize("packet", [ADVERTISEMENT, DETECTION], ids=["nd", "dad"])
def test_what_is_shown_is_judged_all_the_same(host: Host, here: Port, packet: Packet) -> None:
    """CVE-2025-0650: that somebody else reads along is no way past the rules."""
    host.install(["drop"], vnics={"here": "10.0.0.1 fd00::1"})
    assert here.send(packet) == dropped("rule_drop", 1)
    assert len(host.datapath.poll_snoops()) == 1
