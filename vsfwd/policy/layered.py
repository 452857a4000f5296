"""Mappings that follow each other, of which each is the one before but for a few keys.

A policy knows fifty thousand vNICs, and one of them changes. A copy of everything would cost more than all
that follows from the change, and so would looking for what is different. So a mapping that differs little
from one that was there keeps that one, with what is otherwise on top of it; and two that lie on the same one
differ at most where something is on top. Nothing here is ever changed once it is made. Pure."""

from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import compress
from operator import is_not
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST_ON_TOP: Final = 256
"""Beyond it, and beyond what lies below, all is copied once: what is on top is looked through with each
change."""


class Gone(Enum):
    """In the place of a value: there is none any more."""

    GONE = "gone"


GONE: Final = Gone.GONE


class Layered(Mapping[K, V]):
    """`base` but for what is on `top`."""

    __slots__ = ("_length", "base", "top")

    def __init__(self, base: Mapping[K, V], top: Mapping[K, V | Gone]) -> None:
        self.base, self.top = base, top
        self._length = len(base) + sum((value is not GONE) - (key in base) for key, value in top.items())

    def __getitem__(self, key: K) -> V:
        value = self.top[key] if key in self.top else self.base[key]
        if value is GONE:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self.base if key not in self.top)
        yield from (key for key, value in self.top.items() if value is not GONE)

    def __len__(self) -> int:
        return self._length


def changed(before: Mapping[K, V], edits: Mapping[K, V | Gone]) -> Mapping[K, V]:
    """A mapping with these keys put or gone; the same one where it says that already."""
    news = {key: value for key, value in edits.items() if before.get(key, GONE) != value}
    if not news:
        return before
    base, top = _layers(before)
    after = Layered(base, {**top, **news})
    return after if len(after.top) <= min(MOST_ON_TOP, len(base)) else whole(after)


def whole(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """The same in one layer, for who looks at all of it."""
    base, top = _layers(mapping)
    if not top:
        return mapping
    there = dict(base)
    for key, value in top.items():
        if value is GONE:
            there.pop(key, None)
        else:
            there[key] = value
    return there


def different(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """Keys whose value is another object."""
    if before is after:
        return set()
    (base, old), (other, new) = _layers(before), _layers(after)
    if base is other:
        keys = {key for key, value in new.items() if old.get(key, base.get(key, GONE)) is not value}
        keys.update(key for key, value in old.items() if key not in new and base.get(key, GONE) is not value)
        return keys
    before, after = whole(before), whole(after)
    # In C, since there may be fifty thousand.
    keys = set(compress(after, map(is_not, after.values(), map(before.get, after))))
    added = sum(key not in before for key in keys)
    return keys if len(before) + added == len(after) else keys | (before.keys() - after.keys())


def _layers(mapping: Mapping[K, V]) -> tuple[Mapping[K, V], Mapping[K, V | Gone]]:
    return (mapping.base, mapping.top) if isinstance(mapping, Layered) else (mapping, {})
