"""Rules that match and do not decide: monitored ones, and those that jump to the category Application."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PEER_MAC, Host, Seen, dropped, passed, rejected
from tests.harness.packets import IPV4, Net, echo, ip, reply_to, tcp, udp, unreachable

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web"}


def and_counted(seen: Seen, rule: int) -> Seen:
    """The same, and one packet counted by `rule` on the way."""
    return Seen(seen.verdict, seen.reason, {rule: (1, 0), **seen.counted}, seen.reply, seen.events)


def test_a_monitored_rule_is_counted_and_not_enforced(host: Host, net: Net) -> None:
    """Where it would have been the first to match; behind the rule that decides it is not met."""
    here = host.port("here")
    host.install(
        ["drop service tcp/80 monitored", "allow service tcp/80", "allow service udp monitored", "drop"],
        vnics=VNICS,
    )
    assert here.receive(tcp(net.peer, net.here, 80)) == and_counted(passed(2, new=True), 1)
    assert here.receive(tcp(net.peer, net.here, 81)) == dropped("rule_drop", 4)
    assert here.receive(udp(net.peer, net.here, 53)) == and_counted(dropped("rule_drop", 4), 3)


def test_of_monitored_rules_the_first_is_counted(host: Host, net: Net) -> None:
    """As if all were enforced: then too, one rule would decide."""
    here = host.port("here")
    host.install(["allow service udp/53 monitored", "drop monitored", "allow"], vnics=VNICS)
    assert here.send(udp(net.here, net.peer, 53)) == and_counted(passed(3, new=True), 1)
    assert here.send(udp(net.here, net.peer, 54)) == and_counted(passed(3, new=True), 2)


def test_without_another_rule_a_monitored_one_lets_nothing_by(host: Host, net: Net) -> None:
    """No rule that decides: dropped."""
    here = host.port("here")
    host.install(["allow monitored"], vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, 80)) == and_counted(dropped("no_rule"), 1)


def test_a_logged_monitored_rule_says_that_nothing_came_of_it(host: Host, net: Net) -> None:
    """With the action it would have had."""
    here = host.port("here")
    host.install(["reject service tcp/80 monitored logged", "allow logged"], vnics=VNICS)
    seen = here.receive(tcp(net.peer, net.here, 80))
    assert [(e.rule_id, e.action, e.monitored) for e in seen.events] == [
        (1, "reject", True),
        (2, "allow", False),
    ]


def test_a_jump_leaves_out_what_is_before_the_applications_rules(host: Host, net: Net) -> None:
    """It is counted; what it does not match goes through all rules."""
    here = host.port("here")
    rules = ["jump service tcp/80", "drop service tcp/80-81", "allow", "drop app service tcp/80", "allow app"]
    host.install(rules, vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, 80)) == and_counted(dropped("rule_drop", 4), 1)
    assert here.receive(tcp(net.peer, net.here, 81)) == dropped("rule_drop", 2)
    assert here.receive(tcp(net.peer, net.here, 82)) == passed(3, new=True)


def test_a_jump_to_where_no_rule_is(host: Host, net: Net) -> None:
    """Drops: no rule matches."""
    here = host.port("here")
    host.install(["jump", "allow"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == and_counted(dropped("no_rule"), 1)


def test_jumps_and_monitored_rules_in_any_order(host: Host, net: Net) -> None:
    """Three searches at most: monitored, jump, decision, in both orders; a monitored jump does not jump."""
    here = host.port("here")
    rules = ["drop service tcp/80 monitored", "jump service tcp/80-81", "jump monitored service tcp/82"]
    more = [
        "drop service tcp/80-81",
        "allow service tcp/82",
        "drop app service tcp/81 monitored",
        "allow app",
    ]
    host.install([*rules, *more], vnics=VNICS)
    first, jump, monitored_jump, below, decides = 1, 2, 3, 6, 7
    seen = {port: here.receive(tcp(net.peer, net.here, port)) for port in (80, 81, 82, 83)}
    assert seen[80] == and_counted(and_counted(passed(decides, new=True), first), jump)
    assert seen[81] == and_counted(and_counted(passed(decides, new=True), below), jump)
    assert seen[82] == and_counted(passed(5, new=True), monitored_jump)
    assert seen[83] == passed(decides, new=True)


def test_source_ports_count_in_every_search(host: Host, net: Net) -> None:
    """A rule below a monitored one or a jump is still asked with the packet's source port."""
    here = host.port("here")
    rules = ["drop service tcp/80@1000 monitored", "allow service tcp/80@2000", "drop"]
    host.install(rules, vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, 80, sport=1000)) == and_counted(dropped("rule_drop", 3), 1)
    assert here.receive(tcp(net.peer, net.here, 80, sport=2000)) == passed(2, new=True)


def test_a_monitored_ethernet_rule_is_counted_and_not_enforced(host: Host) -> None:
    """The next Ethernet rule decides, or what holds where none does; a packet is asked about then."""
    here = host.port("here")
    rules = ["drop frames 88cc monitored logged", "allow frames 88cc", "drop frames any monitored", "allow"]
    host.install(rules, vnics=VNICS)
    lldp = Ether(src=here.mac, dst=PEER_MAC, type=0x88CC) / Raw(bytes(50))
    seen = here.send(lldp)
    assert seen == and_counted(passed(2), 1)
    assert [(event.rule_id, event.action, event.monitored) for event in seen.events] == [(1, "drop", True)]
    unknown = Ether(src=here.mac, dst=PEER_MAC, type=0x88CD) / Raw(bytes(50))
    assert here.send(unknown) == and_counted(dropped("ethertype"), 3)
    assert here.send(udp("10.0.0.1", "10.0.9.9")) == and_counted(passed(4, new=True), 3)


def test_a_flow_that_is_asked_again_is_not_counted_again(host: Host, net: Net) -> None:
    """The reply under a new policy finds its flow by way of the monitored rule, which counts it only once."""
    here = host.port("here")
    rules = ["allow monitored", "allow in", "drop"]
    host.install(rules, vnics=VNICS)
    question = udp(net.peer, net.here)
    assert here.receive(question) == and_counted(passed(2, new=True), 1)
    host.install(rules, vnics=VNICS)
    assert here.send(reply_to(question)) == passed(2)
    assert here.receive(question) == passed(2)
    host.install(["allow monitored", "drop"], vnics=VNICS)
    assert here.send(reply_to(question)).reason == "rule_drop"
    assert here.flows() == []


ON_THE_WAY = pytest.mark.parametrize("first", ["drop monitored", "jump", "jump monitored"])
"""Rule 1; what it does not decide, rule 2 does, of the category Application."""


def piece(net: Net, at: int, data: bytes, more: bool) -> Packet:
    """A fragment of a UDP packet from the peer."""
    if net is IPV4:
        return IP(src=net.peer, dst=net.here, id=7, flags="MF" if more else 0, frag=at // 8, proto=17) / data
    header = IPv6ExtHdrFragment(id=7, m=int(more), offset=at // 8, nh=17)
    return ip(net.peer, net.here, nh=44) / header / data


@ON_THE_WAY
def test_fragments_go_with_the_rule_that_decides(host: Host, net: Net, first: str) -> None:
    """The first is counted on the way; those behind it count for the rule that let it pass, and no more for
    others. Of one that is dropped nothing passes."""
    here = host.port("here")
    host.install([first, "allow app service udp/53", "drop app"], vnics=VNICS)
    for port, begins in ((53, passed(2, new=True)), (54, dropped("rule_drop", 3))):
        datagram = bytes(udp(net.peer, net.here, port, data=40).payload)
        assert here.receive(piece(net, 0, datagram[:24], more=True)) == and_counted(begins, 1)
        follows = passed(2) if port == 53 else dropped("fragment")
        assert here.receive(piece(net, 24, datagram[24:40], more=True)) == follows
        assert here.receive(piece(net, 40, datagram[40:], more=False)) == follows
    assert here.flow().packets_in == 1


@ON_THE_WAY
def test_a_stateless_rule_that_decides_makes_no_flow(host: Host, net: Net, first: str) -> None:
    """Each packet is asked about by itself, so each is counted on the way; the reply and an error are
    nobody's."""
    here = host.port("here")
    host.install([f"{first} in", "allow app in stateless", "drop app"], vnics=VNICS)
    for question in (tcp(net.peer, net.here, 80, "A"), udp(net.peer, net.here), echo(net.peer, net.here)):
        for _ in range(2):
            assert here.receive(question) == and_counted(passed(2), 1)
        assert here.flows() == []
    assert here.send(reply_to(udp(net.peer, net.here))) == dropped("rule_drop", 3)
    assert here.send(unreachable(net.here, udp(net.peer, net.here))) == dropped("icmp_error_unrelated")


@ON_THE_WAY
def test_a_rule_that_decides_may_reject(host: Host, net: Net, first: str) -> None:
    """Answered as without the rule before it: the RST and the error are the same bytes."""
    here = host.port("here")
    questions = [tcp(net.peer, net.here), udp(net.peer, net.here)]
    host.install(["reject app"], vnics=VNICS)
    plain = [here.receive(question) for question in questions]
    assert plain == [rejected(1), rejected(1)]
    host.install([first, "reject app"], vnics=VNICS)
    for question, before in zip(questions, plain, strict=True):
        seen = here.receive(question)
        assert seen == and_counted(rejected(2), 1)
        assert bytes(seen.reply or b"") == bytes(before.reply or b"") != b""
    assert here.flows() == []


@ON_THE_WAY
def test_a_rule_that_decides_may_have_an_alg(host: Host, net: Net, first: str) -> None:
    """Its flow is heard: the data connection that a client announces passes, under the same rule, and is not
    counted on the way, since no rule was asked."""
    here = host.port("here")
    host.install([f"{first} in", "allow app in service tftp/69", "drop app"], vnics=VNICS)
    request = udp(net.peer, net.here, 69, sport=2000)
    request.payload.remove_payload()
    request = request / Raw(b"\0\1file\0octet\0")
    assert here.receive(request) == and_counted(passed(2, new=True), 1)
    assert here.send(udp(net.here, net.peer, 2001, sport=3000)) == dropped("rule_drop", 3)
    assert here.send(udp(net.here, net.peer, 2000, sport=3000)) == passed(2, new=True)
    assert here.receive(udp(net.peer, net.here, 3000, sport=2000)) == passed(2)
