"""Images into maps: the two banks of policy tables, the flip between them, and the rule counters.

Owns the maps `hosts`, `prefixes`, `services`, `rows`, `policies`, `rules`, `control`, `rule_counters` and
`counter_rule`. A packet reads `control` once and then only the bank it names, so it sees one image, whole.
The bank no packet sees is filled completely, then one store into the mapped page of `control` makes it the
live one. If anything fails before that store, the live bank has not been touched."""

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import compress, islice
from typing import Final, TypeVar

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import ACTIONS, EXISTING, MODES, TRACKINGS, Layout, constant
from vsfwd.image import Flip, HostEntry, HostKey, Image, InPlace, PrefixEntry, PrefixKey

K = TypeVar("K")
V = TypeVar("V")

TABLES: Final = ("hosts", "prefixes", "services", "rows", "policies", "rules")
_ROWS_AHEAD: Final = 256
_HOSTS_AHEAD: Final = 1024
_BATCH: Final = 1024
"""Elements a system call writes: a few MB of rows, where all of a big policy would be hundreds."""
_WORD_BITS: Final = tuple(1 << word for word in range(constant("WORDS")))
_MAPPED_BITS: Final = 96
_FAMILY_BITS: Final = 32
"""Bits of a prefix key before its address: the family byte and its padding."""


@dataclass(frozen=True)
class RuleCounters:
    packets: int
    bytes: int
    sessions: int
    suppressed: int


def pack_prefix(layout: Layout, key: PrefixKey) -> bytes:
    length = _FAMILY_BITS + key.length + (_MAPPED_BITS if key.family == 4 else 0)
    family = 0 if key.family == 4 else 1
    return layout.pack(length=length, family=family, address=key.address.to_bytes(16, "big"))


def unpack_prefix(layout: Layout, raw: bytes) -> PrefixKey:
    packed = layout.unpack(raw)
    family, length = (4, packed["length"] - _MAPPED_BITS) if packed["family"] == 0 else (6, packed["length"])
    return PrefixKey(family, length - _FAMILY_BITS, int.from_bytes(packed["address"], "big"))


class ArrayMap:
    """An array map of one value a key, written through its pages."""

    def __init__(self, fd: int, value_size: int, entries: int) -> None:
        self.fd = fd
        self.stride = (value_size + 7) & ~7
        self.entries = entries
        self.pages = mmap.mmap(fd, self.stride * entries)

    def __setitem__(self, index: int, value: bytes) -> None:
        self.pages[index * self.stride : index * self.stride + len(value)] = value

    def write(self, index: int, offset: int, part: bytes) -> None:
        """Some bytes of a value; one alone is one store."""
        start = index * self.stride + offset
        self.pages[start : start + len(part)] = part

    def __getitem__(self, index: int) -> bytes:
        return self.pages[index * self.stride : (index + 1) * self.stride]

    def fill(self, values: Iterable[bytes], first: int = 0) -> None:
        """From an entry on, values of one stride each."""
        content, start = b"".join(values), first * self.stride
        self.pages[start : start + len(content)] = content

    def close(self) -> None:
        self.pages.close()
        os.close(self.fd)


@dataclass
class Bank:
    """The inner maps of one bank while the daemon may write to them. Rows are written by system call: mapped
    pages would count as the daemon's memory, and rows are most of a bank."""

    hosts: int
    rows: int
    policies: ArrayMap
    used_rows: int
    row_places: int

    def close(self) -> None:
        os.close(self.hosts)
        os.close(self.rows)
        self.policies.close()


class Policy:
    """The policy tables. One writer: the daemon's reconciler."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._layouts = {table: programs.layouts(table) for table in TABLES}
        if self._layouts["hosts"][1].names != list(HostEntry._fields):
            raise DatapathError("struct host has other fields, or in another order, than HostEntry")
        control = programs.fd("control")
        self._control = mmap.mmap(control, mmap.PAGESIZE)
        self._in_force = memoryview(self._control).cast("Q")
        self._live: Bank | None = None
        self.emptied: set[int] = set()
        """Slots that were closed since an image was put in force: whatever it says of them is not there."""
        self.counters = Counters(programs)

    @property
    def seq(self) -> int:
        """Raised by everything that may change a verdict; what flows are checked against."""
        return self._in_force[0] >> 1

    @property
    def bank(self) -> int:
        return self._in_force[0] & 1

    def _commit(self, bank: int, *, same_policy: bool = False) -> None:
        # One aligned store of eight bytes: every packet from now on sees `bank`, and but for the same policy
        # asks it anew. A map update by system call copies byte by byte and might be seen half done.
        self._in_force[0] = (self.seq + (not same_policy)) << 1 | bank

    def ask_again(self) -> None:
        """Every flow, under the policy in force: something beside it has changed."""
        self._commit(self.bank)

    def flip(self, plan: Flip) -> None:
        """Everything in `plan.image`, in force at once."""
        image, unseen = plan.image, 1 - self.bank
        counters = self.counters.reserve(rule.id for rule in image.rules)
        outers = {table: self._programs.outer(table) for table in TABLES}
        try:
            # Changing an inner map waits for a grace period; in threads those of the six tables pass
            # together.
            with ExitStack() as unless_put, ThreadPoolExecutor(len(TABLES)) as pool:
                quiet = pool.submit(self._wait_for_packets)
                bank, inner = self._build(image, counters, unless_put)
                quiet.result()
                list(pool.map(lambda table: outers[table].put(unseen, inner[table]), TABLES))
                unless_put.pop_all()
        except (OSError, ValueError, IndexError) as error:
            raise DatapathError(f"write bank {unseen} of {len(image.rules)} rules: {error}") from None
        gone = self.counters.owners() - counters.keys()
        self.counters.disown(gone)
        self._commit(unseen, same_policy=plan.same_policy)
        self.emptied.clear()
        if self._live:
            self._live.close()
        self._live = bank
        for table in set(TABLES) - {"hosts", "rows", "policies"}:
            os.close(inner[table])
        if gone:
            # Packets that began under the bank before may still count for them.
            self._wait_for_packets()
            self.counters.release(gone)

    def _wait_for_packets(self) -> None:
        """Until packets that began before the last flip are done with the bank that is now unseen. Putting
        the live bank's map where it is already changes nothing but waits for a grace period."""
        hosts = self._programs.outer("hosts")
        live = hosts.get(self.bank)
        if live is not None:
            hosts.put(self.bank, live)
            os.close(live)

    def _build(
        self, image: Image, counters: dict[int, int], unless_put: ExitStack
    ) -> tuple[Bank, dict[str, int]]:
        def create(table: str, entries: int, type_: bpf.MapType, flags: int) -> int:
            key, value = self._layouts[table]
            fd = bpf.create_map(type_, key.size, value.size, max(entries, 1), flags, table)
            unless_put.callback(os.close, fd)
            return fd

        def array(table: str, entries: int) -> ArrayMap:
            fd = create(table, entries, bpf.MapType.ARRAY, bpf.F_MMAPABLE | bpf.F_INNER_MAP)
            return ArrayMap(fd, self._layouts[table][1].size, max(entries, 1))

        hosts = create("hosts", max(_HOSTS_AHEAD, 2 * len(image.hosts)), bpf.MapType.HASH, 0)
        self._write(hosts, image.hosts.items(), self._host)
        prefixes = create("prefixes", len(image.prefixes), bpf.MapType.LPM_TRIE, bpf.F_NO_PREALLOC)
        self._write(prefixes, image.prefixes.items(), self._prefix)
        services = array("services", max(service.last for service in image.services) + 1)
        for points in image.services:
            services.fill([struct.pack("<Q", points.row) * (points.last - points.first + 1)], points.first)
        row_places = len(image.rows) + max(_ROWS_AHEAD, len(image.rows) // 4)
        rows = create("rows", row_places, bpf.MapType.ARRAY, bpf.F_MMAPABLE | bpf.F_INNER_MAP)
        self._write(rows, enumerate(image.rows), self._row)
        rules = array("rules", len(image.rules))
        rules.fill(
            self._layouts["rules"][1].pack(
                id=rule.id,
                counter=counters[rule.id],
                action=ACTIONS.index(rule.action),
                logged=rule.logged,
                tracking=TRACKINGS.index(rule.tracking),
                existing=EXISTING.index(rule.existing_flows),
                ftp=socket.htons(rule.ftp),
                tftp=socket.htons(rule.tftp),
                monitored=rule.monitored,
            )
            for rule in image.rules
        )
        policies = array("policies", constant("SLOTS"))
        for slot, vnic in image.vnics.items():
            # What is not asked again has row 0 there, which is empty.
            row = (vnic.in_ipv4, vnic.in_ipv6, vnic.out_ipv4, vnic.out_ipv6, *vnic.again)
            frames = (vnic.frames_in, vnic.frames_out, *vnic.frames_again)
            mode = MODES.index("excluded" if vnic.excluded else "enforced")
            policies[slot] = self._layouts["policies"][1].pack(
                row=struct.pack(f"<{len(row)}I", *row),
                frames=struct.pack(f"<{len(frames)}I", *frames),
                segment=vnic.segment,
                mode=mode,
                alg=vnic.alg,
                source_ports=vnic.source_ports,
            )
        for closing in (services, rules):
            closing.pages.close()
        inner = dict(
            hosts=hosts,
            prefixes=prefixes,
            services=services.fd,
            rows=rows,
            policies=policies.fd,
            rules=rules.fd,
        )
        return Bank(hosts, rows, policies, len(image.rows), row_places), inner

    def in_place(self, plan: InPlace) -> None:
        """The rows first, then the one entry that points at them, then the sequence: no packet sees half of
        it. What does not fit into the live bank flips instead."""
        live = self._live
        if live is None:
            raise DatapathError("change the policy in place: this daemon has not written a bank yet")
        if live.used_rows + len(plan.new_rows) > live.row_places:
            return self.flip(Flip(plan.image))
        try:
            self._write(live.rows, enumerate(plan.new_rows, live.used_rows), self._row)
            live.used_rows += len(plan.new_rows)
            if plan.entry is None:
                bpf.delete(live.hosts, self._host_key(plan.key))
            else:
                key, value = self._host(plan.key, plan.entry)
                bpf.update(live.hosts, key, value)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise DatapathError(f"write {plan.key} in place: {error}") from None
            return self.flip(Flip(plan.image))
        self._commit(self.bank)
        return None

    def close_slot(self, slot: int) -> None:
        """Whoever gets this slot next starts without a policy, whichever bank is live."""
        self.emptied.add(slot)
        policies = self._live.policies if self._live else self._open_policies()
        if policies is not None:
            policies[slot] = bytes(self._layouts["policies"][1].size)
            self._commit(self.bank)
            if self._live is None:
                policies.close()

    def mode(self, slot: int) -> str:
        """What the bank in force does at a vNIC, whoever wrote it: closed, enforced or excluded."""
        policies, layout = (
            self._live.policies if self._live else self._open_policies(),
            self._layouts["policies"][1],
        )
        if policies is None:
            return MODES[0]
        try:
            return MODES[int(layout.unpack(policies[slot][: layout.size])["mode"])]
        finally:
            if self._live is None:
                policies.close()

    def _open_policies(self) -> ArrayMap | None:
        fd = self._programs.outer("policies").get(self.bank)
        return ArrayMap(fd, self._layouts["policies"][1].size, constant("SLOTS")) if fd is not None else None

    def _write(
        self, fd: int, items: Iterable[tuple[K, V]], encode: Callable[[K, V], tuple[bytes, bytes]]
    ) -> None:
        pairs = (encode(key, value) for key, value in items)
        while batch := list(islice(pairs, _BATCH)):
            keys, values = zip(*batch, strict=True)
            bpf.update_batch(fd, b"".join(keys), b"".join(values), len(batch))

    def _host_key(self, key: HostKey) -> bytes:
        return self._layouts["hosts"][0].pack_all(key.segment, key.address.to_bytes(16, "big"))

    def _host(self, key: HostKey, entry: HostEntry) -> tuple[bytes, bytes]:
        return self._host_key(key), self._layouts["hosts"][1].pack_all(*entry)

    def _prefix(self, key: PrefixKey, entry: PrefixEntry) -> tuple[bytes, bytes]:
        key_layout, value_layout = self._layouts["prefixes"]
        return pack_prefix(key_layout, key), value_layout.pack(**entry._asdict())

    def _row(self, number: int, row: int) -> tuple[bytes, bytes]:
        words = row.to_bytes(8 * -(-row.bit_length() // 64), "little")
        summary = sum(compress(_WORD_BITS, memoryview(words).cast("Q")))
        value = summary.to_bytes(8 * constant("SUMMARIES"), "little") + words
        return struct.pack("<I", number), value.ljust(self._layouts["rows"][1].size, b"\0")

    def close(self) -> None:
        self.counters.close()
        if self._live:
            self._live.close()
        self._in_force.release()
        self._control.close()


class Counters:
    """Which rule counter belongs to which rule id. The pinned map `counter_rule` is the memory of it, so a
    rule keeps its counters over banks and restarts."""

    def __init__(self, programs: Programs) -> None:
        self._values = programs.fd("rule_counters")
        self._layout = programs.layouts("rule_counters")[1]
        entries = constant("COUNTERS")
        self._owner = ArrayMap(os.dup(programs.fd("counter_rule")), 4, entries)
        owners = memoryview(self._owner.pages).cast("Q")
        first = constant("NO_COUNTER") + 1
        self._index = {owners[i]: i for i in range(first, entries) if owners[i]}
        self._free = [i for i in range(entries - 1, first - 1, -1) if not owners[i]]
        owners.release()
        self._cpus = bpf.possible_cpus()

    def reserve(self, rules: Iterable[int]) -> dict[int, int]:
        """The index of each of `rules`; those that are new start at zero."""
        indices = {}
        for rule in rules:
            if rule not in self._index:
                if not self._free:
                    raise DatapathError(
                        f"count rule {rule}: all {constant('COUNTERS')} rule counters are in use"
                    )
                self._take(rule, self._free.pop())
            indices[rule] = self._index[rule]
        return indices

    def _take(self, rule: int, index: int) -> None:
        self._owner[index] = struct.pack("<Q", rule)
        self._index[rule] = index

    def index(self, rule: int) -> int:
        """NO_COUNTER of a rule that has none."""
        return self._index.get(rule, constant("NO_COUNTER"))

    def owners(self) -> set[int]:
        """Rules that have a counter."""
        return set(self._index)

    def disown(self, gone: Iterable[int]) -> None:
        """Before the flip that takes these rules away: a flow that is kept must see that its counter is not
        its rule's any more."""
        for rule in gone:
            self._owner[self._index[rule]] = bytes(8)

    def release(self, gone: Iterable[int]) -> None:
        """Rules that are gone give their counters back, at zero. No flow counts there any more: a flip makes
        every flow ask again, or look again, before it counts."""
        for rule in gone:
            index = self._index.pop(rule)
            bpf.update(self._values, struct.pack("<I", index), bytes(self._layout.size * self._cpus))
            self._free.append(index)

    def read(self, rules: Iterable[int]) -> dict[int, RuleCounters]:
        """Of those that have one."""
        return {rule: self._sum(self._index[rule]) for rule in rules if rule in self._index}

    def _sum(self, index: int) -> RuleCounters:
        raw = bpf.lookup(self._values, struct.pack("<I", index), self._layout.size * self._cpus) or b""
        size = self._layout.size
        values = [self._layout.unpack(raw[i : i + size]) for i in range(0, len(raw), size)]
        return RuleCounters(**{name: sum(value[name] for value in values) for name in self._layout.names})

    def close(self) -> None:
        self._owner.close()
