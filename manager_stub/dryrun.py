"""Flows that hosts saw, judged by the policy that is published and by another one. Pure: what was seen, both
policies and the time come in.

A flow is judged as its first packet, at the vNIC it leaves and at the one it goes to, as far as these are
known, by the evaluator that `vsfwctl explain` asks, over what the host of that vNIC is sent."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import msgspec

from manager_stub.ends import ROUTERS_MAC, are_apart, owner
from manager_stub.span import Realised
from vsfwd.policy import schedule
from vsfwd.policy.ahead import Wire
from vsfwd.policy.decision import decide
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet
from vsfwd.policy.excerpt import Excerpts
from vsfwd.policy.model import Action, Direction, Group, Rule, Vnic
from vsfwd.protocol.messages import SeenFlow

Plugged = Mapping[str, frozenset[str]]
"""vNICs by host."""


@dataclass(frozen=True)
class Flow:
    """A flow that was seen at one of its ends, or at both. An end that is no vNIC is None. `routed`: between
    vNICs that are not on one segment."""

    packet: Packet
    vlan: int | None
    source: str | None
    destination: str | None
    routed: bool
    packets: int
    age_s: int


@dataclass(frozen=True)
class Step:
    """What one vNIC does. `rule`: the path of the deciding one; `words`: what decides where that is none."""

    vnic: str
    direction: Direction
    action: Action
    rule: str | None
    words: str


Verdict = tuple[Step, ...]
"""What becomes of a flow: what its first vNIC does, and if that lets it pass the second. The last step says
how it ends."""


@dataclass(frozen=True)
class Outcome:
    """`changed`: before and after. `unjudged`: for want of time."""

    changed: list[tuple[Flow, Verdict, Verdict]]
    unchanged: int
    unjudged: int


class Policy:
    """What hosts are sent (`needs`), ready to be asked. Objects are decoded once: `decoded` is for both
    policies."""

    def __init__(
        self, realised: Realised, plugged: Plugged, now: schedule.Now, decoded: dict[bytes, Any]
    ) -> None:
        self.needs = {host: realised.needs(vnics) for host, vnics in plugged.items()}
        self._now, self._decoded = now, decoded
        self._hosts = {vnic: host for host in sorted(plugged) for vnic in plugged[host]}
        self._paths = {rule.number: path for path, rule in realised.world.rules.items()}
        self._states: dict[str, Excerpts] = {}

    def verdict(self, flow: Flow) -> Verdict:
        steps: list[Step] = []
        for vnic, direction in ((flow.source, Direction.OUT), (flow.destination, Direction.IN)):
            if vnic in self._hosts and (not steps or steps[-1].action is Action.ALLOW):
                steps.append(self._step(flow, vnic, direction))
        return tuple(steps)

    def _step(self, flow: Flow, vnic: str, direction: Direction) -> Step:
        state = self._excerpts(self._hosts[vnic]).about(flow.packet, vnic, direction)
        router = ROUTERS_MAC if flow.routed else None
        out = direction is Direction.OUT
        wire = Wire(None if out else router, router if out else None, flow.vlan)
        decision = decide(state, flow.packet, vnic, direction, wire)
        rule = decision.verdict.rule_id
        path = self._paths[rule] if rule is not None else None
        return Step(vnic, direction, decision.verdict.action, path, decision.words)

    def _excerpts(self, host: str) -> Excerpts:
        if host not in self._states:
            needs = self.needs[host]
            rules = {int(id): self._decode(raw, Rule) for id, raw in needs["rules"].items()}
            state = DesiredState(
                rules=rules,
                groups={id: self._decode(raw, Group) for id, raw in needs["groups"].items()},
                vnics={id: self._decode(raw, Vnic) for id, raw in needs["vnics"].items()},
            )
            self._states[host] = Excerpts(schedule.without(state, schedule.closed(rules, self._now)))
        return self._states[host]

    def _decode(self, raw: bytes, kind: type[Any]) -> Any:
        if raw not in self._decoded:
            self._decoded[raw] = msgspec.json.decode(raw, type=kind)
        return self._decoded[raw]


def flows_of(realised: Realised, seen: Iterable[tuple[str, SeenFlow]]) -> tuple[list[Flow], int]:
    """The flows in what vNICs saw, each once, the newest first; and how many of what was said cannot be."""
    found: dict[tuple[Any, ...], Flow] = {}
    refused = 0
    for vnic, said in seen:
        try:
            flow = _flow(realised, vnic, said)
        except (ValueError, KeyError):
            refused += 1
            continue
        packet = flow.packet
        ends = (flow.source, flow.destination, packet.source, packet.destination)
        key = (*ends, flow.vlan, packet.protocol, packet.port, packet.icmp_type)
        twin = found.get(key)
        if twin is None or flow.age_s < twin.age_s:
            found[key] = flow
    return sorted(found.values(), key=lambda flow: flow.age_s), refused


def _flow(realised: Realised, vnic: str, said: SeenFlow) -> Flow:
    """Raises ValueError or KeyError for what cannot be."""
    packet = Packet(
        ip_address(said.source),
        ip_address(said.destination),
        said.protocol,
        port=said.port,
        icmp_type=said.icmp_type or 0,
        source_port=said.source_port,
    )
    out, near = said.direction == "out", realised.cards[vnic]
    far = owner(realised, str(packet.destination if out else packet.source), near)
    ends = (vnic, far.vnic.id if far else None)
    source, destination = ends if out else ends[::-1]
    routed = far is not None and are_apart(far, near)
    return Flow(packet, said.vlan, source, destination, routed, said.packets, said.age_s)


def compare(before: Policy, after: Policy, flows: list[Flow], in_time: Callable[[], bool]) -> Outcome:
    """Which flows end otherwise. `in_time` is asked before each, the newest first."""
    changed: list[tuple[Flow, Verdict, Verdict]] = []
    for judged, flow in enumerate(flows):
        if not in_time():
            return Outcome(changed, judged - len(changed), len(flows) - judged)
        was, becomes = before.verdict(flow), after.verdict(flow)
        if was[-1].action is not becomes[-1].action:
            changed.append((flow, was, becomes))
    return Outcome(changed, len(flows) - len(changed), 0)
