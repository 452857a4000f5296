"""A trace as NSX tells it: a list of observations, from the vNIC that sends to the one that receives, and the
reason beside those of the firewall."""

import time
from collections.abc import Iterable, Iterator
from typing import Final

from manager_stub.api.fabric import places
from manager_stub.api.objects import Json
from manager_stub.groups import Reason
from manager_stub.hosts import Host
from manager_stub.model import Rule
from manager_stub.register import Register
from manager_stub.span import Card
from manager_stub.traceflow import Judgement, Trace
from manager_stub.traceflow.reasons import Named
from manager_stub.world import Stored, parent_of, vnic_path
from vsfwd.policy.model import Direction

MAX_PASSED_OVER: Final = 100
"""Rules above the deciding one that are told, the nearest to it."""
_FIELDS: Final = {"sources": "source_groups", "destinations": "destination_groups", "family": "ip_protocol"}
"""Of rules, where NSX's name is another."""


def observations(register: Register, trace: Trace) -> list[Json]:
    """In order. `sequence_no` counts the hosts on the way, from 0."""
    now_us = time.time_ns() // 1000
    stamp = {"timestamp": now_us // 1000, "timestamp_micro": now_us}
    source = trace.leaving.card
    here = _host(register, source)
    seen = [*_firewall(register, trace.leaving, here)]
    if trace.leaving.passes:
        seen.append(_forwarded(trace, here))
    hops = {here.id if here else None: 0}
    for judged in trace.arriving:
        there = _host(register, judged.card)
        if (id := there.id if there else None) not in hops:
            seen.append(_observation("Forwarded", "PHYSICAL", "underlay", here))
            hops[id] = len(hops)
            seen.append(_observation("Received", "PHYSICAL", "underlay", there) | {"sequence_no": hops[id]})
        arriving = [*_firewall(register, judged, there)]
        if judged.passes:
            arriving.append(_observation("Delivered", "LS", _switch(judged.card), there, judged.card))
        seen += [each | {"sequence_no": hops[id]} for each in arriving]
    if trace.outside and trace.leaving.passes and not trace.unclear:
        seen.append(_observation("Delivered", "PHYSICAL", "outside: no vNIC has the address", here))
    return [each | stamp for each in seen]


def counters(seen: list[Json]) -> Json:
    """How many observations of each kind there are; those that NSX calls logical apart."""

    def counted(logical: str) -> Json:
        kinds = [str(each["resource_type"]).removeprefix("TraceflowObservation") for each in seen]
        return {
            f"{kind.lower()}_count": kinds.count(f"{kind}{logical}")
            for kind in ("Received", "Forwarded", "Delivered", "Dropped")
        }

    return {"counters": counted(""), "logical_counters": counted("Logical")}


def analysis(register: Register, trace: Trace) -> list[str]:
    """What has to be known to read the result."""
    found = ["computed from the published policy: no packet was sent"]
    judged = (trace.leaving, *trace.arriving)
    for each in judged:
        host, vnic = _host(register, each.card), each.card.vnic.id
        if host is None:
            found.append(f"vNIC {vnic} is plugged on no host")
        elif not host.level.in_sync:
            found.append(f"host {host.display_name} has not said that it applied all of it")
    if any(each.by_local_clock for each in judged):
        found.append("schedules by the clock of a host were asked by the manager's")
    if trace.more and trace.leaving.passes:
        found.append(f"{trace.more} more vNICs of the segment get it, and were not asked about")
    if trace.unclear:
        found.append(f"who gets the packet is not known: {trace.unclear}")
    return found


def _host(register: Register, card: Card | None) -> Host | None:
    place = places(register).get(card.vnic.id) if card else None
    return register.hosts[place[0]] if place else None


def _observation(
    kind: str, component_type: str, component: str, host: Host | None, card: Card | None = None
) -> Json:
    found: Json = {
        "resource_type": f"TraceflowObservation{kind}",
        "component_type": component_type,
        "component_name": component,
        "sequence_no": 0,
    }
    if host is not None:
        found |= {"transport_node_id": host.id, "transport_node_name": host.display_name}
        found |= {"transport_node_type": "OTHERS"}
    if card is not None:
        found |= {"lport_id": card.vnic.id, "lport_name": card.vnic.display_name or card.vm.name}
        found |= {"segment_port_path": vnic_path(card.vnic.id)}
    return found


def _switch(card: Card) -> str:
    return card.segment.name if card.segment else "no segment"


def _forwarded(trace: Trace, host: Host | None) -> Json:
    source = trace.leaving.card
    found = _observation("ForwardedLogical", "LS", _switch(source), host)
    path = {"component_path": source.segment.path} if source.segment else {}
    return found | path


def _firewall(register: Register, judged: Judgement, host: Host | None) -> Iterator[Json]:
    yield _observation("ReceivedLogical", "DFW", "Distributed Firewall", host, judged.card)
    kind = "ForwardedLogical" if judged.passes else "DroppedLogical"
    by_spoofguard = judged.words.startswith("SpoofGuard")
    component = ("SPOOFGUARD", "SpoofGuard") if by_spoofguard else ("DFW", "Distributed Firewall")
    found = _observation(kind, *component, host, judged.card)
    for prefix, rule in (("l2", judged.frame_rule), ("acl", judged.rule)):
        if rule is not None:
            found |= {f"{prefix}_rule_id": rule.number, f"{prefix}_rule_path": rule.path}
    for rule, field in judged.passed_over:
        if field == "jump":
            found |= {"jumpto_rule_id": rule.number, "jumpto_rule_path": rule.path}
    if not judged.passes:
        found["reason"] = _reason(judged)
    yield found | {"why": _why(register, judged)}


def _reason(judged: Judgement) -> str:
    """In NSX's words."""
    if judged.verdict.no_state:
        return "FW_STATE"
    if judged.words.startswith("SpoofGuard"):
        return "SPOOFGUARD"
    if judged.words.startswith("rogue: ") and "DHCP" in judged.words:
        return "DHCP"
    return "NO_MAC" if judged.words.startswith("not mine") else "FW_RULE"


def _why(register: Register, judged: Judgement) -> Json:
    told = judged.passed_over[-MAX_PASSED_OVER:]
    found: Json = {
        "action": judged.verdict.action.upper(),
        "direction": "IN" if judged.direction is Direction.IN else "OUT",
    }
    if judged.words:
        found["decided_by"] = judged.words
    of_frame = judged.frame_rule and judged.frame_rule.number == judged.verdict.rule_id
    rule = judged.rule or (judged.frame_rule if of_frame else None)
    if rule is not None:
        section = register.world.sections[parent_of(rule.path)]
        found["rule"] = _rule(rule)
        found["section"] = {"path": section.path, "display_name": section.name}
        found["section"] |= {"category": section.body.category}
    found["matches"] = [_named(each) for each in judged.named]
    found["passed_over"] = [_rule(rule) | {"because": _FIELDS.get(why, why)} for rule, why in told]
    found["passed_over_count"] = len(judged.passed_over)
    return found


def _rule(rule: Stored[Rule]) -> Json:
    return {"path": rule.path, "display_name": rule.name, "rule_id": rule.number}


def _named(named: Named) -> Json:
    return {"field": named.field, "value": named.value, "reasons": [_reasons(each) for each in named.reasons]}


def _reasons(reasons: Iterable[Reason]) -> list[Json]:
    return [
        {"where": each.where, "what": each.what, **({"group": each.group} if each.group else {})}
        for each in reasons
    ]
