"""Rules as bits: which rules name a group, a prefix, a service, an EtherType, a direction, a family.

Rules stand in the order they are tried; bit r of every mask is rule r, so the lowest bit of an intersection
is the first match. This module knows rules only; who is a member of what is `compile`'s matter."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from vsfwd.image import (
    POINTS,
    POINTS_ETHERTYPE,
    POINTS_ICMP,
    POINTS_ICMPV6,
    POINTS_PROTOCOL,
    POINTS_SOURCE,
    POINTS_TCP,
    POINTS_UDP,
    POINTS_VLAN,
    UNTAGGED,
    PrefixKey,
    RuleEntry,
)
from vsfwd.policy.model import (
    APPLICATION,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Alg,
    Direction,
    Family,
    Rule,
    Service,
    parse_address,
)

K = TypeVar("K")

IPV4_MAPPED: Final = 0xFFFF << 32
"""Where the image keeps IPv4: ::ffff:0:0/96."""


class Hits(NamedTuple):
    """The rules that name something, by the role they give it."""

    source: int = 0
    not_source: int = 0
    destination: int = 0
    not_destination: int = 0
    scope: int = 0


NO_HITS: Final = Hits()
A_FEW: Final = 16


def mask(numbers: Iterable[int]) -> int:
    """These bits. To add one after the other to an integer costs the square of their number."""
    numbers = list(numbers)
    if len(numbers) <= A_FEW:
        row = 0
        for number in numbers:
            row |= 1 << number
        return row
    content = bytearray()
    for number in numbers:
        place = number >> 3
        if place >= len(content):
            content.extend(bytes(place + 1))
        content[place] |= 1 << (number & 7)
    return int.from_bytes(content, "little")


def union(all_hits: Iterable[Hits]) -> Hits:
    some = [hits for hits in all_hits if hits is not NO_HITS]
    if len(some) < 2:
        return some[0] if some else NO_HITS
    source = not_source = destination = not_destination = scope = 0
    for hits in some:
        source |= hits.source
        not_source |= hits.not_source
        destination |= hits.destination
        not_destination |= hits.not_destination
        scope |= hits.scope
    return Hits(source, not_source, destination, not_destination, scope)


@dataclass(frozen=True)
class Naming(Generic[K]):
    """Which rules name what. `groups` and `literals` (prefixes, or MAC addresses): rules by what they name.
    `unnamed`: rules that need no name to match; any source, any destination, no scope, and in the `not_`
    fields every rule that excludes."""

    groups: Mapping[str, Hits]
    literals: Mapping[K, Hits]
    unnamed: Hits

    def source_row(self, hits: Hits) -> int:
        """Rules whose sources something with these hits matches."""
        return self.unnamed.source | hits.source | (self.unnamed.not_source & ~hits.not_source)

    def destination_row(self, hits: Hits) -> int:
        return (
            self.unnamed.destination
            | hits.destination
            | (self.unnamed.not_destination & ~hits.not_destination)
        )


@dataclass(frozen=True)
class FrameBits(Naming[int]):
    """Ethernet rules."""

    selected: Mapping[Direction, int]
    services: tuple[tuple[int, int, int], ...]
    """As in RuleBits, of EtherTypes and VLAN ids; empty where there are no Ethernet rules."""
    monitored: int


@dataclass(frozen=True)
class RuleBits(Naming[PrefixKey]):
    """Rules for packets, which come after those for frames; `entries` has both. A scope is a scope: in
    `groups` and `unnamed` it is that of both."""

    entries: tuple[RuleEntry, ...]
    selected: Mapping[tuple[Direction, Family], int]
    services: tuple[tuple[int, int, int], ...]
    """(first point, last point, rules), covering all points once."""
    frames: FrameBits
    alg: int
    """Rules that have an ALG."""
    source_ports: int
    """Rules that name source ports; 0: `services` has none."""
    monitored: int
    jumping: int
    early: int
    """Rules before the category Application, which those that jump leave out."""


Numbered = list[tuple[int, Rule]]
"""Lines of rules with their bits' numbers."""


def rule_bits(rules: Mapping[int, Rule]) -> RuleBits:
    in_order = sorted(rules.items(), key=lambda item: (item[1].frames is None, item[1].order, item[0]))
    ordered = [(id, line) for id, rule in in_order for line in rule.lines()]
    numbered = list(enumerate(line for _, line in ordered))
    frames = [(number, rule) for number, rule in numbered if rule.frames is not None]
    packets = numbered[len(frames) :]
    naming = _naming(packets, numbered, prefixes_of)
    source_ports = mask(number for number, rule in packets if rule.source_ports())
    sources = _sweep(packets, _source_points, POINTS_SOURCE, POINTS) if source_ports else ()
    entries = tuple(
        RuleEntry(
            id,
            rule.action,
            rule.logged,
            rule.tracking,
            rule.existing_flows,
            rule.alg_port(Alg.FTP),
            rule.alg_port(Alg.TFTP),
            rule.monitored,
        )
        for id, rule in ordered
    )
    return RuleBits(
        entries=entries,
        groups=naming.groups,
        literals=naming.literals,
        unnamed=naming.unnamed,
        selected=_selected(packets),
        services=(*_sweep(packets, _points, 0, POINTS_ETHERTYPE), *sources),
        frames=_frame_bits(frames),
        alg=mask(number for number, entry in enumerate(entries) if entry.ftp or entry.tftp),
        source_ports=source_ports,
        monitored=mask(number for number, rule in packets if rule.monitored),
        jumping=mask(number for number, rule in packets if rule.jumps),
        early=mask(number for number, rule in packets if rule.order < (APPLICATION,)),
    )


def _frame_bits(rules: Numbered) -> FrameBits:
    if not rules:
        return _NO_FRAMES
    naming: Naming[int] = _naming(rules, [], lambda _: ())
    selected = {
        direction: mask(n for n, rule in rules if rule.direction in (direction, Direction.INOUT))
        for direction in (Direction.IN, Direction.OUT)
    }
    services = (
        *_sweep(rules, _ethertypes, POINTS_ETHERTYPE, POINTS_VLAN),
        *_sweep(rules, _vlans, POINTS_VLAN, POINTS_SOURCE),
    )
    monitored = mask(number for number, rule in rules if rule.monitored)
    return FrameBits(naming.groups, naming.literals, naming.unnamed, selected, services, monitored)


_NO_FRAMES: Final = FrameBits({}, {}, NO_HITS, {Direction.IN: 0, Direction.OUT: 0}, (), 0)


def _naming(rules: Numbered, scoped: Numbered, literals_of: Callable[[str], Iterable[K]]) -> Naming[K]:
    """What `rules` name as source and destination, and `scoped` as scope."""

    def roles() -> tuple[list[int], ...]:
        """Numbers of rules, by the field of Hits."""
        return [], [], [], [], []

    unnamed = roles()
    groups: dict[str, tuple[list[int], ...]] = defaultdict(roles)
    literals: dict[K, tuple[list[int], ...]] = defaultdict(roles)
    source, not_source, destination, not_destination, scope = range(len(NO_HITS))
    for number, rule in rules:
        for match, role, not_role in (
            (rule.sources, source, not_source),
            (rule.destinations, destination, not_destination),
        ):
            if match is None:
                unnamed[role].append(number)
                continue
            if match.excluded:
                role = not_role
                unnamed[role].append(number)
            for group in match.groups:
                groups[group][role].append(number)
            for text in match.addresses:
                for literal in literals_of(text):
                    literals[literal][role].append(number)
    for number, rule in scoped:
        if rule.scope is None:
            unnamed[scope].append(number)
        for group in rule.scope or ():
            groups[group][scope].append(number)
    return Naming(
        groups={name: Hits(*map(mask, numbers)) for name, numbers in groups.items()},
        literals={literal: Hits(*map(mask, numbers)) for literal, numbers in literals.items()},
        unnamed=Hits(*map(mask, unnamed)),
    )


def prefixes_of(text: str) -> tuple[PrefixKey, ...]:
    """The prefixes an address text of the policy stands for, as the image writes them."""
    return tuple(
        PrefixKey(prefix.family, prefix.length, prefix.bits | (IPV4_MAPPED if prefix.family == 4 else 0))
        for prefix in parse_address(text)
    )


def _selected(rules: Numbered) -> dict[tuple[Direction, Family], int]:
    """Rules for packets of a direction and a family."""
    return {
        (direction, family): mask(
            number
            for number, rule in rules
            if rule.direction in (direction, Direction.INOUT) and rule.family in (family, Family.BOTH)
        )
        for direction in (Direction.IN, Direction.OUT)
        for family in _FAMILIES
    }


_FAMILIES: Final = (Family.IPV4, Family.IPV6)


def _sweep(
    rules: Numbered, points_of: Callable[[Rule], Iterable[tuple[int, int]] | None], start: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """Walk over all points from `start` to before `end`; at each boundary the rules that begin or end there
    are toggled. A rule without points has them all."""
    every: list[int] = []
    toggles: dict[int, list[int]] = defaultdict(list)
    for number, rule in rules:
        ranges = points_of(rule)
        if ranges is None:
            every.append(number)
            continue
        for first, last in _disjoint(ranges):
            toggles[first].append(number)
            toggles[last + 1].append(number)
    row, first = mask(every), start
    for point in sorted(toggles.keys() - {end}):
        if point > first:
            yield first, point - 1, row
        row ^= mask(toggles[point])
        first = point
    yield first, end - 1, row


def _points(rule: Rule) -> list[tuple[int, int]] | None:
    if rule.services is None:
        return None
    return [points for service in rule.services for points in points_of(service)]


def _source_points(rule: Rule) -> list[tuple[int, int]] | None:
    ports = rule.source_ports()
    return [(POINTS_SOURCE + low, POINTS_SOURCE + high) for low, high in ports] if ports else None


def _ethertypes(rule: Rule) -> list[tuple[int, int]] | None:
    if rule.frames is None or rule.frames.ethertypes is None:
        return None
    return [(POINTS_ETHERTYPE + ethertype,) * 2 for ethertype in rule.frames.ethertypes]


def _vlans(rule: Rule) -> list[tuple[int, int]]:
    vlans = rule.frames.vlans if rule.frames else ()
    return [(POINTS_VLAN + low, POINTS_VLAN + high) for low, high in vlans or ((UNTAGGED, UNTAGGED),)]


def points_of(service: Service) -> tuple[tuple[int, int], ...]:
    """The ranges of service points a service covers."""
    if service.protocol in (TCP, UDP):
        base = POINTS_TCP if service.protocol == TCP else POINTS_UDP
        return tuple((base + low, base + high) for low, high in service.ports or ((0, 65535),))
    if service.protocol in (ICMP, ICMPV6):
        base = POINTS_ICMP if service.protocol == ICMP else POINTS_ICMPV6
        if service.icmp_type is None:
            return ((base, base + 65535),)
        first = base + (service.icmp_type << 8)
        if service.icmp_code is None:
            return ((first, first + 255),)
        return ((first + service.icmp_code, first + service.icmp_code),)
    return ((POINTS_PROTOCOL + service.protocol, POINTS_PROTOCOL + service.protocol),)


def _disjoint(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same points in ranges with others between: a rule toggles once at each boundary."""
    disjoint: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if disjoint and first <= disjoint[-1][1] + 1:
            first, last = disjoint[-1][0], max(last, disjoint[-1][1])
            disjoint[-1] = (first, last)
        else:
            disjoint.append((first, last))
    return disjoint
