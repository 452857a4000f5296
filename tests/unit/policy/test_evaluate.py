"""The specification itself, by hand: these few verdicts are read from the words of the model, not from
code."""

from ipaddress import ip_address

import pytest

from tests.harness.policies import policy, vnic_id
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, PassedOver, Verdict, evaluate, explain
from vsfwd.policy.model import Action, Direction

IN, OUT = Direction.IN, Direction.OUT


def tcp(source: str, destination: str, port: int = 80) -> Packet:
    return Packet(ip_address(source), ip_address(destination), 6, port)


@pytest.fixture
def state() -> DesiredState:
    return policy(
        rules=[
            "drop on db",
            "allow out",
            "allow ipv6",
            "allow from web,10.9.0.0/16",
            "allow from any-but to 10.0.0.1 service udp",
            "reject to not 10.0.0.2-10.0.0.9 service tcp/80-81",
        ],
        vnics={"app": "10.0.0.1 fd00::1", "web": "10.0.0.2 web"},
    )


def test_every_rule_above_the_deciding_one_says_why_it_did_not_match(state: DesiredState) -> None:
    """The first field that speaks against, in the order a person would ask."""
    verdict, passed_over = explain(state, tcp("10.8.0.1", "10.0.0.1"), vnic_id("app"), IN)
    assert verdict == Verdict(Action.REJECT, 6)
    assert passed_over == [
        PassedOver(1, "scope"),
        PassedOver(2, "direction"),
        PassedOver(3, "family"),
        PassedOver(4, "sources"),
        PassedOver(5, "sources"),
    ]


def test_no_rule_is_a_drop_with_no_rule(state: DesiredState) -> None:
    """Beside the reject rule: the next port, and an excluded destination."""
    for packet in (tcp("10.8.0.1", "10.0.0.1", 82), tcp("10.8.0.1", "10.0.0.9")):
        assert evaluate(state, packet, vnic_id("app"), IN) == Verdict(Action.DROP, None)
    _, passed_over = explain(state, tcp("10.8.0.1", "10.0.0.9"), vnic_id("app"), IN)
    assert passed_over[-1] == PassedOver(6, "destinations")
    _, passed_over = explain(state, tcp("10.8.0.1", "10.0.0.1", 79), vnic_id("app"), IN)
    assert passed_over[-1] == PassedOver(6, "services")


def test_x20_a_strict_rule_takes_nothing_from_the_middle_of_a_connection() -> None:
    """The rule that matches says so, above or below a looser one; others decide as ever."""
    rules = ["allow service tcp/80", "drop service tcp/81", "allow service tcp/82 loose", "drop stateless"]
    state = policy(rules, vnics={"app": "10.0.0.1"})
    verdicts = {80: (1, True), 81: (2, True), 82: (3, False), 83: (4, False)}
    for port, (rule, no_state) in verdicts.items():
        packet = Packet(ip_address("10.0.0.2"), ip_address("10.0.0.1"), 6, port, midstream=True)
        action = Action.ALLOW if port == 82 else Action.DROP
        assert evaluate(state, packet, vnic_id("app"), IN) == Verdict(action, rule, no_state)
    with pytest.raises(ValueError, match="midstream"):
        Packet(ip_address("10.0.0.2"), ip_address("10.0.0.1"), 17, 53, midstream=True)


@pytest.mark.parametrize("source", ["10.0.0.2", "10.9.255.255"])
def test_members_and_literals_are_sources(state: DesiredState, source: str) -> None:
    """Members of a group by their vNIC, addresses by the rule's own prefix."""
    assert evaluate(state, tcp(source, "10.0.0.1"), vnic_id("app"), IN).rule_id == 4


def test_a_forged_source_is_not_a_member() -> None:
    """Out of `app`, the address of `web` is only an address; into `app` it is web."""
    state = policy(["allow from web"], vnics={"app": "10.0.0.1", "web": "10.0.0.2 web"})
    forged = tcp("10.0.0.2", "10.0.0.3")
    assert evaluate(state, forged, vnic_id("app"), OUT).rule_id is None
    assert evaluate(state, forged, vnic_id("app"), IN).rule_id == 1
    assert evaluate(state, forged, vnic_id("web"), OUT).rule_id == 1


def test_a_segment_tells_twins_apart() -> None:
    """10.0.0.1 on two segments: each segment sees its own, others see nobody's."""
    state = policy(
        ["allow from red", "allow from blue"],
        vnics={
            "red": "10.0.0.1 red segment=1",
            "blue": "10.0.0.1 blue segment=2",
            **{f"see{number}": f"10.0.0.{number + 5} segment={number}" for number in range(4)},
        },
    )
    seen = [
        evaluate(state, tcp("10.0.0.1", "10.0.0.9"), vnic_id(f"see{number}"), IN).rule_id
        for number in range(4)
    ]
    assert seen == [None, 1, 2, None]


def test_a_vnic_without_policy_has_no_verdict(state: DesiredState) -> None:
    """It is closed; asking what its rules say is a mistake."""
    with pytest.raises(KeyError):
        evaluate(state, tcp("10.0.0.1", "10.0.0.2"), vnic_id("nobody"), IN)


def test_a_packet_is_of_one_family() -> None:
    """No such packet reaches a rule, so none can be asked about."""
    with pytest.raises(ValueError, match="one family"):
        tcp("10.0.0.1", "fd00::1")
    for source, protocol in (("10.0.0.1", 58), ("fd00::1", 1)):
        with pytest.raises(ValueError, match="before any rule"):
            Packet(ip_address(source), ip_address(source), protocol)
