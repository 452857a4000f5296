"""Nobody becomes a router or a DHCP server by sending like one: only a port that is marked may.

Rows X26, X30 and X31 of the attack catalogue. `here` is an ordinary vNIC without SpoofGuard, the rules
allow everything."""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6ND_RS, IPv6
from scapy.packet import Raw

from tests.harness.datapath import Host, Port, dropped, passed
from tests.harness.packets import Net, udp

pytestmark = pytest.mark.slow

ROUTER_SPEECH = {
    "x30-ra": IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
    "x30-redirect": IPv6(src="fe80::1", dst="fd00::9:9", hlim=255) / ICMPv6ND_Redirect(),
    "x26-redirect": IP(src="10.0.0.1", dst="10.0.9.9") / ICMP(type=5) / Raw(bytes(28)),
    "x26-advertisement": IP(src="10.0.0.1", dst="224.0.0.1") / ICMP(type=9) / Raw(bytes(8)),
}
SERVER, CLIENT = {"ipv4": 67, "ipv6": 547}, {"ipv4": 68, "ipv6": 546}


@pytest.fixture
def here(host: Host) -> Port:
    port = host.port("here")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1"})
    return port


@pytest.mark.parametrize("name", ROUTER_SPEECH)
def test_x26_x30_only_a_router_speaks_like_one(host: Host, here: Port, name: str) -> None:
    """Advertisements and redirects go out of a port marked as router; they come in at every port."""
    packet = ROUTER_SPEECH[name]
    reason = "redirect" if "redirect" in name else "rogue_ra"
    assert here.send(packet) == dropped(reason)
    assert here.receive(packet) == passed(1)
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 dhcp_server"})
    assert here.send(packet) == dropped(reason)
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 router"})
    assert here.send(packet) == passed(1)


def test_x30_asking_for_a_router_is_no_advertisement(here: Port) -> None:
    """Router solicitations, the neighbouring type, go out."""
    assert here.send(IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS()) == passed(1)


def test_x30_a_closed_vnic_advertises_nothing(host: Host) -> None:
    """Neighbour discovery passes before a policy is in; being a router does not."""
    here = host.port("here")
    assert here.send(ROUTER_SPEECH["x30-ra"]) == dropped("closed")
    assert here.send(ROUTER_SPEECH["x30-redirect"]) == dropped("redirect")
    assert here.receive(ROUTER_SPEECH["x30-ra"]).verdict == "pass"


def test_x30_x31_only_a_dhcp_server_answers_clients(host: Host, here: Port, net: Net) -> None:
    """To a client's port, or from a server's, whatever the other port is."""
    server, client = SERVER[net.family], CLIENT[net.family]
    answers = [(server, client), (server, server), (server, 4000), (4000, client)]
    for sport, dport in answers:
        assert here.send(udp(net.here, net.peer, dport, sport=sport)) == dropped("rogue_dhcp")
    assert here.flows() == []
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 router"})
    assert here.send(udp(net.here, net.peer, client, sport=server)) == dropped("rogue_dhcp")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 dhcp_server"})
    for sport, dport in answers:
        assert here.send(udp(net.here, net.peer, dport, sport=sport)) == passed(1, new=True)


def test_x31_nobody_else_hears_requests(host: Host, here: Port, net: Net) -> None:
    """What clients say to servers does not reach a vNIC that is none, so no flow lets an answer out."""
    request = udp(net.peer, net.here, SERVER[net.family], sport=CLIENT[net.family])
    assert here.receive(request) == dropped("rogue_dhcp")
    assert here.flows() == []
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 dhcp_server"})
    assert here.receive(request) == passed(1, new=True)


def test_x31_clients_speak_and_hear(here: Port, net: Net) -> None:
    """Requests go out and answers come in at every port."""
    server, client = SERVER[net.family], CLIENT[net.family]
    assert here.send(udp(net.here, net.peer, server, sport=client)) == passed(1, new=True)
    assert here.receive(udp(net.peer, net.here, client, sport=server)) == passed(1)
    for port in (min(server, client) - 1, max(server, client) + 1):
        assert here.send(udp(net.here, net.peer, port, sport=4000)) == passed(1, new=True)


def test_x31_a_mark_that_goes_cuts_its_flows(host: Host, net: Net) -> None:
    """A conversation that began as a server's does not outlive the mark."""
    here = host.port("here")
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1 dhcp_server"})
    answer = udp(net.here, net.peer, CLIENT[net.family], sport=SERVER[net.family])
    assert here.send(answer) == passed(1, new=True)
    host.install(["allow"], vnics={"here": "10.0.0.1 fd00::1"})
    assert here.send(answer) == dropped("rogue_dhcp")
    assert here.flows() == []
