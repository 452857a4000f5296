"""What becomes of a packet at a vNIC, with what is decided before rules for packets (`ahead`) and by them
(`evaluate`): one answer for all who ask, `vsfwctl explain` and the manager."""

from dataclasses import dataclass

from vsfwd.policy import ahead, evaluate
from vsfwd.policy.ahead import Wire
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Address, Frame, Packet, PassedOver, Verdict
from vsfwd.policy.model import Action, Direction


@dataclass(frozen=True)
class Decision:
    """`words` say why, where it is not the rule of the verdict alone. `frame_rule`: the Ethernet rule that
    the frame matches. `passed_over`: rules above, of both kinds."""

    verdict: Verdict
    words: str = ""
    frame_rule: int | None = None
    passed_over: tuple[PassedOver, ...] = ()


CLOSED = Decision(Verdict(Action.DROP, None), "closed: no policy for this vNIC yet")
EXCLUDED = Decision(Verdict(Action.ALLOW, None), "excluded: nothing is enforced on this vNIC")


def decide(state: DesiredState, packet: Packet, vnic: str, direction: Direction, wire: Wire) -> Decision:
    if vnic not in state.vnics:
        return CLOSED
    if state.vnics[vnic].excluded:
        return EXCLUDED
    first = ahead.judge(state, packet, vnic, direction, wire)
    if first.verdict:
        return Decision(first.verdict, first.words, first.frame_rule, tuple(first.passed_over))
    verdict, passed = evaluate.explain(state, packet, vnic, direction)
    return Decision(verdict, _words(verdict), first.frame_rule, (*first.passed_over, *passed))


def decide_frame(
    state: DesiredState, frame: Frame, vnic: str, direction: Direction, claimed: Address | None
) -> Decision:
    """Of a frame with nothing in it that rules for packets are about, as ARP."""
    if vnic not in state.vnics:
        return CLOSED
    if state.vnics[vnic].excluded:
        return EXCLUDED
    found = ahead.judge_frame(state, frame, vnic, direction, claimed)
    verdict = found.verdict or Verdict(Action.ALLOW, found.frame_rule)
    words = found.words or (
        "" if verdict.rule_id else "no Ethernet rule is about it, and its EtherType passes"
    )
    return Decision(verdict, words, found.frame_rule, tuple(found.passed_over))


def _words(verdict: Verdict) -> str:
    if verdict.rule_id is None:
        return "no rule matches"
    return "strict, and the packet begins no connection" if verdict.no_state else ""
