"""What rules match, as boxes: a part for each field, of names that stand for whoever is in a group, and of
ranges of numbers (addresses, ports, directions); and what is left of a box when another is taken from it.
Ranges are cut where others begin, names are whole, so what is left holds whoever is a member of what."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Final, NamedTuple

from manager_stub.covering.fields import UNTAGGED, Ranges, Sets, merged
from manager_stub.covering.fields import numbers as numbers_of
from vsfwd.policy.model import ICMP, ICMPV6, Direction, Family, Match, Rule, parse_address

_IPV6: Final = 1 << 32
"""Where its addresses begin, behind those of IPv4."""
_ADDRESSES: Final = {4: [(0, _IPV6 - 1)], 6: [(_IPV6, _IPV6 + 2**128 - 1)]}
_EVERY_ADDRESS: Final = [(0, _IPV6 + 2**128 - 1)]
_EVERY_VNIC: Final = [(-1, _IPV6 + 2**128 - 1)]
"""Those without an address, too."""
_EVERYBODY: Final = [(0, 0)]
"""Of whom nothing but groups is known."""
_NUMBERS: Final = [(0, (1 << 24) - 1)]
_PORTS: Final = [(0, 0xFFFF)]
_WAYS: Final = {Direction.IN: [(0, 0)], Direction.OUT: [(1, 1)], Direction.INOUT: [(0, 1)]}
_FAMILIES: Final = {Family.IPV4: [(4, 4)], Family.IPV6: [(6, 6)], Family.BOTH: [(4, 4), (6, 6)]}
_FOREIGN: Final = {4: [(ICMPV6 << 16, (ICMPV6 << 16) + 0xFFFF)], 6: [(ICMP << 16, (ICMP << 16) + 0xFFFF)]}
"""What is dropped before any rule."""


_NOBODY: Final = frozenset[object]()


class Part(NamedTuple):
    """What a rule says in one field."""

    names: frozenset[object]
    ranges: Ranges


class Box(NamedTuple):
    """`whole`: for each field all that there is, so that who has that has every name."""

    parts: tuple[Part, ...]
    whole: tuple[Ranges, ...]


class Words:
    """Rules as boxes, with fields in this order: direction, scope, source, destination; then ethertype and
    VLAN, or family, number and source port. As what is asked about a group that only lists addresses is
    those; as what covers a group is all that is known to be in it."""

    def __init__(self, sets: Sets, ethernet: bool) -> None:
        self._sets, self._ethernet = sets, ethernet
        self._narrower = defaultdict[str, set[object]](set)
        for group, wider in sets.wider.items():
            for each in wider:
                self._narrower[each].add(group)

    def asked(self, rule: Rule) -> list[Box]:
        ends = self._ends(rule, self._asked)
        if rule.frames:
            everything = (_WAYS[Direction.INOUT], _EVERY_VNIC, _EVERYBODY, _EVERYBODY, _PORTS, _PORTS)
            return _possible([Box((*ends, *_frames(rule)), everything)])
        found: list[Box] = []
        for (family, _), (numbers, ports) in product(_FAMILIES[rule.family], _services(rule)):
            here, same = _ADDRESSES[family], [(family, family)]
            source, destination = (Part(each.names, _both(each.ranges, here)) for each in ends[2:])
            numbers = minus(numbers, _FOREIGN[family])
            parts = (*ends[:2], source, destination, _plain(same), _plain(numbers), _plain(ports))
            whole = (_WAYS[Direction.INOUT], _EVERY_VNIC, here, here, same, _NUMBERS, _PORTS)
            found.append(Box(parts, whole))
        return _possible(found)

    def covering(self, rule: Rule) -> list[tuple[Part, ...]]:
        ends = self._ends(rule, self._known)
        if rule.frames:
            return [(*ends, *_frames(rule))]
        family = _plain(_FAMILIES[rule.family])
        return [(*ends, family, _plain(numbers), _plain(ports)) for numbers, ports in _services(rule)]

    def _ends(self, rule: Rule, part: Callable[[Match, bool], Part]) -> tuple[Part, ...]:
        lists = not self._ethernet
        every = _EVERY_ADDRESS if lists else _EVERYBODY
        scope = _plain(_EVERY_VNIC) if rule.scope is None else part(Match(rule.scope), True)
        ends = (
            _plain(every) if end is None else part(end, lists) for end in (rule.sources, rule.destinations)
        )
        return (_plain(_WAYS[rule.direction]), scope, *ends)

    def _asked(self, match: Match, lists: bool) -> Part:
        """`lists`: whether addresses say anything."""
        if match.excluded:
            return _excluding(match)
        listing = {group for group in match.groups if lists and group in self._sets.literal}
        return Part(frozenset(match.groups) - listing, self._ranges(match, listing))

    def _known(self, match: Match, lists: bool) -> Part:
        if match.excluded:
            return _excluding(match)
        names = frozenset[object](match.groups).union(*(self._narrower[group] for group in match.groups))
        return Part(names, self._ranges(match, match.groups if lists else ()))

    def _ranges(self, match: Match, groups: Iterable[str]) -> Ranges:
        listed = (text for group in groups for text in self._sets.groups[group].addresses)
        return merged([span for text in (*match.addresses, *listed) for span in _span(text)])


def _span(text: str) -> Iterator[tuple[int, int]]:
    for prefix in parse_address(text):
        low = prefix.bits + (_IPV6 if prefix.family == 6 else 0)
        yield low, low + (1 << (32 if prefix.family == 4 else 128) - prefix.length) - 1


def _excluding(match: Match) -> Part:
    return Part(frozenset({("not", frozenset(match.groups), frozenset(match.addresses))}), [])


def _plain(ranges: Ranges) -> Part:
    return Part(_NOBODY, ranges)


def _frames(rule: Rule) -> tuple[Part, Part]:
    types, vlans = (rule.frames.ethertypes, rule.frames.vlans) if rule.frames else (None, ())
    types_ = _PORTS if types is None else merged([(each, each) for each in types])
    return _plain(types_), _plain(merged([*vlans]) if vlans else [(UNTAGGED, UNTAGGED)])


def _services(rule: Rule) -> list[tuple[Ranges, Ranges]]:
    """Numbers as of `fields.numbers`, and source ports."""
    if rule.services is None:
        return [(_NUMBERS, _PORTS)]
    numbers = defaultdict[tuple[tuple[int, int], ...], Ranges](list)
    for service in rule.services:
        numbers[service.source_ports] += numbers_of(service)
    return [(merged(each), merged([*ports]) or _PORTS) for ports, each in numbers.items()]


def _possible(boxes: Iterable[Box]) -> list[Box]:
    return [box for box in boxes if all(part.names or part.ranges for part in box.parts)]


def without(box: Box, cover: Sequence[tuple[Part, ...]]) -> list[Box]:
    """What of a box no part of the cover has."""
    left = [box]
    for parts in cover:
        left = [piece for each in left for piece in _cut(each, parts)]
    return left


def _cut(box: Box, cover: tuple[Part, ...]) -> list[Box]:
    """The box itself where the cover has nothing of it."""
    inside = list[Part]()
    for part, other, whole in zip(box.parts, cover, box.whole, strict=True):
        ranges = part.ranges if part.ranges == other.ranges else _both(part.ranges, other.ranges)
        names = part.names and (part.names if not minus(whole, other.ranges) else part.names & other.names)
        if not names and not ranges:
            return [box]
        inside.append(Part(names, ranges))
    pieces = list[Box]()
    for place, (part, has) in enumerate(zip(box.parts, inside, strict=True)):
        rest = Part(part.names - has.names, minus(part.ranges, has.ranges))
        if rest.names or rest.ranges:
            pieces.append(Box((*inside[:place], rest, *box.parts[place + 1 :]), box.whole))
    return pieces


def _both(ranges: Ranges, others: Ranges) -> Ranges:
    found: Ranges = []
    place = other = 0
    while place < len(ranges) and other < len(others):
        low, high = max(ranges[place][0], others[other][0]), min(ranges[place][1], others[other][1])
        if low <= high:
            found.append((low, high))
        if ranges[place][1] < others[other][1]:
            place += 1
        else:
            other += 1
    return found


def minus(ranges: Ranges, others: Ranges) -> Ranges:
    found: Ranges = []
    first = 0
    for low, high in ranges:
        while first < len(others) and others[first][1] < low:
            first += 1
        for from_, to in islice(others, first, None):
            if from_ > high:
                break
            if from_ > low:
                found.append((low, from_ - 1))
            low = to + 1
        if low <= high:
            found.append((low, high))
    return found
