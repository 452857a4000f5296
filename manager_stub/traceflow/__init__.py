"""What the published policy does to a packet on its way from one vNIC to another, or to all of its segment:
outwards at the first, inwards at the others, by the evaluator that `vsfwctl explain` asks on a host, over
what that host is sent. Nothing is injected. Pure: what time it is comes in.

Every packet is judged as the first of its session, or as one from the middle where its TCP flags say so."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from manager_stub.ends import ROUTERS_MAC, are_apart, claimants, owner
from manager_stub.model import FieldsPacketData, Rule
from manager_stub.span import Card, Realised
from manager_stub.traceflow.packets import Described, described
from manager_stub.traceflow.reasons import Named, named
from manager_stub.world import Stored
from vsfwd.policy import schedule
from vsfwd.policy.ahead import Wire
from vsfwd.policy.decision import Decision, decide, decide_frame
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, Verdict
from vsfwd.policy.model import Action, Direction, Group, Vnic
from vsfwd.policy.model import Rule as WireRule

MAX_RECEIVERS: Final = 10
"""Of a packet to everybody, those that are judged: each costs what a packet to one does."""


@dataclass(frozen=True)
class Judgement:
    """What one vNIC does. `frame_rule`, `rule`: those that match frame and packet; `words`: what decides
    where that is no rule. `by_local_clock`: whether a rule's schedule was asked by the manager's clock in
    place of the host's."""

    card: Card
    direction: Direction
    verdict: Verdict
    words: str
    frame_rule: Stored[Rule] | None
    rule: Stored[Rule] | None
    named: tuple[Named, ...]
    passed_over: tuple[tuple[Stored[Rule], str], ...]
    by_local_clock: bool

    @property
    def passes(self) -> bool:
        return self.verdict.action is Action.ALLOW


@dataclass(frozen=True)
class Trace:
    """`arriving`: at whom it gets to, in order; `outside`: no vNIC has the destination's address; `unclear`:
    why it is not known who gets it; `more`: vNICs of the segment that get it too and are not judged."""

    leaving: Judgement
    arriving: tuple[Judgement, ...]
    outside: bool
    unclear: str
    more: int


def trace(realised: Realised, source: Card, data: FieldsPacketData, now: schedule.Now) -> Trace:
    """Raises ValueError with the field in it, for a packet that cannot be."""
    asked = described(source, data)
    receivers, unclear = _receivers(realised, source, asked)
    routed = data.routed or any(are_apart(receiver, source) for receiver in receivers)
    first = receivers[0].vnic.mac if receivers else None
    to = asked.destination_mac or (ROUTERS_MAC if routed else None if asked.packet else first)
    leaving = _judge(realised, source, asked, Direction.OUT, Wire(asked.source_mac, to), now)
    inwards = Wire(ROUTERS_MAC) if routed else Wire(asked.source_mac or source.vnic.mac, to)
    arriving = [
        _judge(realised, receiver, asked, Direction.IN, inwards, now)
        for receiver in receivers[: MAX_RECEIVERS if leaving.passes else 0]
    ]
    return Trace(leaving, tuple(arriving), not receivers, unclear, max(0, len(receivers) - MAX_RECEIVERS))


def _receivers(realised: Realised, source: Card, asked: Described) -> tuple[list[Card], str]:
    """Who gets it, and why that is not known."""
    receiver = owner(realised, asked.wanted, source)
    if asked.to_all:
        others = [card for card in realised.cards.values() if not are_apart(card, source)]
        near = sorted(others, key=lambda card: (card is not receiver, card.vm.name, card.vnic.id))
        return [card for card in near if card is not source], ""
    if receiver is source:
        return [], f"{asked.wanted} is an address of the vNIC itself"
    if receiver and asked.packet is None and are_apart(receiver, source):
        return [], ""  # no router takes a frame anywhere
    if receiver is None:
        having = claimants(realised, asked.wanted)
        return [], f"{len(having)} vNICs have {asked.wanted}" if having else ""
    return [receiver], ""


def _judge(
    realised: Realised, card: Card, asked: Described, direction: Direction, wire: Wire, now: schedule.Now
) -> Judgement:
    vnic, everything = card.vnic.id, _state(realised, card.vnic.id)
    local = any(rule.schedule and not rule.schedule.utc for rule in everything.rules.values())
    state = schedule.without(everything, schedule.closed(everything.rules, now))
    decision = _decided(state, card, asked, direction, wire)
    number = decision.verdict.rule_id
    stored = {rule.number: rule for rule in realised.world.rules.values()}
    rule = stored[number] if number and number != decision.frame_rule else None
    return Judgement(
        card,
        direction,
        decision.verdict,
        decision.words,
        stored[decision.frame_rule] if decision.frame_rule else None,
        rule,
        tuple(named(realised, state, rule, asked.packet, vnic, direction)) if rule and asked.packet else (),
        tuple((stored[over.rule_id], over.field) for over in decision.passed_over),
        local,
    )


def _decided(state: DesiredState, card: Card, asked: Described, direction: Direction, wire: Wire) -> Decision:
    vnic = card.vnic.id
    if asked.packet:
        return decide(state, asked.packet, vnic, direction, replace(wire, claimed=asked.claimed))
    source = wire.source or card.vnic.mac
    frame = Frame(source, wire.destination or ROUTERS_MAC, asked.ethertype)
    return decide_frame(state, frame, vnic, direction, asked.claimed)


def _state(realised: Realised, vnic: str) -> DesiredState:
    """What a host is sent on which this vNIC alone is plugged."""
    needs = realised.needs([vnic])
    return DesiredState(
        rules={int(id): msgspec.json.decode(raw, type=WireRule) for id, raw in needs["rules"].items()},
        groups={id: msgspec.json.decode(raw, type=Group) for id, raw in needs["groups"].items()},
        vnics={id: msgspec.json.decode(raw, type=Vnic) for id, raw in needs["vnics"].items()},
    )
