"""What a daemon takes over from one with other structs: flows, counters, secrets, and which vNIC is where.

Its maps lie in a directory beside ours, with the types.h they were made by (`Programs`). What has the same
layout is used on, the very map, by its programs and by ours: nothing is copied, nothing lost. What has not
is copied field by field, by name: what we do not know is left out, what it did not know is 0.

Its policy is not read. Ours is compiled from what the disk has, and until it is in force the devices bear
its programs, which go on with its maps. Then a device gets ours, in one step, and of copied flows those that
have moved meanwhile are copied once more. A connection that opens in that very moment, some milliseconds,
may have to say a packet again."""

import mmap
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vsfwd.datapath import bpf, inforce
from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.inner import INNER, MapOfMaps
from vsfwd.datapath.loader import IN_FORCE, TYPES_PIN, Programs
from vsfwd.datapath.schema import HERE, MODES, Declarations, Hold, Layout, same, schema

_ENUMS: Final = ("reason", "state", "direction", "existing", "speech", "hold")
"""That stand in what is carried. They are append-only."""
_LINKED: Final = {
    "bindings": ("struct binding_key", "BINDINGS"),
    "fragments": ("struct fragments", "FRAGMENTS"),
    "pinholes": ("struct pinhole", "PINHOLES"),
    "rule_counters": ("struct counters", "COUNTERS"),
    "counter_rule": ("u32", "COUNTERS"),
    "drops": ("u64", "REASONS"),
    "unfiltered": ("u64", "SLOTS"),
}
"""Maps that are used on where their struct and their number of entries are the same."""


class OlderHold:
    """Why nothing passes a vNIC that bears programs of before, where those look: in their map `vnics`."""

    def __init__(self, pages: mmap.mmap, row: int, layout: Layout) -> None:
        self._pages = pages
        self._hold, self._ahead = (row + layout.offsets[name] for name in ("hold", "ahead"))

    def read(self) -> Hold:
        return Hold(self._pages[self._hold])

    def write(self, why: Hold) -> None:
        self._pages[self._hold] = why
        if why != Hold.NONE:
            self._pages[self._ahead] = 1  # without it they do not look; with it they may look for nothing


@dataclass(frozen=True)
class Served:
    """A vNIC that bears programs of before, as the map `vnics` has it."""

    row: dict[str, Any]
    mode: str
    hold: OlderHold


class Before:
    """The maps of a schema beside ours, and the vNICs that its programs serve."""

    def __init__(self, pins: Path, hooks: Hooks) -> None:
        """Raises OSError, KeyError for what is no such directory."""
        self._pins = pins
        with _pinned(pins / TYPES_PIN) as fd:
            raw = bpf.lookup(fd, bytes(4), bpf.shape_of(fd).value) or b""
        self._types = Declarations(zlib.decompress(raw).decode())
        self.served = self._served(hooks)

    def _served(self, hooks: Hooks) -> list[Served]:
        layout = self._types.layout("struct vnic")
        with _pinned(self._pins / "vnics") as fd:
            rows = [layout.unpack(raw) for raw in _entries(fd, layout.size)]
            stride = _stride(layout.size)
            pages = mmap.mmap(fd, stride * len(rows))
        theirs = hooks.known.below(self._pins)
        return [
            Served(row, self._mode(row["slot"]), OlderHold(pages, stride * place, layout))
            for place, row in enumerate(rows)
            if row["ifindex"] and theirs & hooks.programs(row["ifindex"])
        ]

    def _mode(self, slot: int) -> str:
        """What its programs do at a vNIC."""
        layout = self._types.layout("struct policy")
        inner = self._inner("policies", self._control() & 1)
        if inner is None:
            return MODES[0]
        with bpf.closing(inner):
            policy = layout.unpack(bpf.lookup(inner, struct.pack("<I", slot), layout.size) or b"")
            return str(MODES[policy["mode"]])

    def _inner(self, table: str, index: int) -> int | None:
        with _pinned(self._pins / table) as outer:
            return MapOfMaps(outer, self._pins / INNER).get(index)

    def _control(self) -> int:
        with _pinned(self._pins / "control") as fd:
            return _first_number(fd)

    @property
    def readable(self) -> bool:
        """Whether its numbers mean what ours do."""
        return all(
            HERE.enum(name).get(member, number) == number
            for name in _ENUMS
            for member, number in self._types.enum(name).items()
        )

    def link(self, pins: Path) -> None:
        """Before ours are made: what is the same is ours as well. Idempotent."""
        pins.mkdir(exist_ok=True)
        for table, (type_, places) in _LINKED.items():
            if (self._pins / table).exists() and not (pins / table).exists():
                alike = same(self._types.layout(type_), HERE.layout(type_))
                sizes = [(types.constant("SLOTS"), types.constant(places)) for types in (self._types, HERE)]
                if alike and sizes[0] == sizes[1]:
                    with _pinned(self._pins / table) as fd:
                        bpf.pin(fd, pins / table)

    def fill(self, programs: Programs) -> None:
        """Into our maps: secrets, since flows lie where the seeds say; a sequence that no flow was decided
        under; which policy was in force last; and rule counters, if they could not be linked. Where a daemon
        was killed over this, devices use ours already: under the policy and with the secrets they have."""
        filled = self._fill_secrets(programs)
        control, before = _first_number(programs.fd("control")), self._control() >> 1
        if control >> 1 <= before:
            bpf.update(programs.fd("control"), bytes(4), struct.pack("<Q", before + 1 << 1 | control & 1))
        self._fill_in_force(programs)
        if not filled:
            self._fill_counters(programs)

    def _fill_secrets(self, programs: Programs) -> bool:
        """Whether ours had some."""
        theirs, ours = (types.layout("struct settings") for types in (self._types, HERE))
        here = ours.unpack(bpf.lookup(programs.fd("settings"), bytes(4), ours.size) or bytes(ours.size))
        if any(here["seed"]):
            return True
        with _pinned(self._pins / "settings") as fd:
            kept = theirs.unpack(bpf.lookup(fd, bytes(4), theirs.size) or b"")
        secrets = {name: kept[name] for name in ("seed", "mark", "stamp") if name in kept}
        if len(secrets["seed"]) == len(here["seed"]):
            bpf.update(programs.fd("settings"), bytes(4), ours.pack(**secrets))
        return False

    def _fill_in_force(self, programs: Programs) -> None:
        """The name as the last one, unless ours have had policies since."""
        fd = programs.fd(IN_FORCE)
        _, ours = inforce.remembered(fd)
        if any(ours) or not (self._pins / IN_FORCE).exists():
            return
        with _pinned(self._pins / IN_FORCE) as theirs:
            if bpf.shape_of(theirs).value == inforce.LAYOUT.size:
                _, name = inforce.remembered(theirs)
                bpf.update(fd, bytes(4), inforce.LAYOUT.pack(inforce.NEVER, name))

    def _fill_counters(self, programs: Programs) -> None:
        theirs, ours = (types.layout("struct counters") for types in (self._types, HERE))
        if same(theirs, ours):
            return
        cpus = bpf.possible_cpus()
        with _pinned(self._pins / "rule_counters") as values, _pinned(self._pins / "counter_rule") as owners:
            for index, owner in enumerate(_entries(owners, 4)):
                key = struct.pack("<I", index)
                if any(owner) and (raw := bpf.lookup(values, key, cpus * theirs.size)):
                    each = (raw[at : at + theirs.size] for at in range(0, len(raw), theirs.size))
                    converted = b"".join(converted_by_name(one, theirs, ours) for one in each)
                    bpf.update(programs.fd("rule_counters"), key, converted)

    def flows(self, slot: int) -> int | None:
        """A descriptor of the table of a vNIC, for the caller to close. A version that did not pin it has
        left none."""
        return self._inner("flows", slot)

    @property
    def bucket(self) -> Layout:
        return self._types.layout("struct bucket")


def find(pin_dir: Path, hooks: Hooks) -> Before | None:
    """The daemon before this one, if it had other structs and serves vNICs. What we have pinned ourselves is
    of an earlier time then, and removed unless it serves some as well."""
    own = pin_dir / schema()
    beside = [path for path in pin_dir.iterdir() if path != own] if pin_dir.is_dir() else []
    found = [before for path in beside if (before := _read(path, hooks)) and before.served]
    if not found:
        return None
    ours = _read(own, hooks)
    if ours and not ours.served:
        shutil.rmtree(own)
    return max(found, key=lambda before: len(before.served))


def _read(pins: Path, hooks: Hooks) -> Before | None:
    """None for what is not whole, or means something else than we would read: nothing is taken over then,
    and vNICs are closed until the policy is in force."""
    try:
        before = Before(pins, hooks)
        return before if before.readable else None
    except (FileNotFoundError, NotADirectoryError, KeyError, DatapathError):
        return None


def converted_by_name(raw: bytes, theirs: Layout, ours: Layout) -> bytes:
    """One struct of numbers."""
    known = theirs.unpack(raw)
    return ours.pack(**{name: known[name] for name in ours.names if name in known})


def _first_number(fd: int) -> int:
    return int.from_bytes(bpf.lookup(fd, bytes(4), 8) or b"", "little")


def _pinned(path: Path) -> AbstractContextManager[int]:
    return bpf.closing(bpf.pinned(path))


def _stride(size: int) -> int:
    return (size + 7) & ~7


def _entries(fd: int, size: int) -> Iterator[bytes]:
    """Of an array that can be mapped."""
    stride, entries = _stride(size), bpf.shape_of(fd).entries
    with mmap.mmap(fd, stride * entries, access=mmap.ACCESS_READ) as pages:
        for at in range(0, stride * entries, stride):
            yield pages[at : at + size]
