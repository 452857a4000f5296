"""One answer to what becomes of a packet: closed, excluded, an Ethernet rule, SpoofGuard, or the rules for
packets."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from vsfwd.policy.ahead import Wire
from vsfwd.policy.decision import decide
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, PassedOver, Verdict
from vsfwd.policy.model import TCP, Action, Direction, Frames, Rule, SpoofGuard, Vnic

OWN = Vnic("vm1", "web", "02:00:00:00:00:01", addresses=("10.0.0.1",))
PACKET = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), TCP, 80)
STATE = DesiredState(
    rules={
        1: Rule("first", "s", (4, 1), Action.DROP, direction=Direction.IN),
        2: Rule("second", "s", (4, 2), Action.ALLOW),
        3: Rule("frames", "e", (0, 1), Action.ALLOW, frames=Frames(ethertypes=(0x800,))),
    },
    vnics={"own": OWN},
)


def test_a_packet_is_decided_by_its_rule_with_what_was_passed_over() -> None:
    """The Ethernet rule that lets the frame on is named beside it."""
    decision = decide(STATE, PACKET, "own", Direction.OUT, Wire())
    assert (decision.verdict, decision.words) == (Verdict(Action.ALLOW, 2), "")
    assert decision.passed_over == (PassedOver(1, "direction"),)
    assert decision.frame_rule == 3


@pytest.mark.parametrize(
    ("vnic", "action", "words"),
    [
        (None, Action.DROP, "closed"),
        ({"excluded": True}, Action.ALLOW, "excluded"),
        ({"spoofguard": SpoofGuard.MANUAL, "addresses": ()}, Action.DROP, "SpoofGuard"),
    ],
)
def test_where_no_rule_decides_words_say_why(
    vnic: dict[str, object] | None, action: Action, words: str
) -> None:
    """A vNIC without policy, one on the exclusion list, a source that SpoofGuard does not know."""
    fields = {name: getattr(OWN, name) for name in OWN.__struct_fields__}
    state = replace(STATE, vnics={} if vnic is None else {"own": Vnic(**{**fields, **vnic})})
    decision = decide(state, PACKET, "own", Direction.OUT, Wire())
    assert (decision.verdict.action, decision.verdict.rule_id) == (action, None)
    assert words in decision.words


def test_nothing_that_matches_is_a_drop_with_words() -> None:
    """So is a strict rule for the middle of a connection, with its rule."""
    nothing = decide(replace(STATE, rules={}), PACKET, "own", Direction.OUT, Wire())
    assert (nothing.verdict.action, nothing.words) == (Action.DROP, "no rule matches")
    midstream = replace(PACKET, midstream=True)
    strict = decide(STATE, midstream, "own", Direction.OUT, Wire())
    assert (strict.verdict.action, strict.verdict.rule_id) == (Action.DROP, 2)
    assert "begins no connection" in strict.words
