"""Which rules have a corner of what another one matches: if none has, the others leave something of it, and
need not be looked at one by one. Masks have one bit a rule; all rules are asked of one field at once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

from manager_stub.covering.boxes import Box, Part, minus
from manager_stub.covering.fields import Ranges, mask_of, merged

Corner = tuple[list[object], tuple[Ranges, ...]]
"""With what there is in all, as of its box."""


def corners(boxes: Sequence[Box]) -> list[Corner]:
    """One at either end; of each field a name, or a number."""
    if not boxes:
        return []
    first, last = boxes[0], boxes[-1]
    lowest = [min(part.names, key=repr) if part.names else part.ranges[0][0] for part in first.parts]
    highest = [part.ranges[-1][1] if part.ranges else max(part.names, key=repr) for part in last.parts]
    return [(lowest, first.whole), (highest, last.whole)]


def holding(covers: Sequence[list[tuple[Part, ...]]], asked: Sequence[list[Corner]]) -> list[list[int]]:
    masks = [[(1 << len(covers)) - 1] * len(each) for each in asked]
    for number in range(next((len(cover[0]) for cover in covers if cover), 0)):
        field = _Field([_union(parts[number] for parts in cover) for cover in covers])
        field.look({corner[number] for each in asked for corner, _ in each})
        for mine, each in zip(masks, asked, strict=True):
            for which, (corner, whole) in enumerate(each):
                mine[which] &= field.having(corner[number], whole[number])
    return masks


def _union(parts: Iterable[Part]) -> Part:
    every = list(parts)
    if len(every) == 1:
        return every[0]
    names = frozenset[object]().union(*(part.names for part in every))
    return Part(names, merged([span for part in every for span in part.ranges]))


class _Field:
    """One field of all rules."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._named = defaultdict[object, int](int)
        for place, part in enumerate(parts):
            for name in part.names:
                self._named[name] |= 1 << place
        self._numbered: dict[object, int] = {}
        self._all: dict[tuple[tuple[int, int], ...], int] = {}

    def look(self, asked: Set[object]) -> None:
        """Which rules have a number: from the lowest up, past the ends of their ranges."""
        ends = sorted(
            (end, 1 << place)
            for place, part in enumerate(self._parts)
            for low, high in part.ranges
            for end in (low, high + 1)
        )
        having = passed = 0
        for number in sorted(each for each in asked if isinstance(each, int)):
            while passed < len(ends) and ends[passed][0] <= number:
                having ^= ends[passed][1]
                passed += 1
            self._numbered[number] = having

    def having(self, asked: object, whole: Ranges) -> int:
        if isinstance(asked, int):
            return self._numbered[asked]
        key = tuple(whole)
        if key not in self._all:
            every = (place for place, part in enumerate(self._parts) if not minus(whole, part.ranges))
            self._all[key] = mask_of(every)
        return self._named[asked] | self._all[key]
