"""What a section wants to know of connections: strict, loose, stateless."""

import pytest
from scapy.packet import Packet

from tests.harness.datapath import Host, Port, Seen, dropped, passed, rejected
from tests.harness.packets import Net, echo, reply_to, tcp, udp, unreachable

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web"}


def plugged(host: Host, *rules: str) -> Port:
    port = host.port("here")
    host.install(rules, vnics=VNICS)
    return port


def through(port: Port, packet: Packet, direction: str) -> Seen:
    return port.receive(packet) if direction == "in" else port.send(packet)


def between(net: Net, direction: str) -> tuple[str, str]:
    """Source and destination of a packet in this direction."""
    return (net.peer, net.here) if direction == "in" else (net.here, net.peer)


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("flags", ["A", "PA", "SA", "FA", "R", "RA"])
def test_x20_strict_takes_nothing_from_the_middle(host: Host, net: Net, direction: str, flags: str) -> None:
    """Whatever is not a SYN and has no flow is dropped as such, and no rule counts it."""
    here = plugged(host, "allow")
    assert through(here, tcp(*between(net, direction), flags=flags), direction) == dropped("no_state")
    assert here.flows() == []


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("flags", ["A", "PA", "AU"])
def test_x20_loose_picks_a_connection_up(host: Host, net: Net, direction: str, flags: str) -> None:
    """An acknowledgement is the first packet of an established flow; its answer belongs to it."""
    here = plugged(host, f"allow {direction} loose", "drop")
    packet = tcp(*between(net, direction), flags=flags)
    assert through(here, packet, direction) == passed(1, new=True)
    assert (here.flow().state, here.flow().initiator) == ("established", direction)
    back = "out" if direction == "in" else "in"
    assert through(here, reply_to(packet, "A"), back) == passed(1)
    assert through(here, packet, direction) == passed(1)
    assert here.states() == ["established"]


@pytest.mark.parametrize("flags", ["SA", "FA", "R", "RA"])
def test_x20_loose_picks_up_by_an_acknowledgement_only(host: Host, net: Net, flags: str) -> None:
    """What opens, ends or means nothing does not begin a flow in the middle; a SYN still begins one."""
    here = plugged(host, "allow loose")
    assert here.receive(tcp(net.peer, net.here, flags=flags)) == dropped("no_state")
    assert here.flows() == []
    assert here.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    assert here.states() == ["syn_sent"]


def test_x20_a_pickup_asks_the_rules_in_its_own_direction(host: Host, net: Net) -> None:
    """Nobody knows who began: what only the other direction's rule allows is judged by the rule it meets."""
    here = plugged(host, "allow in loose", "drop loose", "allow")
    assert here.send(tcp(net.here, net.peer, flags="A")) == dropped("rule_drop", 2)
    assert here.flows() == []


def test_x20_the_rule_that_matches_says_whether_it_is_strict(host: Host, net: Net) -> None:
    """A strict rule above a loose one takes nothing from the middle, a deny below it is not asked; a loose
    deny decides like any."""
    here = plugged(
        host,
        "allow service tcp/80",
        "allow service tcp/81 loose",
        "reject service tcp/82 loose",
        "drop",
    )
    assert here.receive(tcp(net.peer, net.here, 80, "A")) == dropped("no_state")
    assert here.receive(tcp(net.peer, net.here, 81, "A")) == passed(2, new=True)
    assert here.receive(tcp(net.peer, net.here, 82, "A")) == rejected(3)
    assert here.receive(tcp(net.peer, net.here, 83, "A")) == dropped("no_state")


def test_what_was_picked_up_is_not_yet_answered(host: Host, net: Net) -> None:
    """One side alone makes no established connection, however much it sends: it is not kept. The other side's
    answer makes it one."""
    here = plugged(host, "allow loose keep")
    one_sided, answered = tcp(net.peer, net.here, flags="A"), tcp(net.peer, net.here, flags="A", sport=1001)
    for _ in range(3):
        here.receive(one_sided)
        here.receive(answered)
    here.send(reply_to(answered, "A"))
    host.install(["drop loose"], vnics=VNICS)
    assert here.receive(one_sided) == dropped("rule_drop", 1)
    assert here.receive(answered) == passed(1)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_stateless_rule_makes_no_flow(host: Host, net: Net, direction: str) -> None:
    """Each packet is judged by itself, whatever its flags; counted, without a session."""
    here = plugged(host, f"allow {direction} stateless", "drop")
    for make in (tcp, udp, echo):
        assert through(here, make(*between(net, direction)), direction) == passed(1)
    for flags in ("A", "SA", "FA", "R"):
        assert through(here, tcp(*between(net, direction), flags=flags), direction) == passed(1)
    assert here.flows() == []


def test_a_stateless_rule_answers_for_one_direction(host: Host, net: Net) -> None:
    """The reply needs a rule of its own."""
    here = plugged(host, "allow in stateless", "drop")
    for question in (udp(net.peer, net.here), echo(net.peer, net.here)):
        assert here.receive(question) == passed(1)
        assert here.send(reply_to(question)) == dropped("rule_drop", 2)
    here = host.port("again")
    host.install(["allow stateless"], vnics={"again": "10.0.0.1 fd00::1"})
    assert here.receive(tcp(net.peer, net.here)) == passed(1)
    assert here.send(reply_to(tcp(net.peer, net.here))) == passed(1)


def test_an_icmp_error_about_stateless_traffic_is_unrelated(host: Host, net: Net) -> None:
    """There is no flow to check it against."""
    here = plugged(host, "allow stateless")
    assert here.receive(udp(net.peer, net.here)) == passed(1)
    assert here.send(unreachable(net.here, udp(net.peer, net.here))) == dropped("icmp_error_unrelated")


def test_a_flow_ends_when_its_rule_becomes_stateless(host: Host, net: Net) -> None:
    """Its packets go on passing, if a rule says so, without it; and the other way round."""
    here = plugged(host, "allow")
    here.receive(udp(net.peer, net.here))
    assert len(here.flows()) == 1
    host.install(["allow stateless"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1)
    assert here.flows() == []
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_x23_errors_about_half_a_connection(host: Host, net: Net, direction: str) -> None:
    """Of a connection picked up, the other side of which takes another way: an ICMP error about what was sent
    not long ago passes, from the first segment on; any other does not. Found by tests/oracle."""
    here = plugged(host, f"allow {direction} loose", "drop")
    back, router = ("out", net.here) if direction == "in" else ("in", net.other)
    ends = between(net, direction)
    for seq in (5000, 6000):
        assert through(here, tcp(*ends, flags="A", seq=seq, data=1000), direction).verdict == "pass"
        assert through(here, unreachable(router, tcp(*ends, flags="A", seq=seq)), back) == passed(1)
    for seq in (7001, 7000 - 66_001):
        quoted = tcp(*ends, flags="A", seq=seq)
        assert through(here, unreachable(router, quoted), back) == dropped("icmp_error_unrelated")
    unheard = tcp(*reversed(ends), sport=80, port=1000, flags="A")
    far = net.here if direction == "out" else net.other
    assert through(here, unreachable(far, unheard), direction) == dropped("icmp_error_unrelated")


@pytest.mark.parametrize("direction", ["in", "out"])
def test_what_was_acknowledged_of_a_side_nobody_heard_is_forgotten(
    host: Host, net: Net, direction: str
) -> None:
    """Of a connection picked up, a forged acknowledgement from far away cannot be told while its other side
    is silent. Once that speaks, a RST near what it sent is challenged, an ICMP error about it passes, and
    only the number that follows closes (RFC 9293 3.10.7.4, RFC 5927 4.1)."""
    here = plugged(host, f"allow {direction} loose", "drop")
    back, router = ("out", net.other) if direction == "in" else ("in", net.here)
    ends = between(net, direction)

    def answer(flags: str, seq: int, data: int = 0) -> Packet:
        return tcp(*reversed(ends), sport=80, port=1000, flags=flags, seq=seq, ack=5000, data=data)

    assert through(here, tcp(*ends, flags="A", seq=5000, ack=9000), direction).verdict == "pass"
    assert through(here, tcp(*ends, flags="A", seq=5000, ack=9000 + (1 << 30)), direction) == passed(1)
    assert through(here, answer("A", 9000, data=100), back) == passed(1)
    assert through(here, unreachable(router, answer("A", 9000)), direction) == passed(1)
    assert through(here, answer("R", 9050), back) == passed(1)
    assert here.states() == ["established"]
    assert through(here, answer("R", 9100), back) == passed(1)
    assert here.states() == ["closed"]
