"""What the policy means for one packet: the rules from the top, the first that matches decides.

This is the specification, written from the words of the model and of NSX, for reading and not for speed. It
shares no code with `compile`; the tests hold the two against each other, and `vsfwctl explain` shows a person
the steps."""

import ipaddress
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import (
    APPLICATION,
    ICMP,
    ICMPV6,
    KNOWN_ETHERTYPES,
    MIN_ETHERTYPE,
    TAG_ETHERTYPES,
    TCP,
    UDP,
    Action,
    Direction,
    Family,
    Frames,
    Match,
    Rule,
    Service,
    Tracking,
    Vnic,
)

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Packet:
    """The first packet of a session. `port` and `source_port` are of TCP and UDP, type and code of ICMP and
    ICMPv6. `midstream`: TCP data or an acknowledgement that belongs to no session the host knows."""

    source: Address
    destination: Address
    protocol: int
    port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    midstream: bool = False
    source_port: int = 0

    def __post_init__(self) -> None:
        if self.midstream and self.protocol != TCP:
            raise ValueError("midstream: only TCP has a middle")
        if self.source.version != self.destination.version:
            raise ValueError(f"{self.source} and {self.destination} are not of one family")
        if self.protocol == (ICMPV6 if self.source.version == 4 else ICMP):
            raise ValueError(
                f"protocol: {self.protocol} is dropped in IPv{self.source.version} before any rule"
            )


@dataclass(frozen=True)
class Frame:
    """A frame by its header. `ethertype` is the one behind the tag, `vlan` the tag's id, or None."""

    source: str
    destination: str
    ethertype: int
    vlan: int | None = None


@dataclass(frozen=True)
class Verdict:
    """`rule_id` is None where no rule matches: dropped; and where the vNIC is excluded: allowed. `no_state`:
    dropped because the rule that matches is strict, and the packet is from the middle of a connection.
    `monitored`: the rule that would have matched first, were it enforced."""

    action: Action
    rule_id: int | None
    no_state: bool = False
    monitored: int | None = None


@dataclass(frozen=True)
class PassedOver:
    """A rule that did not decide: the first of its fields that spoke against; `monitored`, `jump` of a rule
    that jumps, `jumped` of one that was left out by it."""

    rule_id: int
    field: str


@dataclass(frozen=True)
class _Known:
    """What the policy knows an address by: groups it is in, and the address itself, for a rule's own
    addresses."""

    address: Address
    groups: Set[str]


def evaluate(state: DesiredState, packet: Packet, vnic: str, direction: Direction) -> Verdict:
    """The verdict on a packet that passes a vNIC of this state, in or out."""
    verdict, _ = explain(state, packet, vnic, direction)
    return verdict


def explain(
    state: DesiredState, packet: Packet, vnic: str, direction: Direction
) -> tuple[Verdict, list[PassedOver]]:
    """The verdict, and the rules above the deciding one with why they did not match."""
    passed_over: list[PassedOver] = []
    if state.vnics[vnic].excluded:
        return Verdict(Action.ALLOW, None), passed_over
    monitored, jumped = None, False
    for id, against in mismatches(state, packet, vnic, direction):
        rule = state.rules[id]
        if jumped and rule.order < (APPLICATION,):
            passed_over.append(PassedOver(id, "jumped"))
        elif against is not None:
            passed_over.append(PassedOver(id, against))
        elif rule.monitored:
            monitored = id if monitored is None else monitored
            passed_over.append(PassedOver(id, "monitored"))
        elif rule.jumps:
            jumped = True
            passed_over.append(PassedOver(id, "jump"))
        else:
            return _decided(id, rule, packet, monitored), passed_over
    return Verdict(Action.DROP, None, monitored=monitored), passed_over


def _decided(id: int, rule: Rule, packet: Packet, monitored: int | None) -> Verdict:
    if packet.midstream and rule.tracking is Tracking.STRICT:
        return Verdict(Action.DROP, id, no_state=True, monitored=monitored)
    return Verdict(rule.action, id, monitored=monitored)


def mismatches(
    state: DesiredState, packet: Packet, vnic: str, direction: Direction
) -> Iterator[tuple[int, str | None]]:
    """Every rule in order, with the first field that speaks against the packet; None where the rule matches.

    Raises KeyError for a vNIC the state does not have: it has no policy, and is closed.
    """
    port = state.vnics[vnic]
    source = _sender(state, packet.source, vnic, direction)
    destination = _known(state, packet.destination, port)
    applied = _applied(state, port)
    for id, rule in _in_order(state):
        if rule.frames is None:
            yield id, _first_mismatch(rule, packet, direction, source, destination, applied)


def _sender(state: DesiredState, address: Address, vnic: str, direction: Direction) -> _Known:
    """Identity comes from the port a packet enters by: whoever sends from another vNIC's address is not in
    the groups of that vNIC."""
    port = state.vnics[vnic]
    if direction is Direction.OUT and owner_of(state, address, port) not in (vnic, None):
        return _Known(address, _listing(state, address))
    return _known(state, address, port)


def near_rules(state: DesiredState, address: Address, vnic: str, direction: Direction) -> Mapping[int, Rule]:
    """Rules that can match packets of this address at the vNIC's end, in order: its source on the way out,
    its destination on the way in. All other rules can be left out of a state that is asked about those."""
    port = state.vnics[vnic]
    out, applied = direction is Direction.OUT, _applied(state, port)
    known = _sender(state, address, vnic, direction) if out else _known(state, address, port)
    return {
        id: rule
        for id, rule in _in_order(state)
        if (rule.scope is None or not applied.isdisjoint(rule.scope))
        and rule.direction in (direction, Direction.INOUT)
        and (rule.frames is not None or _matches(rule.sources if out else rule.destinations, known))
    }


def evaluate_frame(state: DesiredState, frame: Frame, vnic: str, direction: Direction) -> Verdict:
    """The verdict on a frame that passes a vNIC, before what is in it: an IP packet in a frame that is
    allowed is for `evaluate` to judge."""
    port = state.vnics[vnic]
    if port.excluded:
        return Verdict(Action.ALLOW, None)
    if frame.ethertype < MIN_ETHERTYPE or frame.ethertype in TAG_ETHERTYPES:
        return Verdict(Action.DROP, None)
    owner = _mac_owner(state, frame.source)
    source = _with_mac(state, frame.source)
    if owner is not None and (direction is Direction.IN or owner == vnic):
        source |= set(state.vnics[owner].groups)
    destination = _with_mac(state, frame.destination)
    owner = _mac_owner(state, frame.destination)
    if owner is not None:
        destination |= set(state.vnics[owner].groups)
    monitored: int | None = None
    for id, rule in _in_order(state):
        if (
            rule.frames is not None
            and (rule.scope is None or not _applied(state, port).isdisjoint(rule.scope))
            and rule.direction in (direction, Direction.INOUT)
            and _names(rule.sources, source)
            and _names(rule.destinations, destination)
            and _is_about(rule.frames, frame)
        ):
            if not rule.monitored:
                return Verdict(rule.action, id, monitored=monitored)
            monitored = id if monitored is None else monitored
    known = frame.ethertype in KNOWN_ETHERTYPES and frame.vlan is None
    return Verdict(Action.ALLOW if known else Action.DROP, None, monitored=monitored)


def _is_about(frames: Frames, frame: Frame) -> bool:
    if frames.ethertypes is not None and frame.ethertype not in frames.ethertypes:
        return False
    if frame.vlan is None:
        return not frames.vlans
    return any(low <= frame.vlan <= high for low, high in frames.vlans)


def _names(match: Match | None, groups: Set[str]) -> bool:
    return match is None or (not groups.isdisjoint(match.groups)) != match.excluded


def _mac_owner(state: DesiredState, mac: str) -> str | None:
    """The only vNIC that has it."""
    claims = [id for id, vnic in state.vnics.items() if vnic.mac == mac]
    return claims[0] if len(claims) == 1 else None


def _with_mac(state: DesiredState, mac: str) -> set[str]:
    return {id for id, group in state.groups.items() if mac in group.macs}


def _in_order(state: DesiredState) -> list[tuple[int, Rule]]:
    return sorted(state.rules.items(), key=lambda item: (item[1].order, item[0]))


def _applied(state: DesiredState, port: Vnic) -> set[str]:
    """What a scope may name to apply a rule to a vNIC."""
    return set(port.groups).union(*(_listing(state, ipaddress.ip_address(own)) for own in port.addresses))


def _first_mismatch(
    rule: Rule, packet: Packet, direction: Direction, source: _Known, destination: _Known, applied: Set[str]
) -> str | None:
    """The first field of a rule that speaks against a packet; None when the rule matches."""
    family = Family.IPV4 if packet.source.version == 4 else Family.IPV6
    if rule.scope is not None and applied.isdisjoint(rule.scope):
        return "scope"
    if rule.direction not in (direction, Direction.INOUT):
        return "direction"
    if rule.family not in (family, Family.BOTH):
        return "family"
    if not _matches(rule.sources, source):
        return "sources"
    if not _matches(rule.destinations, destination):
        return "destinations"
    if rule.services is not None and not any(_serves(service, packet) for service in rule.services):
        return "services"
    return None


def _matches(match: Match | None, known: _Known) -> bool:
    if match is None:
        return True
    named = not known.groups.isdisjoint(match.groups) or any(
        _covers(t, known.address) for t in match.addresses
    )
    return named != match.excluded


def _serves(service: Service, packet: Packet) -> bool:
    if service.protocol != packet.protocol:
        return False
    if packet.protocol in (TCP, UDP):
        return _within(service.ports, packet.port) and _within(service.source_ports, packet.source_port)
    if packet.protocol in (ICMP, ICMPV6):
        return service.icmp_type in (None, packet.icmp_type) and service.icmp_code in (None, packet.icmp_code)
    return True


def _within(ports: tuple[tuple[int, int], ...], port: int) -> bool:
    return not ports or any(low <= port <= high for low, high in ports)


def _known(state: DesiredState, address: Address, port: Vnic) -> _Known:
    """Groups of an address: those that list it, and those of the vNIC it belongs to."""
    owner = owner_of(state, address, port)
    members = state.vnics[owner].groups if owner else ()
    return _Known(address, _listing(state, address).union(members))


def owner_of(state: DesiredState, address: Address, port: Vnic) -> str | None:
    """The vNIC an address belongs to, seen from a port.

    The only vNIC that claims it. Where several do, the only one of the port's own segment; segment 0 is none.
    Where that does not decide, nobody: a claim must not bring anyone into, or out of, a group of somebody
    else."""
    claims = [
        id
        for id, vnic in state.vnics.items()
        if address in [ipaddress.ip_address(own) for own in vnic.addresses]
    ]
    if len(claims) > 1:
        claims = [id for id in claims if port.segment and state.vnics[id].segment == port.segment]
    return claims[0] if len(claims) == 1 else None


def _listing(state: DesiredState, address: Address) -> set[str]:
    """Groups whose literal addresses cover an address."""
    return {
        id for id, group in state.groups.items() if any(_covers(text, address) for text in group.addresses)
    }


def _covers(text: str, address: Address) -> bool:
    low, dash, high = text.partition("-")
    if not dash:
        return address in ipaddress.ip_network(text)
    first, last = ipaddress.ip_address(low.strip()), ipaddress.ip_address(high.strip())
    return first.version == address.version and int(first) <= int(address) <= int(last)
