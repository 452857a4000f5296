"""Flows that are open when the policy changes: asked again, kept, or cut. What `recheck` does in detail is in
test_recheck.py."""

import pytest

from tests.harness.datapath import PASSED_UNSEEN, Host, Port, dropped, passed
from tests.harness.packets import Net, echo, reply_to, tcp, udp, unreachable

VNICS = {"here": "10.0.0.1 fd00::1 web"}


def connected(host: Host, net: Net, *rules: str) -> Port:
    """`here`, with a connection from the peer by rule 1."""
    here = host.port("here")
    host.install(rules, vnics=VNICS)
    here.receive(tcp(net.peer, net.here))
    here.send(reply_to(tcp(net.peer, net.here)))
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    return here


def test_a_kept_flow_goes_on_where_a_new_one_is_denied(host: Host, net: Net) -> None:
    """Established before the rule was replaced by a drop: both directions pass; another connection does
    not."""
    here = connected(host, net, "allow in keep", "drop")
    host.install(["drop keep", "drop"], vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    assert here.receive(tcp(net.peer, net.here, sport=1001)) == dropped("rule_drop", 1)
    assert here.states() == ["established"]


def test_a_kept_flow_counts_no_longer_when_its_rule_is_gone(host: Host, net: Net) -> None:
    """Its counter may be another rule's by now: the packets pass, and no rule counts them."""
    here = host.port("here")
    host.install(["drop service tcp/1", "allow in keep"], vnics=VNICS)
    here.receive(udp(net.peer, net.here))
    here.send(reply_to(udp(net.peer, net.here)))
    host.install(["drop"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == PASSED_UNSEEN
    host.install(["drop", "drop service tcp/1"], vnics=VNICS)
    assert here.send(reply_to(udp(net.peer, net.here))) == PASSED_UNSEEN
    assert here.flow().rule_id == 2


def test_keep_is_for_what_was_answered(host: Host, net: Net) -> None:
    """A question nobody has answered is asked about again like any."""
    here = host.port("here")
    host.install(["allow in keep"], vnics=VNICS)
    for question in (tcp(net.peer, net.here), udp(net.peer, net.here), echo(net.peer, net.here)):
        assert here.receive(question) == passed(1, new=True)
    host.install(["drop"], vnics=VNICS)
    for question in (tcp(net.peer, net.here), udp(net.peer, net.here), echo(net.peer, net.here)):
        assert here.send(reply_to(question)) == dropped("rule_drop", 1)
    assert here.flows() == []


def test_a_kept_flow_does_not_outlive_the_policy_of_its_vnic(host: Host, net: Net) -> None:
    """A vNIC without a policy is closed, to everything."""
    here = connected(host, net, "allow in keep")
    host.install([], vnics={})
    assert here.receive(tcp(net.peer, net.here, flags="A")) == dropped("closed")


def test_a_kept_flow_may_be_closed_and_begun_anew_under_the_new_policy(host: Host, net: Net) -> None:
    """The next connection of the same ports is a new question."""
    here = connected(host, net, "allow in keep")
    host.install(["drop", "drop"], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "RA", sport=80)) == passed(1)
    assert here.receive(tcp(net.peer, net.here)) == dropped("rule_drop", 1)


def test_an_icmp_error_about_a_kept_flow_waits_for_its_next_packet(host: Host, net: Net) -> None:
    """As with any flow after a change."""
    here, about = connected(host, net, "allow in keep"), tcp(net.peer, net.here, flags="A")
    host.install(["drop", "drop"], vnics=VNICS)
    assert here.send(unreachable(net.here, about)) == dropped("icmp_error_unrelated")
    assert here.receive(about) == passed(1)
    assert here.send(unreachable(net.here, about)) == passed(1)


@pytest.mark.parametrize("reply", [False, True], ids=["request", "reply"])
def test_a_cut_flow_ends_although_the_policy_still_allows_it(host: Host, net: Net, reply: bool) -> None:
    """Its next packet, in either direction, is dropped for that reason; then the connection begins anew."""
    here = connected(host, net, "allow in cut")
    host.install(["allow in cut", "drop service tcp/1"], vnics=VNICS)
    if reply:
        assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == dropped("policy_cut")
    else:
        assert here.receive(tcp(net.peer, net.here, flags="A")) == dropped("policy_cut")
    assert here.flows() == []
    assert here.receive(tcp(net.peer, net.here, flags="A")) == dropped("no_state")
    assert here.receive(tcp(net.peer, net.here)) == passed(1, new=True)


def test_cut_is_for_unanswered_flows_too(host: Host, net: Net) -> None:
    """A half-open flow was decided under the older policy as well."""
    here = host.port("here")
    host.install(["allow in cut"], vnics=VNICS)
    here.receive(udp(net.peer, net.here))
    host.install(["allow in cut", "drop"], vnics=VNICS)
    assert here.send(reply_to(udp(net.peer, net.here))) == dropped("policy_cut")
    assert here.flows() == []


def test_a_flow_goes_by_the_rule_that_allowed_it_last(host: Host, net: Net) -> None:
    """Asked again and allowed by a rule that keeps, it is kept from then on."""
    here = connected(host, net, "allow in")
    host.install(["allow in keep"], vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    host.install(["drop"], vnics=VNICS)
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
