"""What the published policy does to a packet on its way from one vNIC to another: outwards at the first,
inwards at the second, by the evaluator that `vsfwctl explain` asks on a host, over what that host is sent.
Nothing is injected. Pure: what time it is comes in.

Every packet is judged as the first of its session, or as one from the middle where its TCP flags say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import msgspec

from manager_stub.ends import ROUTERS_MAC, are_apart, claimants, owner
from manager_stub.groups import Reason, covers, literals
from manager_stub.membership import Membership
from manager_stub.model import ANY, FieldsPacketData, Rule
from manager_stub.span import Card, Realised
from manager_stub.world import Stored, parent_of
from vsfwd.policy import ahead, evaluate, schedule
from vsfwd.policy.decision import decide
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, Verdict
from vsfwd.policy.model import Action, Direction, Group, Vnic, parse_address
from vsfwd.policy.model import Rule as WireRule

_SYN: Final = 0x02
_ACK: Final = 0x10
_ECHO_REQUEST: Final = {4: 8, 6: 128}


@dataclass(frozen=True)
class Named:
    """Something the deciding rule names, and why the packet is it. `reasons`: lists of parts of a group's
    expression, each list enough by itself."""

    field: str
    value: str
    reasons: tuple[tuple[Reason, ...], ...]


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
    """`receiver`: None where no vNIC has the destination's address; `unclear`: why it is not known who gets
    the packet; `arriving`: None where it does not get there."""

    packet: Packet
    leaving: Judgement
    receiver: Card | None
    arriving: Judgement | None
    unclear: str


def trace(realised: Realised, source: Card, data: FieldsPacketData, now: schedule.Now) -> Trace:
    """Raises ValueError with the field in it, for a packet that cannot be."""
    packet = _packet(source, data)
    receiver, unclear = _receiver(realised, source, packet)
    routed = data.routed or (receiver is not None and are_apart(receiver, source))
    eth = data.eth_header
    outwards = ahead.Wire(eth.src_mac, eth.dst_mac or (ROUTERS_MAC if routed else None))
    inwards = ahead.Wire(ROUTERS_MAC) if routed else ahead.Wire(eth.src_mac, eth.dst_mac)
    leaving = _judge(realised, source, packet, Direction.OUT, outwards, now)
    arriving = None
    if receiver is not None and leaving.passes:
        arriving = _judge(realised, receiver, packet, Direction.IN, inwards, now)
    return Trace(packet, leaving, receiver, arriving, unclear)


def _packet(source: Card, data: FieldsPacketData) -> Packet:
    header = data.ip_header or data.ipv6_header
    assert header, "one of the two is there"
    destination = ip_address(header.dst_ip)
    field = "ip_header" if data.ip_header else "ipv6_header"
    if destination.is_multicast or header.dst_ip == "255.255.255.255":
        raise ValueError(f"packet.{field}.dst_ip: {destination} is not the address of one receiver")
    own = (text for text in source.vnic.addresses if ip_address(text).version == destination.version)
    text = header.src_ip or next(own, None)
    if text is None:
        raise ValueError(f"packet.{field}.src_ip: needed, for the vNIC has no such address")
    tcp, udp = data.transport_header.tcp_header, data.transport_header.udp_header
    ports, protocol = tcp or udp, data.protocol()
    flags = tcp.tcp_flags if tcp else 0
    return Packet(
        source=ip_address(text),
        destination=destination,
        protocol=protocol,
        port=ports.dst_port if ports else 0,
        icmp_type=_ECHO_REQUEST[destination.version],
        midstream=bool(flags) and flags & (_SYN | _ACK) != _SYN,
        source_port=ports.src_port if ports else 0,
    )


def _receiver(realised: Realised, source: Card, packet: Packet) -> tuple[Card | None, str]:
    """Who gets it, and why that is not known."""
    text = str(packet.destination)
    receiver = owner(realised, text, source)
    if receiver is source:
        return None, f"{text} is an address of the vNIC itself"
    having = claimants(realised, text)
    return receiver, f"{len(having)} vNICs have {text}" if having and receiver is None else ""


def _judge(
    realised: Realised, card: Card, packet: Packet, direction: Direction, wire: ahead.Wire, now: schedule.Now
) -> Judgement:
    vnic, everything = card.vnic.id, _state(realised, card.vnic.id)
    local = any(rule.schedule and not rule.schedule.utc for rule in everything.rules.values())
    state = schedule.without(everything, schedule.closed(everything.rules, now))
    decision = decide(state, packet, vnic, direction, wire)
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
        tuple(_named(realised, state, rule, packet, vnic, direction)) if rule else (),
        tuple((stored[over.rule_id], over.field) for over in decision.passed_over),
        local,
    )


def _state(realised: Realised, vnic: str) -> DesiredState:
    """What a host is sent on which this vNIC alone is plugged."""
    needs = realised.needs([vnic])
    return DesiredState(
        rules={int(id): msgspec.json.decode(raw, type=WireRule) for id, raw in needs["rules"].items()},
        groups={id: msgspec.json.decode(raw, type=Group) for id, raw in needs["groups"].items()},
        vnics={id: msgspec.json.decode(raw, type=Vnic) for id, raw in needs["vnics"].items()},
    )


def _named(
    realised: Realised,
    state: DesiredState,
    rule: Stored[Rule],
    packet: Packet,
    vnic: str,
    direction: Direction,
) -> Iterator[Named]:
    """What the rule names that the packet is; nothing of a field that excludes, for it is none of that."""
    body, port = rule.body, state.vnics[vnic]
    owner = evaluate.owner_of(state, packet.source, port)
    if direction is Direction.OUT and owner != vnic:
        owner = None  # whoever sends from another's address is not in its groups
    if not body.sources_excluded:
        yield from _because(realised, "source_groups", body.source_groups, [str(packet.source)], owner)
    if not body.destinations_excluded:
        owner = evaluate.owner_of(state, packet.destination, port)
        text = [str(packet.destination)]
        yield from _because(realised, "destination_groups", body.destination_groups, text, owner)
    section = realised.world.sections[parent_of(rule.path)].body
    scope = section.scope if section.scope != [ANY] else body.scope
    yield from _because(realised, "scope", scope, list(port.addresses), vnic)


def _because(
    realised: Realised, field: str, values: list[str], addresses: list[str], owner: str | None
) -> Iterator[Named]:
    for value in values:
        if value == ANY:
            yield Named(field, value, ())
        elif not value.startswith("/"):
            if any(covers(parse_address(value), address) for address in addresses):
                yield Named(field, value, ())
        elif reasons := _of_group(realised, value, addresses, owner):
            yield Named(field, value, reasons)


def _of_group(
    realised: Realised, path: str, addresses: list[str], owner: str | None
) -> tuple[tuple[Reason, ...], ...]:
    """Why the group has one of the addresses, or the vNIC they belong to."""
    reasons: list[tuple[Reason, ...]] = [
        (reason,)
        for text, reason in literals(realised.asked, path)
        if any(covers(parse_address(text), address) for address in addresses)
    ]
    if owner is not None:
        membership = Membership(realised.asked, realised.cards[owner].candidate)
        reasons += [tuple(each) for each in membership.reasons(path)]
    return tuple(reasons)
