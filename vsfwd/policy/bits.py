"""Rules as bits: which rules name a group, a prefix, a service, a direction, a family.

Rules stand in the order they are tried; bit r of every mask is rule r, so the lowest bit of an intersection
is the first match. This module knows rules only; who is a member of what is `compile`'s matter."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from vsfwd.image import (
    POINTS,
    POINTS_ICMP,
    POINTS_ICMPV6,
    POINTS_PROTOCOL,
    POINTS_TCP,
    POINTS_UDP,
    PrefixKey,
    RuleEntry,
)
from vsfwd.policy.model import ICMP, ICMPV6, TCP, UDP, Direction, Family, Rule, Service, parse_address

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


def union(all_hits: Iterable[Hits]) -> Hits:
    source = not_source = destination = not_destination = scope = 0
    for hits in all_hits:
        source |= hits.source
        not_source |= hits.not_source
        destination |= hits.destination
        not_destination |= hits.not_destination
        scope |= hits.scope
    return Hits(source, not_source, destination, not_destination, scope)


@dataclass(frozen=True)
class RuleBits:
    """`groups` and `prefixes`: rules by what they name. `unnamed`: rules that need no name to match; any
    source, any destination, no scope, and in the `not_` fields every rule that excludes."""

    entries: tuple[RuleEntry, ...]
    groups: Mapping[str, Hits]
    prefixes: Mapping[PrefixKey, Hits]
    unnamed: Hits
    selected: Mapping[tuple[Direction, Family], int]
    services: tuple[tuple[int, int, int], ...]
    """(first point, last point, rules), covering all points once."""

    def source_row(self, hits: Hits) -> int:
        """Rules whose sources an address with these hits matches."""
        return self.unnamed.source | hits.source | (self.unnamed.not_source & ~hits.not_source)

    def destination_row(self, hits: Hits) -> int:
        return (
            self.unnamed.destination
            | hits.destination
            | (self.unnamed.not_destination & ~hits.not_destination)
        )


def rule_bits(rules: Mapping[int, Rule]) -> RuleBits:
    ordered = sorted(rules.items(), key=lambda item: (item[1].order, item[0]))
    unnamed = [0] * len(NO_HITS)
    groups: dict[str, list[int]] = defaultdict(lambda: [0] * len(NO_HITS))
    prefixes: dict[PrefixKey, list[int]] = defaultdict(lambda: [0] * len(NO_HITS))
    source, not_source, destination, not_destination, scope = range(len(NO_HITS))
    for number, (_, rule) in enumerate(ordered):
        bit = 1 << number
        for match, role, not_role in (
            (rule.sources, source, not_source),
            (rule.destinations, destination, not_destination),
        ):
            if match is None:
                unnamed[role] |= bit
                continue
            if match.excluded:
                role = not_role
                unnamed[role] |= bit
            for group in match.groups:
                groups[group][role] |= bit
            for text in match.addresses:
                for prefix in prefixes_of(text):
                    prefixes[prefix][role] |= bit
        if rule.scope is None:
            unnamed[scope] |= bit
        for group in rule.scope or ():
            groups[group][scope] |= bit
    in_order = [rule for _, rule in ordered]
    return RuleBits(
        entries=tuple(
            RuleEntry(id, rule.action, rule.logged, rule.tracking, rule.existing_flows)
            for id, rule in ordered
        ),
        groups={name: Hits(*masks) for name, masks in groups.items()},
        prefixes={prefix: Hits(*masks) for prefix, masks in prefixes.items()},
        unnamed=Hits(*unnamed),
        selected=_selected(in_order),
        services=tuple(_sweep(in_order)),
    )


def prefixes_of(text: str) -> tuple[PrefixKey, ...]:
    """The prefixes an address text of the policy stands for, as the image writes them."""
    return tuple(
        PrefixKey(prefix.family, prefix.length, prefix.bits | (IPV4_MAPPED if prefix.family == 4 else 0))
        for prefix in parse_address(text)
    )


def _selected(rules: list[Rule]) -> dict[tuple[Direction, Family], int]:
    """Rules for packets of a direction and a family."""
    selected = {(direction, family): 0 for direction in (Direction.IN, Direction.OUT) for family in _FAMILIES}
    for number, rule in enumerate(rules):
        bit = 1 << number
        for direction, family in selected:
            if rule.direction in (direction, Direction.INOUT) and rule.family in (family, Family.BOTH):
                selected[direction, family] |= bit
    return selected


_FAMILIES: Final = (Family.IPV4, Family.IPV6)


def _sweep(rules: list[Rule]) -> Iterator[tuple[int, int, int]]:
    """Walk over all service points; at each boundary the rules that begin or end there are toggled."""
    every = 0
    toggles: dict[int, int] = defaultdict(int)
    for number, rule in enumerate(rules):
        bit = 1 << number
        if rule.services is None:
            every |= bit
            continue
        for first, last in _disjoint(points_of(service) for service in rule.services):
            toggles[first] ^= bit
            toggles[last + 1] ^= bit
    row, first = every, 0
    for point in sorted(toggles):
        if not toggles[point] or point == POINTS:
            continue
        if point > first:
            yield first, point - 1, row
        row ^= toggles[point]
        first = point
    yield first, POINTS - 1, row


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


def _disjoint(services: Iterable[tuple[tuple[int, int], ...]]) -> list[tuple[int, int]]:
    """The same points in ranges that do not overlap: a rule toggles once at each boundary."""
    disjoint: list[tuple[int, int]] = []
    for first, last in sorted(points for service in services for points in service):
        if disjoint and first <= disjoint[-1][1]:
            first, last = disjoint[-1][0], max(last, disjoint[-1][1])
            disjoint[-1] = (first, last)
        else:
            disjoint.append((first, last))
    return disjoint
