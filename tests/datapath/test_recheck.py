"""A policy change reaches connections that are already open, at their next packet, whoever sends it."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from tests.harness.datapath import Host, Port, dropped, passed, rejected
from tests.harness.packets import Net, echo, reply_to, tcp, udp, unreachable
from tests.harness.policies import policy
from vsfwd.image import Image, InPlace, diff
from vsfwd.policy.compile import Compiler

VNICS = {"here": "10.0.0.1 fd00::1 web", "peer": "10.0.9.9 fd00::9:9 friends"}


def connected(host: Host, net: Net) -> Port:
    """`here`, with a connection from the peer by rule 1."""
    here = host.port("here")
    host.install(["allow in from friends", "drop"], vnics=VNICS)
    here.receive(tcp(net.peer, net.here))
    here.send(reply_to(tcp(net.peer, net.here)))
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert here.states() == ["established"]
    return here


def test_a_reply_is_asked_about_as_its_request(host: Host, net: Net) -> None:
    """After a change that does not concern it, the flow goes on; the reply is not judged as a packet out."""
    here = connected(host, net)
    host.install(["allow in from friends", "drop", "drop service tcp/1"], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    assert here.receive(tcp(net.peer, net.here, flags="A")) == passed(1)


@pytest.mark.parametrize("reply", [False, True], ids=["request", "reply"])
def test_a_denied_connection_ends(host: Host, net: Net, reply: bool) -> None:
    """Its next packet, in either direction, is dropped by the new rule; then the flow is gone."""
    here = connected(host, net)
    host.install(["drop in from friends service tcp/80", "allow"], vnics=VNICS)
    if reply:
        assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == dropped("rule_drop", 1)
    else:
        assert here.receive(tcp(net.peer, net.here, flags="A")) == dropped("rule_drop", 1)
    assert here.flows() == []
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == dropped("no_state")


def test_a_connection_that_is_rejected_now_is_told(host: Host, net: Net) -> None:
    """A RST for the sender of the packet that met the new rule."""
    here = connected(host, net)
    host.install(["reject in from friends", "allow"], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == rejected(1)
    assert here.flows() == []


def test_a_flow_is_counted_by_the_rule_that_allows_it_now(host: Host, net: Net) -> None:
    """Another rule allows it after the change: packets count there, the session stays where it began."""
    here = connected(host, net)
    host.install(["drop service tcp/1", "allow in from friends", "drop"], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(2)
    assert here.flow().rule_id == 2


def test_half_open_flows_are_asked_again_too(host: Host, net: Net) -> None:
    """An unanswered question is forgotten when its rule is gone, so its answer is a stranger."""
    here = host.port("here")
    host.install(["allow in", "drop"], vnics=VNICS)
    for question in (udp(net.peer, net.here), echo(net.peer, net.here)):
        assert here.receive(question) == passed(1, new=True)
    host.install(["drop in", "drop"], vnics=VNICS)
    for question in (udp(net.peer, net.here), echo(net.peer, net.here)):
        assert here.send(reply_to(question)) == dropped("rule_drop", 1)
    assert here.flows() == []


def test_without_a_policy_nothing_changes_a_flow(host: Host, net: Net) -> None:
    """A RST or a FIN that is dropped because the vNIC is closed has not been: the connection goes on when the
    policy is back. (Found by tests/oracle.)"""
    here = connected(host, net)
    host.install([], vnics={})
    for flags in ("R", "FA", "S"):
        assert here.receive(tcp(net.peer, net.here, flags=flags)) == dropped("closed")
    assert here.states() == ["established"]
    host.install(["allow in from friends", "drop"], vnics=VNICS)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)


def test_an_icmp_error_waits_until_its_flow_is_asked_again(host: Host, net: Net) -> None:
    """A revoked connection is no way for ICMP errors, and they do not keep it alive; one that is allowed
    again takes them after its next packet."""
    here = connected(host, net)
    about, unrelated = tcp(net.peer, net.here, flags="A"), dropped("icmp_error_unrelated")
    assert here.send(unreachable(net.here, about)) == passed(1)
    host.install(["drop"], vnics=VNICS)
    assert here.send(unreachable(net.here, about)) == unrelated
    host.install([], vnics={})
    assert here.send(unreachable(net.here, about)) == dropped("spoofed_ip")
    host.install(["allow in from friends", "drop"], vnics=VNICS)
    assert here.send(unreachable(net.here, about)) == unrelated
    assert here.receive(about) == passed(1)
    assert here.send(unreachable(net.here, about)) == passed(1)


def test_a_tag_that_leaves_ends_the_session_in_place(host: Host, net: Net) -> None:
    """One address leaves its group: one entry is written, no bank flips, the open session ends at a reply."""
    here, rules, compiler = connected(host, net), ["allow in from friends", "drop"], Compiler()

    def image(peer: str) -> Image:
        vnics = {"here": VNICS["here"], "peer": peer}
        return compiler.update(policy(rules, vnics=vnics), host.datapath.slots)

    tagged = image(f"{net.peer} friends")
    host.flip(tagged)
    plan = diff(tagged, image(net.peer))
    assert isinstance(plan, InPlace)
    before = host.datapath.status()
    host.datapath.install(plan)
    after = host.datapath.status()
    assert (after["bank"], after["policy_seq"]) == (before["bank"], before["policy_seq"] + 1)
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == dropped("rule_drop", 2)
    assert here.receive(tcp(net.peer, net.here)) == dropped("rule_drop", 2)
    host.datapath.install(diff(plan.image, tagged))
    assert here.receive(tcp(net.peer, net.here)) == passed(1, new=True)


def test_rows_that_do_not_fit_in_place_flip(host: Host, net: Net) -> None:
    """More new rows than a bank has room for: the bank flips instead, and the change is in force."""
    here = host.port("here")
    host.install(["allow in from friends", "drop"], vnics=VNICS)
    small = host.image(policy(["allow in from friends", "drop"], vnics=VNICS))
    bank = host.datapath.status()["bank"]
    many = tuple(range(4, 1000))
    key = next(key for key in small.hosts if key.address == int(mapped(net.peer)))
    image = replace(small, rows=(*small.rows, *many))
    host.datapath.install(InPlace(image, many, key, None))
    assert host.datapath.status()["bank"] == 1 - bank
    assert here.receive(tcp(net.peer, net.here)) == passed(1, new=True)


def mapped(address: str) -> IPv6Address:
    return IPv6Address(address if ":" in address else f"::ffff:{address}")
