"""Where in a flow table the flows of a round belong: those that are there are written over, those that have
ended leave, and new ones get the place that find_room() of bpf/flows.c would give them. Pure, on arrays.

For rounds of a few hundred flows among ten thousand, while the VM that they belong to waits."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vsfwd.migration.state import KEY, Array

FEW: Final = 512
"""New flows at most: they get their places one by one."""
_Numbers = npt.NDArray[np.int64]
_At = tuple[_Numbers, _Numbers]
"""Buckets and ways."""
_Hashed = tuple[Array, npt.NDArray[np.uint64]]
"""Keys, and what flow_hash() of bpf/classify.h makes of each."""


@dataclass(frozen=True)
class Changes:
    """Where the flows of the round go, which places are free then, and how many flows there are more."""

    put: _At
    free: _At
    more: int


def changes(table: Array, come: _Hashed, gone: _Hashed) -> Changes | None:
    """None: too many are new, or one finds no place."""
    bucket, way = _where(table, *come)
    new = np.flatnonzero(bucket < 0)
    if len(new) > FEW:
        return None
    ended = _where(table, *gone)
    free = ended[0][ended[0] >= 0], ended[1][ended[0] >= 0]
    before = table["check"] != 0
    used = before.copy()
    used[free] = False
    used[bucket[bucket >= 0], way[bucket >= 0]] = True  # one may have ended, and begun anew
    for number, *wanted in zip(new, *candidates(come[1][new], len(table)), strict=True):
        emptier = min(wanted, key=lambda each: int(used[each].sum()))
        if used[emptier].all():
            return None
        bucket[number], way[number] = emptier, used[emptier].argmin()
        used[emptier, way[number]] = True
    return Changes((bucket, way), free, int(used.sum()) - int(before.sum()))


def _where(table: Array, keys: Array, hashes: npt.NDArray[np.uint64]) -> _At:
    """-1 of those that are not there."""
    bucket, way = np.full(len(keys), -1), np.full(len(keys), -1)
    for buckets in candidates(hashes, len(table)):
        flow, found = np.nonzero(table["check"][buckets] == (hashes | np.uint64(1))[:, None])
        same = names(table["place"]["key"][buckets[flow], found]) == names(keys[flow])
        bucket[flow[same]], way[flow[same]] = buckets[flow[same]], found[same]
    return bucket, way


def candidates(hashes: npt.NDArray[np.uint64], buckets: int) -> tuple[_Numbers, _Numbers]:
    """The two buckets of each flow."""
    mask, size = np.uint64(0xFFFF), np.uint64(buckets)
    first = ((hashes >> np.uint64(32) & mask) * size >> np.uint64(16)).astype(np.int64)
    second = ((hashes >> np.uint64(48)) * size >> np.uint64(16)).astype(np.int64)
    return first, second


def names(keys: Array) -> npt.NDArray[np.bytes_]:
    """Keys as values that can be compared and sorted. All are of one length, so the zeros numpy does not see
    at the end are equal."""
    return np.ascontiguousarray(keys).view(f"S{KEY.itemsize}")
