"""Copies a flow table into one of other structs, while the programs of both are running.

Twice: before a vNIC has our programs, and after, for what has begun meanwhile or is in another state. What
our programs have written by then is newer, and stays. Sequence numbers move all the time, and of those that
were copied some are always too old; a connection that waits for a segment which has passed already never goes
on. So the sides of an open one are copied as those of one that is picked up in the middle (bpf/conntrack.h),
and learned anew from what it says next."""

import mmap
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsfwd.datapath import bpf
from vsfwd.datapath.amendment import candidates
from vsfwd.datapath.conntrack import FlowTables
from vsfwd.datapath.flowstate import FlowStates, dtype, spread
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import Layout, State
from vsfwd.migration.state import Array

_TCP: Final = 6
_OPEN: Final = (State["ESTABLISHED"], State["FIN_WAIT"])
"""From the one to the other a side may be picked up."""


class FlowCopy:
    """Of one vNIC. `theirs` is a descriptor of its table of before, which is closed in the end."""

    def __init__(
        self,
        programs: Programs,
        tables: FlowTables,
        states: FlowStates,
        slot: int,
        theirs: int,
        bucket: Layout,
    ) -> None:
        self._tables, self._states, self._slot, self._theirs = tables, states, slot, theirs
        self._jiffies = programs.jiffies
        self._from, self._to = dtype(bucket), dtype(programs.layouts("flows")[1])
        self._place = self._to["place"].base

    def agrees(self) -> bool:
        """Whether its flows lie where ours would."""
        checks, places = self._live()
        return bool((self._checks(places) == checks).all())

    def begin(self) -> None:
        """All there are, before our programs come: as shortly as it can be."""
        _, self._begun = self._live()
        buckets = bpf.shape_of(self._theirs).entries
        self._known = self._checks(self._begun)
        self._bucket, self._way = spread(self._known, buckets, self._begun["flow"]["answered"])
        housed = self._bucket >= 0
        table = np.zeros(buckets, self._to)
        table["place"][self._bucket[housed], self._way[housed]] = self._begun[housed]
        table["check"][self._bucket[housed], self._way[housed]] = self._known[housed]
        self._tables.put(self._slot, table.tobytes())

    def end(self) -> None:
        """What has moved meanwhile, now that our programs are there."""
        _, places = self._live()
        checks = self._checks(places)
        table = self._table()
        known = np.zeros(len(checks), bool)
        if len(self._known):
            order = np.argsort(self._known)
            found = order[np.searchsorted(self._known[order], checks).clip(max=len(order) - 1)]
            known = (self._known[found] == checks) & (self._bucket[found] >= 0)
            at = self._bucket[found], self._way[found]
            untouched = (_bytes(table["place"][at]) == _bytes(self._begun[found])).all(axis=1)
            moved = known & untouched & (places["flow"]["state"] != self._begun["flow"]["state"][found])
            table["place"][at[0][moved], at[1][moved]] = places[moved]
        for check, place in zip(checks[~known], places[~known], strict=True):
            _add(table, check, place)

    def close(self) -> None:
        os.close(self._theirs)

    def _live(self) -> tuple[npt.NDArray[np.uint64], Array]:
        """Checks and places of all flows, in our terms."""
        size = bpf.shape_of(self._theirs).entries * self._from.itemsize
        with mmap.mmap(self._theirs, size, access=mmap.ACCESS_READ) as pages:
            table = np.frombuffer(pages[:], self._from)
        checks, places = table["check"].reshape(-1), table["place"].reshape(-1)
        live = (checks != 0) & (places["flow"]["expires"] > self._jiffies())
        return checks[live], _picked_up(converted(places[live], self._place))

    def _checks(self, places: Array) -> npt.NDArray[np.uint64]:
        hashes = self._states.hashes(np.ascontiguousarray(places["key"]))
        checks: npt.NDArray[np.uint64] = hashes | np.uint64(1)
        return checks

    def _table(self) -> Array:
        """Ours, as it is; who writes into this writes into it."""
        return np.frombuffer(self._tables.mapped(self._slot), self._to)


def _picked_up(places: Array) -> Array:
    flow = places["flow"]
    first, last = _OPEN
    open_ = (places["key"]["protocol"] == _TCP) & (flow["state"] >= first) & (flow["state"] <= last)
    flow["side"]["window"][open_] = 0
    return places


def converted(rows: Array, to: "np.dtype[Any]") -> Array:
    """Fields of one name, as far as both have them."""
    new = np.zeros(rows.shape, to)
    for name in set(to.names or ()) & set(rows.dtype.names or ()):
        part = rows[name]
        if part.shape == new[name].shape:
            new[name] = converted(part, to[name].base) if part.dtype.names else part
    return new


def _bytes(rows: Array) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def _add(table: Array, check: np.uint64, place: Array) -> None:
    """Unless our programs know it. Where there is no room it is as new to them."""
    here = [int(bucket[0]) for bucket in candidates(np.array([check]), len(table))]
    if any((table["check"][bucket] == check).any() for bucket in here):
        return
    for bucket in here:
        (free,) = np.nonzero(table["check"][bucket] == 0)
        if len(free):
            table["place"][bucket, free[0]] = place
            table["check"][bucket, free[0]] = check
            return
