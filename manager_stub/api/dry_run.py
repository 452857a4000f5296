"""…/drafts/{id}/dry-run and …/configurations/{id}/dry-run: which of the flows that were seen lately would end
otherwise."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Query

from manager_stub.api.errors import Problem
from manager_stub.api.objects import Json
from manager_stub.dryrun import Flow, Plugged, Policy, Verdict, compare, flows_of
from manager_stub.hosts import Host
from manager_stub.inquiry import Inquiry
from manager_stub.publish import Change
from manager_stub.register import Register
from manager_stub.span import Realised
from vsfwd.policy.model import ICMP, ICMPV6, TCP, UDP
from vsfwd.policy.schedule import Now
from vsfwd.protocol.messages import MAX_MINUTES, Reply, SeenFlow

Minutes = Annotated[int, Query(ge=1, le=MAX_MINUTES)]
"""How far back."""
JUDGE_S: Final = 20.0
"""How long flows are judged; the rest is counted."""
SHOWN: Final = 1000
"""Flows that an answer shows; all are counted."""
_PROTOCOLS: Final = {TCP: "TCP", UDP: "UDP", ICMP: "ICMPv4", ICMPV6: "ICMPv6"}


class DryRun:
    """One at a time: each costs the hosts and the manager work."""

    def __init__(self, register: Register, inquiry: Inquiry) -> None:
        self._register = register
        self._inquiry = inquiry
        self._running = asyncio.Lock()

    async def __call__(self, plan: Callable[[Register], Change], minutes: int) -> Json:
        """Of what `plan` makes of the policy as it is. Raises Refused where that could not be published."""
        if self._running.locked():
            raise Problem(409, "another dry run is under way")
        async with self._running:
            frozen = self._register.frozen()
            hosts, before = frozen.hosts, frozen.realised
            plugged = {id: frozenset(each.vnic for each in host.bindings) for id, host in hosts.items()}
            old, new = await asyncio.to_thread(_policies, frozen, plan, plugged)
            # What is sent to the other hosts stays the same, and so do the verdicts there.
            concerned = [id for id in hosts if old.needs[id] != new.needs[id]]
            answers = await self._inquiry.flows(concerned, minutes)
            seen, told = _heard(before, hosts, plugged, answers)
            found = await asyncio.to_thread(_judged, before, old, new, seen)
            return {**found, "hosts": told}


def _policies(
    register: Register, plan: Callable[[Register], Change], plugged: Plugged
) -> tuple[Policy, Policy]:
    """As it is, and as it would be."""
    change = plan(register)
    after = register.after(change.put, change.delete)
    now, decoded = Now(datetime.now(UTC).replace(tzinfo=None), datetime.now()), dict[bytes, Any]()
    old, new = (Policy(realised, plugged, now, decoded) for realised in (register.realised, after))
    return old, new


def _heard(
    realised: Realised, hosts: Mapping[str, Host], plugged: Plugged, answers: Mapping[str, Reply]
) -> tuple[list[tuple[str, SeenFlow]], list[Json]]:
    """What vNICs saw, and how each host answered. A host speaks for what is plugged there only."""
    seen: list[tuple[str, SeenFlow]] = []
    told = []
    for id, reply in answers.items():
        known = reply.flows.keys() & plugged[id] & realised.cards.keys()
        own = [(vnic, flow) for vnic in known for flow in reply.flows[vnic]]
        seen += own
        told.append(
            {
                "id": id,
                "display_name": hosts[id].display_name,
                "answered": not reply.error,
                "reason": reply.error,
                "flows": len(own),
                "foreign": sum(map(len, reply.flows.values())) - len(own),
                "left_out": reply.left_out,
                "unread_vnics": reply.unread,
            }
        )
    return seen, told


def _judged(realised: Realised, old: Policy, new: Policy, seen: list[tuple[str, SeenFlow]]) -> Json:
    until = time.monotonic() + JUDGE_S
    flows, malformed = flows_of(realised, seen)
    outcome = compare(old, new, flows, lambda: time.monotonic() < until)
    return {
        "changed": len(outcome.changed),
        "unchanged": outcome.unchanged,
        "unjudged": outcome.unjudged,
        "malformed": malformed,
        "results": [_shown(realised, *each) for each in outcome.changed[:SHOWN]],
    }


def _shown(realised: Realised, flow: Flow, before: Verdict, after: Verdict) -> Json:
    packet = flow.packet
    ported, icmp = packet.protocol in (TCP, UDP), packet.protocol in (ICMP, ICMPV6)
    return {
        "protocol": _PROTOCOLS.get(packet.protocol, str(packet.protocol)),
        "source": str(packet.source),
        "source_port": packet.source_port if ported else None,
        "source_vm": _vm(realised, flow.source),
        "destination": str(packet.destination),
        "destination_port": packet.port if ported else None,
        "destination_vm": _vm(realised, flow.destination),
        "icmp_type": packet.icmp_type if icmp else None,
        "vlan_id": flow.vlan,
        "packets": flow.packets,
        "seconds_ago": flow.age_s,
        "before": _verdict(before),
        "after": _verdict(after),
    }


def _vm(realised: Realised, vnic: str | None) -> Json | None:
    if vnic is None:
        return None
    vm = realised.cards[vnic].vm
    return {"display_name": vm.name, "path": vm.path, "vnic": vnic}


def _verdict(steps: Verdict) -> Json:
    decided = [
        {
            "vnic": step.vnic,
            "direction": str(step.direction).upper(),
            "action": str(step.action).upper(),
            "rule_path": step.rule,
            "reason": step.words,
        }
        for step in steps
    ]
    return {"action": str(steps[-1].action).upper(), "decided_by": decided}
