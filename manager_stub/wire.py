"""Stored objects as the hosts read them: rules, groups and vNICs of `vsfwd.policy.model`, as JSON bytes.
Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from manager_stub.addresses import spoofguard
from manager_stub.catalogue import DEFAULT_L2_SECTION, DEFAULT_SECTION
from manager_stub.groups import Lists
from manager_stub.model import (
    ANY,
    CATEGORIES,
    DAYS,
    ETHERNET,
    TIMERS,
    ALGTypeServiceEntry,
    Entry,
    EtherTypeServiceEntry,
    Group,
    ICMPTypeServiceEntry,
    IGMPTypeServiceEntry,
    IPProtocolServiceEntry,
    L4PortSetServiceEntry,
    Rule,
    SecurityPolicy,
    Segment,
    SessionTimerProfile,
    Vm,
    Vnic,
    minute_of,
)
from manager_stub.services import plain
from manager_stub.world import Stored, World, id_of
from vsfwd.policy import model as wire

MAX_LABEL: Final = 32
"""Characters of a rule's label that are logged, as in NSX."""

_encode = msgspec.json.Encoder(order="deterministic").encode

_DIRECTIONS: Final = {
    "IN": wire.Direction.IN,
    "OUT": wire.Direction.OUT,
    "IN_OUT": wire.Direction.INOUT,
}
_FAMILIES: Final = {
    "IPV4": wire.Family.IPV4,
    "IPV6": wire.Family.IPV6,
    "IPV4_IPV6": wire.Family.BOTH,
}


@dataclass(frozen=True, slots=True)
class WireRule:
    """A rule as it is sent. `scope`: the groups it applies to, None: every vNIC; `peers`: the groups whose
    members its source and destination need."""

    id: str
    raw: bytes
    scope: frozenset[str] | None
    peers: frozenset[str]


def rule(world: World, stored: Stored[Rule], section: Stored[SecurityPolicy]) -> WireRule:
    body = stored.body
    # NSX: a section's scope, where it has one, takes the place of its rules'.
    scope = section.body.scope if section.body.scope != [ANY] else body.scope
    ethernet = section.body.category == ETHERNET
    made = wire.Rule(
        name=stored.name,
        section=section.name,
        order=(*_place(section), section.number, body.sequence_number or 0),
        action=wire.Action(body.action.lower()),
        direction=_DIRECTIONS[body.direction],
        family=_FAMILIES[body.ip_protocol],
        sources=_match(world, body.source_groups, body.sources_excluded),
        destinations=_match(world, body.destination_groups, body.destinations_excluded),
        services=None if ethernet else _services(world, body),
        frames=_frames(world, body) if ethernet else None,
        scope=None if scope == [ANY] else tuple(world.groups[path].unique_id for path in scope),
        logged=body.logged,
        log_label=body.tag[:MAX_LABEL],
        monitored=section.body.monitored or body.monitored,
        schedule=_schedule(world, section.body.scheduler_path),
        tracking=_tracking(section.body),
        existing_flows=wire.ExistingFlows(section.body.existing_flows.lower()),
    )
    peers = {group for match in (made.sources, made.destinations) if match for group in match.groups}
    return WireRule(
        str(stored.number),
        _encode(made),
        None if made.scope is None else frozenset(made.scope),
        frozenset(peers),
    )


def _place(section: Stored[SecurityPolicy]) -> tuple[int, int]:
    """A default section is the last of its layer."""
    if section.path == DEFAULT_SECTION:
        return len(CATEGORIES), 0
    sequence = section.body.sequence_number
    return CATEGORIES.index(section.body.category), sequence + (section.path == DEFAULT_L2_SECTION)


def _schedule(world: World, path: str | None) -> wire.Schedule | None:
    if path is None:
        return None
    body = world.schedulers[path].body
    begins, ends = body.begins(), body.ends()
    return wire.Schedule(
        begins=begins.isoformat(timespec="minutes") if begins else "",
        ends=ends.isoformat(timespec="minutes") if ends else "",
        days=tuple(sorted({DAYS.index(day) for day in body.days})),
        times=tuple(
            (minute_of(each.start_interval), minute_of(each.end_interval)) for each in body.time_interval
        ),
        utc=body.timezone == "UTC",
    )


def _tracking(section: SecurityPolicy) -> wire.Tracking:
    if not section.stateful:
        return wire.Tracking.STATELESS
    return wire.Tracking.STRICT if section.tcp_strict else wire.Tracking.LOOSE


def group(stored: Stored[Group], lists: Lists) -> bytes:
    return _encode(wire.Group(stored.name, lists.addresses, lists.macs))


def timers(stored: Stored[SessionTimerProfile]) -> wire.SessionTimers | None:
    """None for NSX's defaults, so that they cost no bytes."""
    made = wire.SessionTimers(stored.name, **{name: getattr(stored.body, name) for name in TIMERS})
    return None if made == wire.SessionTimers() else made


def vnic(
    vm: Stored[Vm],
    card: Vnic,
    segment: Stored[Segment] | None,
    groups: Iterable[str],
    excluded: bool,
    timers: wire.SessionTimers | None,
) -> bytes:
    return _encode(
        wire.Vnic(
            vm=id_of(vm.path),
            vm_name=vm.name,
            mac=card.mac,
            segment=segment.number if segment else 0,
            addresses=tuple(card.addresses),
            groups=tuple(sorted(groups)),
            excluded=excluded,
            spoofguard=wire.SpoofGuard(spoofguard(card, segment).lower()),
            router=card.router,
            dhcp_server=card.dhcp_server,
            timers=timers,
        )
    )


def _match(world: World, values: list[str], excluded: bool) -> wire.Match | None:
    if values == [ANY]:
        return None
    return wire.Match(
        groups=tuple(world.groups[value].unique_id for value in values if value.startswith("/")),
        addresses=tuple(value for value in values if not value.startswith("/")),
        excluded=excluded,
    )


def _services(world: World, body: Rule) -> tuple[wire.Service, ...] | None:
    entries = service_entries(world, body)
    return None if entries is None else tuple(_service(entry) for entry in entries)


def _frames(world: World, body: Rule) -> wire.Frames:
    entries = service_entries(world, body)
    ethertypes = (entry.ether_type for entry in entries or () if isinstance(entry, EtherTypeServiceEntry))
    return wire.Frames(
        ethertypes=None if entries is None else tuple(ethertypes),
        vlans=tuple(_range(text) for text in body.vlan_ids),
    )


def service_entries(world: World, body: Rule) -> list[Entry] | None:
    """A rule's services and its own entries, without nesting; None for any."""
    if body.services == [ANY] or not (body.services or body.service_entries):
        return None
    named = [entry for path in body.services for entry in world.services[path].body.service_entries]
    return plain(world, [*named, *body.service_entries])


def _service(entry: Entry) -> wire.Service:
    if isinstance(entry, L4PortSetServiceEntry):
        protocol = wire.TCP if entry.l4_protocol == "TCP" else wire.UDP
        return wire.Service(protocol, _ranges(entry.destination_ports), _ranges(entry.source_ports))
    if isinstance(entry, ALGTypeServiceEntry):
        protocol = wire.TCP if entry.alg == "FTP" else wire.UDP
        ports, source_ports = _ranges(entry.destination_ports), _ranges(entry.source_ports)
        return wire.Service(protocol, ports, source_ports, alg=wire.Alg(entry.alg.lower()))
    if isinstance(entry, ICMPTypeServiceEntry):
        protocol = wire.ICMP if entry.protocol == "ICMPv4" else wire.ICMPV6
        return wire.Service(protocol, icmp_type=entry.icmp_type, icmp_code=entry.icmp_code)
    if isinstance(entry, IGMPTypeServiceEntry):
        return wire.Service(wire.IGMP)
    assert isinstance(entry, IPProtocolServiceEntry), "EtherTypes are refused, nested services opened up"
    return wire.Service(entry.protocol_number)


def _ranges(ports: list[str]) -> tuple[tuple[int, int], ...]:
    return tuple(_range(text) for text in ports)


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)
