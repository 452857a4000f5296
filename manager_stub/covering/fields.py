"""Which rules match whatever another one matches: those that do field by field. Masks have one bit a rule,
and each different value of a field is looked at once: ten thousand rules take seconds, not their square."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import accumulate
from operator import and_, or_
from typing import Final, TypeVar

from msgspec import structs

from vsfwd.policy.model import (
    Direction,
    Family,
    Group,
    Match,
    Rule,
    Service,
    parse_address,
)

T = TypeVar("T")
Ranges = list[tuple[int, int]]
UNTAGGED: Final = 4096
"""Beside the VLAN ids."""
REMEMBERED_SPANS: Final = 4096
BLOCK: Final = 1024
_WIDTHS: Final = {4: 32, 6: 128}


@dataclass(frozen=True)
class Sets:
    """What is known of groups whoever their members are. `wider`: groups that have all that a group has;
    `literal`: groups that have nothing but the addresses they list."""

    groups: Mapping[str, Group]
    wider: Mapping[str, Set[str]] = field(default_factory=dict)
    literal: Set[str] = frozenset()


def covering(rules: Sequence[Rule], sets: Sets, ethernet: bool) -> list[int]:
    """For each place the rules that match all that the one there matches, itself among them. All of them are
    Ethernet rules, or none."""
    fields = [
        _of_matches([rule.sources for rule in rules], sets, ethernet),
        _of_matches([rule.destinations for rule in rules], sets, ethernet),
        _of_matches([None if rule.scope is None else Match(rule.scope) for rule in rules], sets),
        _of_values([rule.direction for rule in rules], Direction.INOUT),
        _of_values([rule.family for rule in rules], Family.BOTH),
    ]
    if ethernet:
        frames = [rule.frames for rule in rules if rule.frames]
        types = [each.ethertypes for each in frames]
        fields.append(_of_ranges([None if each is None else [(n, n) for n in each] for each in types]))
        fields.append(_of_ranges([[*each.vlans] or [(UNTAGGED, UNTAGGED)] for each in frames]))
    else:
        fields.append(_of_services([rule.services for rule in rules]))
    return [reduce(and_, masks) for masks in zip(*fields, strict=True)]


# By field: a list of masks, for each place that of the rules whose field has all that the one there has.


def _of_values(values: Sequence[T], both: T) -> list[int]:
    masks = by_value(values)
    return [masks[value] | masks.get(both, 0) for value in values]


def _of_matches(matches: Sequence[Match | None], sets: Sets, ethernet: bool = False) -> list[int]:
    every = by_value(matches)
    naming, known = _Naming(every, sets, ethernet), dict[Match | None, int]()
    for match in every:
        known[match] = naming.covering(match)
    return [known[match] for match in matches]


class _Naming:
    """Rules by what they name, but for those that exclude it. Addresses mean nothing to Ethernet rules."""

    def __init__(self, every: Mapping[Match | None, int], sets: Sets, ethernet: bool) -> None:
        self._sets, self._ethernet = sets, ethernet
        self._any = every.get(None, 0)
        self._excluding = defaultdict[object, int](int)
        self._groups = defaultdict[str, int](int)
        self._prefixes = defaultdict[tuple[int, int, int], int](int)
        for match, mask in every.items():
            if match is None:
                continue
            if match.excluded:
                self._excluding[_canonical(match)] |= mask
                continue
            for group in match.groups:
                self._groups[group] |= mask
            for text in match.addresses:
                self._list(text, mask)
        for group, mask in self._groups.items() if not ethernet else ():
            for text in sets.groups[group].addresses:
                self._list(text, mask)
        self._lengths = {family: {key[1] for key in self._prefixes if key[0] == family} for family in _WIDTHS}

    def _list(self, text: str, mask: int) -> None:
        for prefix in parse_address(text):
            self._prefixes[prefix.family, prefix.length, prefix.bits] |= mask

    def covering(self, match: Match | None) -> int:
        if match is None:
            return self._any
        if match.excluded:
            return self._any | self._excluding[_canonical(match)]
        parts = [*map(self._of_group, match.groups), *map(self._of_address, match.addresses)]
        return self._any | (reduce(and_, parts) if parts else 0)

    def _of_group(self, group: str) -> int:
        names = (group, *self._sets.wider.get(group, ()))
        found = reduce(or_, (self._groups.get(name, 0) for name in names))
        listed = self._sets.groups[group].addresses
        if group in self._sets.literal and listed and not self._ethernet:
            found |= reduce(and_, map(self._of_address, listed))
        return found

    def _of_address(self, text: str) -> int:
        return reduce(and_, (self._of_prefix(p.family, p.length, p.bits) for p in parse_address(text)))

    def _of_prefix(self, family: int, length: int, bits: int) -> int:
        found, width = 0, _WIDTHS[family]
        for shorter in self._lengths[family]:
            if shorter <= length:
                host = width - shorter
                found |= self._prefixes.get((family, shorter, bits >> host << host), 0)
        return found


def _canonical(match: Match) -> object:
    return frozenset(match.groups), frozenset(match.addresses)


def _of_ranges(fields: Sequence[Ranges | None]) -> list[int]:
    spans = _Spans(fields)
    return [spans.covering(each) for each in fields]


def _of_services(services: Sequence[tuple[Service, ...] | None]) -> list[int]:
    """A service with source ports is covered by one without, or by the same."""

    def points(each: tuple[Service, ...] | None) -> Ranges | None:
        plain = (service for service in each or () if not service.source_ports)
        return None if each is None else [span for service in plain for span in numbers(service)]

    spans, same = _Spans([*map(points, services)]), defaultdict[Service, int](int)
    for place, each in enumerate(services):
        for service in each or ():
            if service.source_ports:
                same[_without_alg(service)] |= 1 << place

    def covering(each: tuple[Service, ...] | None) -> int:
        from_ports = [service for service in each or () if service.source_ports]
        parts = [spans.covering(numbers(service)) | same[_without_alg(service)] for service in from_ports]
        if plain := points(each):
            parts.append(spans.covering(plain))
        return spans.any | (reduce(and_, parts) if parts else 0)

    return [covering(each) for each in services]


class _Spans:
    """Rules by ranges of numbers. `any`: those of None, which is every number."""

    def __init__(self, fields: Sequence[Ranges | None]) -> None:
        self.any = mask_of(place for place, each in enumerate(fields) if each is None)
        self._single = defaultdict[int, int](int)
        wide = defaultdict[tuple[int, int], int](int)
        for place, each in enumerate(fields):
            for low, high in merged(each or []):
                if low == high:
                    self._single[low] |= 1 << place
                else:
                    wide[low, high] |= 1 << place
        self._wide = sorted((low, high, mask) for (low, high), mask in wide.items())
        self._lows = [low for low, _, _ in self._wide]
        self._blocks = [_Block(self._wide[n : n + BLOCK]) for n in range(0, len(self._wide), BLOCK)]
        self._span = lru_cache(maxsize=REMEMBERED_SPANS)(self._of_span)

    def covering(self, ranges: Ranges | None) -> int:
        spans = merged(ranges or [])
        return self.any | (reduce(and_, (self._span(*span) for span in spans)) if spans else 0)

    def _of_span(self, low: int, high: int) -> int:
        begun = bisect_right(self._lows, low)
        full = begun // BLOCK
        found = reduce(or_, (block.reaching(high) for block in self._blocks[:full]), 0)
        rest = self._wide[full * BLOCK : begun]
        found = reduce(or_, (mask for _, end, mask in rest if end >= high), found)
        return found | self._single[low] if low == high else found


class _Block:
    """Ranges that begin near each other: the masks of those that reach a number, however many they are."""

    def __init__(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        by_end = sorted((high, mask) for _, high, mask in ranges)
        self._ends = [high for high, _ in by_end]
        self._masks = [*accumulate((mask for _, mask in reversed(by_end)), or_, initial=0)]

    def reaching(self, number: int) -> int:
        return self._masks[len(self._ends) - bisect_left(self._ends, number)]


def merged(ranges: Ranges) -> Ranges:
    """The same numbers in as few ranges as can be."""
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def numbers(service: Service) -> Ranges:
    """What the service is about behind the protocol, as numbers of which each protocol has 65,536."""
    base = service.protocol << 16
    if service.ports:
        return [(base + low, base + high) for low, high in service.ports]
    if service.icmp_type is None:
        return [(base, base + 0xFFFF)]
    first = base + (service.icmp_type << 8)
    return [(first, first + 255)] if service.icmp_code is None else [(first + service.icmp_code,) * 2]


def _without_alg(service: Service) -> Service:
    return structs.replace(service, alg=None)


def by_value(values: Iterable[T]) -> dict[T, int]:
    masks: dict[T, int] = {}
    for place, value in enumerate(values):
        masks[value] = masks.get(value, 0) | 1 << place
    return masks


def mask_of(places: Iterable[int]) -> int:
    return reduce(or_, (1 << place for place in places), 0)
