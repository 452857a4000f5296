"""Opens the programs and their maps: pinned ones as they are, else compiled and pinned.

Owns their descriptors. Maps are pinned under `<pin_dir>/<schema>/`, the programs of one text of bpf/ in a
directory of that: so a new daemon takes over from a dead one, and needs the compiler only where its text is
another. Maps that are not pinned are those of their programs."""

import hashlib
import os
import shutil
import struct
import time
import zlib
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.attach import TWINS, Twins
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.schema import SOURCE, STAGES, TYPES, Layout, is_outer, layouts, schema

TYPES_PIN: Final = "types"
"""A map with nothing in it but types.h, for a daemon with other structs."""
IN_FORCE: Final = "in_force"
"""See `inforce`."""
_IN_FORCE_SIZE: Final = 40
PROGRAMS: Final = "programs-"
"""How directories of programs begin."""
_STAGES: Final = tuple(name.lower() for name in STAGES)
_NAMES: Final = ("jiffies", *TWINS["in"], *TWINS["out"], *_STAGES)
_TICK_BITS: Final = 16
"""As in limit.h: tokens cost 1/65536 jiffies."""
_KERNEL_HZ: Final = (100, 250, 300, 1000)


def build_id() -> str:
    """Names all that programs are made of: the text, and what compiles it. The kernel is not in it: pins end
    with theirs."""
    made_of = hashlib.sha256()
    for path in sorted(path for path in SOURCE.rglob("*.[ch]")):
        made_of.update(path.read_bytes())
    made_of.update((Path(__file__).with_name("build.py")).read_bytes())
    bcc = find_spec("bcc")
    for place in bcc.submodule_search_locations or () if bcc else ():
        made_of.update(Path(place, "version.py").read_bytes())
    return made_of.hexdigest()[:16]


class Programs:
    """The loaded programs and their maps. Closing it leaves what is attached attached and what is pinned
    pinned."""

    def __init__(self, pin_dir: Path) -> None:
        self.pins = pin_dir / schema()
        self.directory = self.pins / f"{PROGRAMS}{build_id()}"
        self._make_room(self.pins)
        self._keep(TYPES_PIN, zlib.compress(TYPES.encode()))
        self._keep(IN_FORCE, bytes(_IN_FORCE_SIZE))
        self.compiled = not self.directory.exists()
        if self.compiled:
            self._build()
        try:
            self._programs = {name: bpf.pinned(self.directory / name) for name in _NAMES}
            self._maps = self._open_maps()
            # All are loaded before any is put in place: those of a daemon before this one may be running.
            for number, name in enumerate(_STAGES):
                program = struct.pack("<I", self._programs[name])
                bpf.update(self.fd("stages"), struct.pack("<I", number), program)
        except OSError as error:
            raise DatapathError(f"open the programs in {self.directory}: {error}") from None
        self.hz = self._measure_hz()

    def _make_room(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # so says sysfs, which has an empty /sys/fs/bpf and takes no directories
            raise DatapathError(
                f"{self.pins.parent}: no BPF file system; mount -t bpf bpf /sys/fs/bpf "
                "(in a network namespace enter with nsenter --net, which leaves the mounts)"
            ) from None
        except OSError as error:
            raise DatapathError(f"{self.pins}: {error.strerror}") from None

    def _keep(self, name: str, content: bytes) -> None:
        """A map of one entry that no program has."""
        if not (self.pins / name).exists():
            fd = bpf.create_map(bpf.MapType.ARRAY, 4, len(content), 1, 0, name)
            bpf.update(fd, bytes(4), content)
            bpf.pin(fd, self.pins / name)
            os.close(fd)

    def _build(self) -> None:
        """The directory bears its name when everything is in it."""
        from vsfwd.datapath.build import build  # LLVM, only where it is needed

        unfinished = self.pins / f"{PROGRAMS}unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make_room(unfinished)
        try:
            build(self.pins, _NAMES, unfinished)
            shutil.rmtree(self.directory, ignore_errors=True)
            unfinished.rename(self.directory)
        except BaseException:
            shutil.rmtree(unfinished)
            raise

    def _open_maps(self) -> dict[str, int]:
        maps = {path.name: bpf.pinned(path) for path in self.pins.iterdir() if not path.is_dir()}
        for program in self._programs.values():
            for id_ in bpf.program_map_ids(program):
                fd = bpf.map_by_id(id_)
                if maps.setdefault(bpf.map_name(fd), fd) != fd:
                    os.close(fd)
        return maps

    def unpin_others(self) -> None:
        """Programs of other texts, of all schemas of this daemon: those on devices live on there."""
        for directory in self.pins.parent.glob(f"*/{PROGRAMS}*"):
            if directory != self.directory:
                shutil.rmtree(directory)

    @property
    def vnic_in(self) -> int:
        return self._programs["vnic_in"]

    @property
    def vnic_out(self) -> int:
        return self._programs["vnic_out"]

    @property
    def twins(self) -> Twins:
        return {
            direction: (self._programs[one], self._programs[other])
            for direction, (one, other) in TWINS.items()
        }

    def fd(self, table: str) -> int:
        return self._maps[table]

    def layouts(self, table: str) -> tuple[Layout, Layout]:
        """Of the keys and the values of a map, or of the inner maps of a map of maps."""
        key, value = layouts(table)
        if not is_outer(table) and (key.size, value.size) != bpf.sizes_of(self.fd(table))[:2]:
            raise DatapathError(f"map {table}: types.h is read in another size than the kernel's")
        return key, value

    def jiffies(self) -> int:
        """Now, in the clock of the programs."""
        return int.from_bytes(bpf.run_program(self._programs["jiffies"], bytes(64))[1][:8], "little")

    def _measure_hz(self) -> int:
        """The kernel's tick rate. Nothing tells it without the kernel's configuration, so count."""
        began, first = time.monotonic(), self.jiffies()
        time.sleep(0.06)
        ticks, elapsed = self.jiffies() - first, time.monotonic() - began
        return min(_KERNEL_HZ, key=lambda hz: abs(hz - ticks / elapsed))

    def limit(self, rate: int, burst: int) -> bytes:
        """`struct limit` of so many a second and at once; without a rate there is none."""
        cost = max(1, (self.hz << _TICK_BITS) // rate) if rate else 0
        return struct.pack("<2Q", cost, burst * cost)

    def close(self) -> None:
        for fd in (*self._programs.values(), *self._maps.values()):
            os.close(fd)
        self._programs, self._maps = {}, {}

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
