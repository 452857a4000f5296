"""Which rule a packet finds: the same for IPv4 and IPv6, and its neighbours find another one."""

import pytest
from scapy.layers.inet import ICMP, IP, IPOption_Router_Alert
from scapy.layers.inet6 import ICMPv6Unknown
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PEER_MAC, Host, dropped, passed, rejected
from tests.harness.packets import IPV4, IPV6, Net, echo, ip, other, tcp, udp
from vsfwd.datapath.ring import AT_ONCE

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db", "far": "10.0.0.3 fd00::3 db secret"}
LITERAL = {"net": ["10.0.9.0/24", "fd00::9:0/112"]}


@pytest.mark.parametrize(
    ("port", "rule"),
    [(79, 3), (80, 1), (81, 1), (90, 1), (91, 3), (442, 3), (443, 2), (444, 3), (0, 3), (65535, 3)],
)
def test_ports_and_ranges(host: Host, net: Net, port: int, rule: int) -> None:
    """A range holds its ends and not their neighbours; a port holds itself."""
    here = host.port("here")
    host.install(["allow service tcp/80-90", "allow service tcp/443", "drop"], vnics=VNICS)
    seen = here.receive(tcp(net.peer, net.here, port))
    assert seen == (dropped("rule_drop", 3) if rule == 3 else passed(rule, new=True))


@pytest.mark.parametrize(
    ("sport", "port", "rule"),
    [(999, 80, 4), (1000, 80, 1), (2000, 80, 1), (2001, 80, 4), (1000, 81, 4), (7, 443, 1), (999, 22, 2)],
)
def test_source_ports(host: Host, net: Net, sport: int, port: int, rule: int) -> None:
    """They count together with the destination port of their own service, in both directions of the
    traffic, for the one who begins; a service without them takes every one."""
    here = host.port("here")
    host.install(
        [
            "allow service tcp/80@1000-2000,tcp/443,udp/53@53",
            "reject service tcp/22@999",
            "allow service udp/54@1000",
            "drop",
        ],
        vnics=VNICS,
    )
    verdict = {1: passed(1, new=True), 2: rejected(2), 4: dropped("rule_drop", 4)}[rule]
    assert here.receive(tcp(net.peer, net.here, port, sport=sport)) == verdict
    assert here.send(tcp(net.here, net.peer, port, sport=sport)) == verdict


def test_source_ports_of_udp_are_not_those_of_tcp(host: Host, net: Net) -> None:
    """A rule about UDP from 53 says nothing of TCP from 53; other protocols have none."""
    here = host.port("here")
    host.install(["allow service udp/53@53", "allow service tcp/@54,47", "drop"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here, 53, sport=53)) == passed(1, new=True)
    assert here.receive(udp(net.peer, net.here, 53, sport=54)) == dropped("rule_drop", 3)
    assert here.receive(tcp(net.peer, net.here, 53, sport=53)) == dropped("rule_drop", 3)
    assert here.receive(tcp(net.peer, net.here, 1, sport=54)) == passed(2, new=True)
    assert here.receive(other(net.peer, net.here, 47)) == passed(2, new=True)


def test_a_reply_is_asked_about_with_the_source_port_of_who_began(host: Host, net: Net) -> None:
    """When the policy changes, also where the next packet is a reply."""
    here = host.port("here")
    words = ["allow service tcp/80@1000", "drop"]
    host.install(words, vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, 80, sport=1000)) == passed(1, new=True)
    host.install(["drop service tcp/80@80", *words], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "SA", sport=80)) == passed(2)


def test_a_port_of_one_protocol_is_not_that_of_another(host: Host, net: Net) -> None:
    """TCP 53, UDP 53 and protocol 47 are three services."""
    here = host.port("here")
    host.install(["allow service udp/53", "allow service 47", "drop"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here, 53)) == passed(1, new=True)
    assert here.receive(tcp(net.peer, net.here, 53)) == dropped("rule_drop", 3)
    assert here.receive(other(net.peer, net.here, 47)) == passed(2, new=True)
    assert here.receive(other(net.peer, net.here, 46)) == dropped("rule_drop", 3)


def test_icmp_types_and_codes(host: Host) -> None:
    """ICMP by type and code, ICMPv6 by its own numbers."""
    here = host.port("here")
    host.install(["allow service icmp/13/0", "allow service icmpv6/139", "drop"], vnics=VNICS)
    four = ("10.0.9.9", "10.0.0.1")
    six = ("fd00::9:9", "fd00::1")
    assert here.receive(ip(*four) / ICMP(type=13, code=0)) == passed(1)
    assert here.receive(ip(*four) / ICMP(type=13, code=1)) == dropped("rule_drop", 3)
    assert here.receive(ip(*four) / ICMP(type=14, code=0)) == dropped("rule_drop", 3)
    assert here.receive(ip(*six) / ICMPv6Unknown(type=139, code=2) / Raw(bytes(8))) == passed(2)
    assert here.receive(ip(*six) / ICMPv6Unknown(type=140, code=2) / Raw(bytes(8))) == dropped("rule_drop", 3)


def test_source_and_destination_by_group_and_prefix(host: Host, net: Net) -> None:
    """Members of a group by their vNIC, hosts of a prefix by the longest one, and nobody else."""
    here = host.port("here")
    host.install(["allow from net to web", "allow from db to web", "drop"], LITERAL, VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    assert here.receive(udp(net.twin, net.here)) == passed(2, new=True)
    outside = "10.0.10.0" if net is IPV4 else "fd00::a:0"
    assert here.receive(udp(outside, net.here)) == dropped("rule_drop", 3)
    assert here.receive(udp(net.peer, net.twin)) == dropped("rule_drop", 3)


def test_in_and_out_are_the_workloads(host: Host, net: Net) -> None:
    """A rule for one direction says nothing about the other."""
    here = host.port("here")
    host.install(["allow in service udp/53", "allow out service udp/54", "drop"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here, 53)) == passed(1, new=True)
    assert here.send(udp(net.here, net.peer, 53)) == dropped("rule_drop", 3)
    assert here.send(udp(net.here, net.peer, 54)) == passed(2, new=True)
    assert here.receive(udp(net.peer, net.here, 54)) == dropped("rule_drop", 3)


def test_a_rule_of_one_family(host: Host) -> None:
    """A rule for IPv6 leaves IPv4 to the rules below, and the other way round."""
    here = host.port("here")
    host.install(["allow ipv6 service udp/53", "allow ipv4 service udp/54", "drop"], vnics=VNICS)
    for net, port, seen in (
        (IPV6, 53, passed(1, new=True)),
        (IPV4, 53, dropped("rule_drop", 3)),
        (IPV4, 54, passed(2, new=True)),
        (IPV6, 54, dropped("rule_drop", 3)),
    ):
        assert here.receive(udp(net.peer, net.here, port)) == seen


def test_everything_of_one_family_is_not_the_other(host: Host) -> None:
    """X41: a rule from ::/0 never matches IPv4, one from 0.0.0.0/0 never IPv6."""
    here = host.port("here")
    host.install(
        ["allow from ::/0 service udp/53", "allow from 0.0.0.0/0 service udp/54", "drop"], vnics=VNICS
    )
    assert here.receive(udp(IPV4.peer, IPV4.here, 53)) == dropped("rule_drop", 3)
    assert here.receive(udp(IPV6.peer, IPV6.here, 53)) == passed(1, new=True)
    assert here.receive(udp(IPV6.peer, IPV6.here, 54)) == dropped("rule_drop", 3)
    assert here.receive(udp(IPV4.peer, IPV4.here, 54)) == passed(2, new=True)


def test_rules_apply_to_the_vnics_they_name(host: Host, net: Net) -> None:
    """The same packet, seen by two vNICs, is judged by the rules of each."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["drop on web", "allow"], vnics=VNICS)
    packet = udp(net.here, net.twin)
    assert here.send(packet) == dropped("rule_drop", 1)
    assert twin.receive(packet) == passed(2, new=True)


def test_negated_and_empty_matches(host: Host, net: Net) -> None:
    """`not` is everybody else; an empty group is nobody."""
    here = host.port("here")
    host.install(["allow from empty", "drop from not db", "allow"], {"empty": []}, VNICS)
    assert here.receive(udp(net.peer, net.here)) == dropped("rule_drop", 2)
    assert here.receive(udp(net.twin, net.here)) == passed(3, new=True)


def test_no_rule_is_a_drop(host: Host, net: Net) -> None:
    """Where no rule matches, the packet is dropped and says so."""
    here = host.port("here")
    host.install(["allow service tcp/1"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == dropped("no_rule")


@pytest.mark.parametrize("owner", ["twin", "far"])
def test_a_forged_source_joins_no_group(host: Host, net: Net, owner: str) -> None:
    """Sending from another vNIC's address, here or on another host, gives none of its groups; its own
    does."""
    here = host.port("here")
    host.port("twin")
    address = {"twin": net.twin, "far": "10.0.0.3" if net is IPV4 else "fd00::3"}[owner]
    host.install(["allow out from db", "allow out from web", "drop"], vnics=VNICS)
    assert here.send(udp(address, net.peer)) == dropped("rule_drop", 3)
    assert here.send(udp(net.here, net.peer)) == passed(2, new=True)


def test_a_forged_source_counts_as_what_its_address_literally_is(host: Host, net: Net) -> None:
    """A prefix in a rule is about addresses, not about who sends: there the forged source still counts."""
    here = host.port("here")
    host.port("twin")
    prefix = "10.0.0.2/32" if net is IPV4 else "fd00::2/128"
    host.install(["drop out from db", f"allow out from {prefix}", "drop"], vnics=VNICS)
    assert here.send(udp(net.twin, net.peer)) == passed(2, new=True)


def test_an_address_that_exists_twice_is_that_of_the_own_segment(host: Host) -> None:
    """Two segments with the same address: each vNIC means the one on its own."""
    here, twin = host.port("here"), host.port("twin")
    vnics = {
        "here": "10.0.0.1 segment=1",
        "twin": "10.0.0.2 segment=2",
        "one": "10.0.0.3 segment=1 red",
        "two": "10.0.0.3 segment=2 blue",
    }
    host.install(["allow from red", "drop from blue", "allow service udp/9"], vnics=vnics)
    assert here.receive(udp("10.0.0.3", "10.0.0.1")) == passed(1, new=True)
    assert twin.receive(udp("10.0.0.3", "10.0.0.2")) == dropped("rule_drop", 2)


@pytest.mark.slow
def test_the_last_of_very_many_rules(host: Host, net: Net) -> None:
    """Rule 16,384 is found behind 16,383 that speak of other ports."""
    here = host.port("here")
    rules = [f"drop service tcp/{port}" for port in range(1, 16384)] + ["allow"]
    host.install(rules, vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, 16383)) == dropped("rule_drop", 16383)
    assert here.receive(tcp(net.peer, net.here, 16384)) == passed(16384, new=True)
    assert here.receive(echo(net.peer, net.here)) == passed(16384, new=True)


def test_a_logged_rule_tells_of_sessions_and_drops(host: Host, net: Net) -> None:
    """One event at the first packet of a session, none for the rest of it; one for each drop."""
    here = host.port("here")
    host.install(["allow service udp/53 logged", "drop service udp/54 logged", "allow"], vnics=VNICS)

    def told(packet: Packet) -> list[tuple[int, str, str, int]]:
        events = here.receive(packet).events
        assert all(str(event.source) == net.peer and str(event.destination) == net.here for event in events)
        return [(event.rule_id, event.action, event.reason, event.destination_port) for event in events]

    assert told(udp(net.peer, net.here, 53)) == [(1, "allow", "none", 53)]
    assert told(udp(net.peer, net.here, 53)) == []
    assert told(udp(net.peer, net.here, 54)) == [(2, "drop", "rule_drop", 54)]
    assert told(udp(net.peer, net.here, 54)) == [(2, "drop", "rule_drop", 54)]
    assert told(udp(net.peer, net.here, 55)) == []


def test_a_flood_of_events_is_read_in_portions(host: Host, net: Net) -> None:
    """However many a logged rule makes, one look takes a bounded number; the next goes on, none is lost."""
    here = host.port("here")
    host.install(["drop logged"], vnics=VNICS)
    frame = bytes(here.frame_in(udp(net.peer, net.here)))
    for _ in range(AT_ONCE + 1):
        here.run_raw(host.datapath.vnic_in, frame)
    assert len(host.datapath.poll_events()) == AT_ONCE
    assert len(host.datapath.poll_events()) == 1


@pytest.mark.parametrize("inward", [True, False], ids=["in", "out"])
def test_x39_igmp_obeys_the_rules(host: Host, inward: bool) -> None:
    """CVE-2014-0685: it is protocol 2, whatever group it goes to and although every report has an option."""
    here = host.port("here")
    alert = IPOption_Router_Alert()
    report = IP(src="10.0.9.9" if inward else "10.0.0.1", dst="224.0.0.22", ttl=1, proto=2, options=[alert])
    frame = Ether(src=PEER_MAC if inward else here.mac, dst="01:00:5e:00:00:16") / report / Raw(bytes(16))
    take = here.receive if inward else here.send
    for rules, seen in (
        (["allow service tcp,udp,icmp", "drop"], dropped("rule_drop", 2)),
        (["drop service 2", "allow"], dropped("rule_drop", 1)),
        (["allow service 2", "drop"], passed(1)),
    ):
        host.install(rules, vnics=VNICS)
        assert take(frame) == seen
