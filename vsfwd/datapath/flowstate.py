"""Flows that change host: out of the table of a vNIC, and into that of another host.

What is in `flows` and `pinholes` in terms of one host (jiffies, counters, places that a secret hash
chooses) becomes what `migration.state` says, and back. Tables are read and made whole, as arrays: a table
is built beside the one that is there and put in its place in one step, so no packet and no crash ever sees
a part of it. Only what the VM waits for is put into the table itself, while nothing passes."""

import mmap
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsfwd.datapath import bpf
from vsfwd.datapath.amendment import Changes, candidates, changes, names
from vsfwd.datapath.conntrack import FlowTables
from vsfwd.datapath.departed import Table
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import Policy
from vsfwd.datapath.schema import ACTIONS, CODES, EXISTING, Layout, State, constant
from vsfwd.migration.state import FLOW, KEY, NO_KEYS, PINHOLE, SIDE, Array

_CUT: Final = EXISTING.index("cut")
_KEEP: Final = EXISTING.index("keep")
_RECHECK: Final = EXISTING.index("recheck")
_ALLOW: Final = ACTIONS.index("allow")
_WAYS: Final = constant("WAYS")
_PINHOLES: Final = constant("PINHOLES")
_STATES: Final = constant("STATES")
_CHUNKS: Final = 16
"""In which flows look for places: those of one take what is emptier after the one before."""
_Numbers = npt.NDArray[np.int64]


class NoRoom(DatapathError):
    """The table here is too small for the flows that come."""


@dataclass
class Round:
    """What was exported last, to know what changes from then on: the table, and which of its places were
    live. Before the first round there is none."""

    table: Array | None = None
    live: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Arrived:
    """Flows and pinholes that have come, with timers that run here."""

    places: Array
    pinholes: Array


@dataclass(frozen=True)
class Amended:
    """What a small round changes in a table, ready to be done, and how many flows are in it then."""

    places: Array
    changes: Changes
    pinholes: Array
    flows: int


@dataclass(frozen=True)
class Built:
    """A table that is ready to be put in its place, and how many flows are in it."""

    table: bytes
    pinholes: Array
    flows: int


class FlowStates:
    """Of every method but `jiffies`: the caller has the apply thread."""

    def __init__(self, programs: Programs, tables: FlowTables, policy: Policy) -> None:
        self._programs = programs
        self._tables = tables
        self._policy = policy
        self._bucket = dtype(programs.layouts("flows")[1])
        self._place = self._bucket["place"].base
        self._pinhole = programs.layouts("pinholes")[1]
        self._rule = dtype(programs.layouts("rules")[1])
        seed = programs.layouts("settings")[1].unpack(
            bpf.lookup(programs.fd("settings"), bytes(4), programs.layouts("settings")[1].size) or b""
        )["seed"]
        self._seeds = np.frombuffer(seed, "<u8")
        self._key, flow = _part(self._place, "key"), _part(self._place, "flow")
        side = _part(self._place["flow"], "side")
        self._side = slice(flow.start + side.start, flow.start + side.stop)
        if (self._key.stop, side.stop - side.start) != (KEY.itemsize, 2 * SIDE.itemsize):
            raise DatapathError("struct flow_key or tcp_side has another size than what VMs take along")

    # ---- out ----

    def export(self, slot: int, since: Round) -> tuple[Array, Array]:
        """Flows that are new or have changed since that round, and the keys of those that are no more.
        `since` becomes this round. What a program is just writing may be seen half done: once the vNIC is
        frozen, nothing is."""
        with bpf.closing(self._tables.held_open(slot)) as inner:
            return self._export(inner, self._policy.seq, since)

    def export_departed(self, table: Table, since: Round) -> tuple[Array, Array]:
        """Of a vNIC that is gone."""
        return self._export(table.fd, table.policy_seq, since)

    def _export(self, inner: int, policy_seq: int, since: Round) -> tuple[Array, Array]:
        table = self._read(inner, self._bucket)
        places, now = table["place"], self._programs.jiffies()
        live = (table["check"] != 0) & (places["flow"]["expires"] > now)
        if since.table is None or since.live is None or len(since.table) != len(table):
            changed, gone = live, NO_KEYS
        else:
            # Few buckets of all: the VM waits for the last round.
            few = (_words(table) != _words(since.table)).any(axis=1) | (live != since.live).any(axis=1)
            is_, was, before = live[few], since.live[few], since.table["place"][few]
            places = places[few]
            differs = (_words(places) != _words(before)).reshape(*is_.shape, self._place.itemsize // 8)
            changed = is_ & (differs.any(axis=2) | ~was)
            moved = differs[:, :, : KEY.itemsize // 8].any(axis=2)
            gone = self._keys(before[was & (~is_ | moved)])
        since.table, since.live = table, live
        return self._flows(places[changed], now, policy_seq), gone

    def pinholes(self, slot: int) -> Array:
        """Those that count under the policy in force."""
        now, found = self._programs.jiffies(), []
        for place in range(slot * _PINHOLES, (slot + 1) * _PINHOLES):
            raw = bpf.lookup(self._programs.fd("pinholes"), struct.pack("<I", place), self._pinhole.size)
            pinhole = self._pinhole.unpack(raw or bytes(self._pinhole.size))
            if pinhole["check"] and pinhole["expires"] > now and pinhole["policy_seq"] == self._seq:
                rule = self._pinhole.parts["rule"].unpack(pinhole["rule"])
                found.append((pinhole["key"], pinhole["expires"] - now, rule["id"], rule["existing"]))
        rows = np.zeros(len(found), PINHOLE)
        for row, (key, left, rule_id, existing) in zip(rows, found, strict=True):
            row["key"] = np.frombuffer(key, KEY)[0]
            row["left_ms"], row["rule"], row["existing"] = left * 1000 // self._programs.hz, rule_id, existing
        return rows

    def _flows(self, places: Array, now: int, policy_seq: int) -> Array:
        flows, flow = np.zeros(len(places), FLOW), places["flow"]
        _bytes(flows)[:, _part(FLOW, "key")] = _bytes(places)[:, self._key]
        _bytes(flows)[:, _part(FLOW, "side")] = _bytes(places)[:, self._side]
        flows["left_ms"] = (
            (flow["expires"] - np.uint64(now)) * np.uint64(1000) // np.uint64(self._programs.hz)
        )
        flows["rule"] = flow["rule_id"]
        flows["stale"] = flow["policy_seq"] != np.uint32(policy_seq & 0xFFFF_FFFF)
        for name in ("state", "initiator", "answered", "existing", "packets", "bytes"):
            flows[name] = flow[name]
        return flows

    # ---- in ----

    def arrived(self, flows: Array, pinholes: Array, *, same_policy: bool) -> Arrived:
        """Their timers go on here from now. Under the same policy as there a flow is not cut for having
        moved."""
        now, hz = self._programs.jiffies(), np.uint64(self._programs.hz)
        places, waiting = np.zeros(len(flows), self._place), pinholes.copy()
        flow = places["flow"]
        _bytes(places)[:, self._key] = _bytes(flows)[:, _part(FLOW, "key")]
        _bytes(places)[:, self._side] = _bytes(flows)[:, _part(FLOW, "side")]
        flow["expires"] = np.uint64(now) + flows["left_ms"] * hz // np.uint64(1000)
        flow["rule_id"] = flows["rule"]
        for name in ("state", "initiator", "answered", "existing", "packets", "bytes"):
            flow[name] = flows[name]
        if same_policy:
            flow["existing"][(flow["existing"] == _CUT) & (flows["stale"] == 0)] = _RECHECK
        waiting["left_ms"] = np.uint64(now) + pinholes["left_ms"] * hz // np.uint64(1000)
        return Arrived(places, waiting if same_policy else waiting[:0])

    def merged(self, before: Arrived, now: Arrived, gone: Array) -> Arrived:
        """What is there after a round more."""
        replaced = np.concatenate((names(self._keys(now.places)), names(gone)))
        kept = before.places[~np.isin(names(self._keys(before.places)), replaced)]
        return Arrived(np.concatenate((kept, now.places)), now.pinholes)

    def build(self, slot: int, arrived: Arrived, *, beside_own: bool = False) -> Built:
        """A table with these flows and no others; `beside_own`: with those that it has, which know better.
        The policy is asked about each at its first packet. Raises NoRoom when flows that have been answered
        have no place; those that have not give way, as they do to new ones."""
        places = self._unasked(slot, arrived.places)
        if beside_own:
            own = self.own(slot)
            foreign = ~np.isin(names(self._keys(places)), names(self._keys(own)))
            places = np.concatenate((own, places[foreign]))
        buckets = self._tables.buckets(slot)
        hashes = self.hashes(self._keys(places))
        bucket, way = spread(hashes, buckets, places["flow"]["answered"])
        homeless = bucket < 0
        if (places["flow"]["answered"][homeless] == 1).any():
            raise NoRoom(
                f"slot {slot} has room for {buckets * _WAYS} flows; of {len(places)} that come, "
                f"{int(homeless.sum())} have none"
            )
        housed = ~homeless
        table = np.zeros((buckets, self._bucket.itemsize // 8), "<u8")
        bucket, way, words = bucket[housed, None], way[housed, None], self._place.itemsize // 8
        table[bucket, _WAYS + way * words + np.arange(words)] = _words(places[housed])
        table[bucket, way] = hashes[housed, None] | np.uint64(1)
        return Built(table.tobytes(), arrived.pinholes, int(housed.sum()))

    def room(self, slot: int) -> int:
        """Places of its table."""
        return self._tables.buckets(slot) * _WAYS

    def put(self, slot: int, built: Built) -> None:
        """In place of what is there. Nothing passes the vNIC meanwhile."""
        self._tables.put(slot, built.table)
        self._open_pinholes(slot, built.pinholes)

    def amended(self, slot: int, flows: int, arrived: Arrived, gone: Array) -> Amended | None:
        """What a round changes in the table of a vNIC that nothing passes, which has so many flows. None: it
        has others by now, or it is less work to build it anew."""
        table = self._mapped(slot)
        if np.count_nonzero(table["check"]) != flows:
            return None
        places = self._unasked(slot, arrived.places)
        keys = self._keys(places)
        found = changes(table, (keys, self.hashes(keys)), (gone, self.hashes(gone)))
        return None if found is None else Amended(places, found, arrived.pinholes, flows + found.more)

    def amend(self, slot: int, amended: Amended) -> None:
        """In the table that is there: nothing passes the vNIC until all of it is done. A crash leaves flows
        out, and none that is written in part."""
        table, at = self._mapped(slot), amended.changes.put
        table["check"][amended.changes.free] = 0
        table["check"][at] = 0
        table["place"][at] = amended.places
        table["check"][at] = self.hashes(self._keys(amended.places)) | np.uint64(1)
        self._open_pinholes(slot, amended.pinholes)

    def _mapped(self, slot: int) -> Array:
        """The table as it is; who writes into this writes into it."""
        return np.frombuffer(self._tables.mapped(slot), self._bucket)

    def _unasked(self, slot: int, places: Array) -> Array:
        """As flows of this host of which the policy is asked at their first packet."""
        places = places.copy()
        self._disbelieve(places["flow"], slot)
        places["flow"]["policy_seq"] = self._seq - np.uint32(1)
        places["flow"]["counter"] = self._counters(places["flow"]["rule_id"])
        return places

    def own(self, slot: int) -> Array:
        """The live places of a table, as they are."""
        with bpf.closing(self._tables.held_open(slot)) as inner:
            table = self._read(inner, self._bucket)
        live = (table["check"] != 0) & (table["place"]["flow"]["expires"] > self._programs.jiffies())
        own: Array = table["place"][live]
        return own

    def _keys(self, places: Array) -> Array:
        keys: Array = np.ascontiguousarray(_bytes(places)[:, self._key]).view(KEY).reshape(-1)
        return keys

    def _disbelieve(self, flow: Array, slot: int) -> None:
        """The host that they come from may be anybody's: no flow outlives the policy of this host but by a
        rule that is here and says so, and none lives longer than a packet would make it."""
        rules = self._rules()
        kept = np.isin(flow["rule_id"], rules["id"][rules["existing"] == _KEEP])
        flow["existing"][(flow["existing"] == _KEEP) & ~kept] = _RECHECK
        ends = np.uint64(self._programs.jiffies()) + self._lifetimes(slot)[flow["state"]]
        flow["expires"] = np.minimum(flow["expires"], ends)

    def _lifetimes(self, slot: int) -> npt.NDArray[np.uint64]:
        """Jiffies by state."""
        timers, first = self._programs.fd("timers"), slot * _STATES
        raw = (bpf.lookup(timers, struct.pack("<I", first + state), 8) for state in range(_STATES))
        return np.frombuffer(b"".join(each or bytes(8) for each in raw), "<u8")

    def _rules(self) -> Array:
        """In force."""
        inner = self._programs.outer("rules").get(self._policy.bank)
        if inner is None:
            return np.zeros(0, self._rule)
        with bpf.closing(inner):
            return self._read(inner, self._rule)

    def _open_pinholes(self, slot: int, pinholes: Array) -> None:
        if not len(pinholes):
            return
        rules = self._rules()
        listening = rules["id"][(rules["action"] == _ALLOW) & ((rules["ftp"] | rules["tftp"]) != 0)]
        pinholes = pinholes[np.isin(pinholes["rule"], listening)]
        at_most = self._programs.jiffies() + int(self._lifetimes(slot)[State["PINHOLE"]])
        rule_layout, bits = self._pinhole.parts["rule"], constant("PINHOLE_BITS")
        hashes = self.hashes(pinholes["key"])
        counters = self._counters(pinholes["rule"])
        for pinhole, hash_, counter in zip(pinholes, hashes.tolist(), counters.tolist(), strict=True):
            rule = rule_layout.pack(
                id=int(pinhole["rule"]),
                counter=counter,
                action=_ALLOW,
                existing=int(pinhole["existing"]),
            )
            content = self._pinhole.pack(
                check=hash_ | 1,
                key=pinhole["key"].tobytes(),
                expires=min(int(pinhole["left_ms"]), at_most),
                policy_seq=int(self._seq),
                rule=rule,
            )
            place = slot * _PINHOLES + (hash_ >> (64 - bits))
            bpf.update(self._programs.fd("pinholes"), struct.pack("<I", place), content)

    # ---- what belongs to this host ----

    @property
    def policy_seq(self) -> int:
        return self._policy.seq

    @property
    def _seq(self) -> np.uint32:
        return np.uint32(self._policy.seq & 0xFFFF_FFFF)

    def _counters(self, rules: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        known, where = np.unique(rules, return_inverse=True)
        indices = [self._policy.counters.index(int(rule)) for rule in known]
        return np.array(indices, np.uint32)[where] if len(known) else np.zeros(0, np.uint32)

    def hashes(self, keys: Array) -> npt.NDArray[np.uint64]:
        return flow_hashes(keys, self._seeds)

    def _read(self, inner: int, of: np.dtype[np.void]) -> Array:
        size = bpf.shape_of(inner).entries * of.itemsize
        with mmap.mmap(inner, size, access=mmap.ACCESS_READ) as pages:
            return np.frombuffer(pages[:], of)


def dtype(layout: Layout) -> np.dtype[np.void]:
    """What types.h declares, as numpy has it."""
    fields: list[tuple[Any, ...]] = []
    for name, type_, count, part in layout.fields:
        of = dtype(part) if part else f"<{CODES[type_]}"
        fields.append((name, of, count) if count else (name, of))
    return np.dtype(fields)


def _part(dtype: np.dtype[np.void], name: str) -> slice:
    """Where a field lies: structs are copied as bytes, which is many times faster than field by field."""
    assert dtype.fields is not None
    of, offset = dtype.fields[name][:2]
    return slice(offset, offset + of.itemsize)


def _bytes(rows: Array) -> npt.NDArray[np.uint8]:
    return rows.view(np.uint8).reshape(-1, rows.dtype.itemsize)


def _words(rows: Array) -> npt.NDArray[np.uint64]:
    return rows.view("<u8").reshape(-1, rows.dtype.itemsize // 8)


def flow_hashes(keys: Array, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """flow_hash() of bpf/classify.h."""
    words = np.ascontiguousarray(keys).view("<u4").reshape(-1, KEY.itemsize // 4).astype("<u8")
    hashes: npt.NDArray[np.uint64] = seeds[0] + (words * seeds[1:]).sum(axis=1, dtype="<u8")
    upper = (hashes >> np.uint64(32)).astype("<u4")
    upper = (upper ^ upper >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    hashes = upper.astype("<u8") << np.uint64(32) | hashes & np.uint64(0xFFFF_FFFF)
    return hashes


def spread(
    hashes: npt.NDArray[np.uint64], buckets: int, answered: npt.NDArray[Any]
) -> tuple[_Numbers, _Numbers]:
    """Bucket and way of each flow, as find_room() of bpf/flows.c would find them: in the emptier of its two
    buckets. -1: there is no place; those that are answered choose first."""
    first, second = candidates(hashes, buckets)
    bucket, way = np.full(len(hashes), -1), np.full(len(hashes), -1)
    used = np.zeros(buckets, np.int64)
    for chunk in np.array_split(np.argsort(answered == 0, kind="stable"), _CHUNKS):
        emptier = np.where(used[second[chunk]] < used[first[chunk]], second[chunk], first[chunk])
        left = _fill(chunk, emptier, used, bucket, way)
        _fill(chunk[left], first[chunk[left]] + second[chunk[left]] - emptier[left], used, bucket, way)
    return bucket, way


def _fill(
    flows: _Numbers, wanted: _Numbers, used: _Numbers, bucket: _Numbers, way: _Numbers
) -> npt.NDArray[np.bool_]:
    """Gives each flow a place in the bucket it wants, as long as there are some; which have none."""
    order = np.argsort(wanted, kind="stable")
    sorted_ = wanted[order]
    begins = np.flatnonzero(np.diff(sorted_, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    ways = np.empty(len(order), np.int64)
    ways[order] = rank + used[sorted_]
    fits = ways < _WAYS
    bucket[flows[fits]], way[flows[fits]] = wanted[fits], ways[fits]
    np.add.at(used, wanted[fits], 1)
    return ~fits
