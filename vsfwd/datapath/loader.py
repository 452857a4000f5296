"""Opens the programs and their maps: pinned ones as they are, else loaded as they were compiled, and pinned.

Owns their descriptors. Maps are pinned under `<pin_dir>/<schema>/`, the programs of one text of bpf/ and the
maps that only those have in a directory of that: so a new daemon takes over from a dead one, and loads
programs only where its text is another."""

import os
import shutil
import struct
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.attach import Twins
from vsfwd.datapath.compiled import compiled, identity
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.inner import INNER, MapOfMaps, tidy
from vsfwd.datapath.known import PROGRAMS, TWINS
from vsfwd.datapath.schema import OWN, SOURCE, STAGES, TYPES, Layout, is_outer, layouts, schema

TEXT: Final = (SOURCE / "dfw.c").read_text()
TYPES_PIN: Final = "types"
"""A map with nothing in it but types.h, for a daemon with other structs."""
IN_FORCE: Final = "in_force"
"""See `inforce`."""
_IN_FORCE_SIZE: Final = 40
_STAGES: Final = tuple(name.lower() for name in STAGES)
_NAME: Final = "datapath"
_NAMES: Final = ("jiffies", *TWINS["in"], *TWINS["out"], *_STAGES)
_MAPS: Final = "maps"
"""Beside the programs: the directory of the maps that only they have."""
_TICK_BITS: Final = 16
"""As in limit.h: tokens cost 1/65536 jiffies."""
_KERNEL_HZ: Final = (100, 250, 300, 1000)


def compile_ahead(cache_dir: Path) -> None:
    """So that the next start finds this text compiled. Raises DatapathError."""
    compiled(TEXT, _NAME, cache_dir)


class Programs:
    """The loaded programs and their maps. Closing it leaves what is attached attached and what is pinned
    pinned."""

    def __init__(self, pin_dir: Path, cache_dir: Path | None = None) -> None:
        """`cache_dir` keeps what was compiled."""
        self.pins = pin_dir / schema()
        self.cache_dir = cache_dir
        self.directory = self.pins / f"{PROGRAMS}{identity(TEXT)}"
        self._make_room(self.pins / INNER)
        self._keep(TYPES_PIN, zlib.compress(TYPES.encode()))
        self._keep(IN_FORCE, bytes(_IN_FORCE_SIZE))
        pins = (*_NAMES, *(f"{_MAPS}/{name}" for name in OWN))
        self.loaded = not all((self.directory / name).exists() for name in pins)
        """Whether they were not there yet."""
        if self.loaded:
            self._build()
        try:
            self._programs = {name: bpf.pinned(self.directory / name) for name in _NAMES}
            self._maps = self._open_maps()
            self._outers = {
                name: MapOfMaps(fd, self.pins / INNER) for name, fd in self._maps.items() if is_outer(name)
            }
            tidy(self.pins / INNER, self._outers.values())
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
        made = compiled(TEXT, _NAME, self.cache_dir)
        unfinished = self.pins / f"{PROGRAMS}unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make_room(unfinished / _MAPS)
        try:
            with made.loaded(bpf.ProgramType.TC, unfinished / _MAPS, self.pins) as programs:
                for name in _NAMES:
                    bpf.pin(programs[name], unfinished / name)
            shutil.rmtree(self.directory, ignore_errors=True)
            unfinished.rename(self.directory)
        except BaseException:
            shutil.rmtree(unfinished)
            raise

    def _open_maps(self) -> dict[str, int]:
        pins = (*self.pins.iterdir(), *(self.directory / _MAPS).iterdir())
        return {path.name: bpf.pinned(path) for path in pins if not path.is_dir()}

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

    def outer(self, table: str) -> MapOfMaps:
        return self._outers[table]

    def layouts(self, table: str) -> tuple[Layout, Layout]:
        """Of the keys and the values of a map, or of the inner maps of a map of maps."""
        key, value = layouts(table)
        if not is_outer(table):
            made = bpf.shape_of(self.fd(table))
            if (key.size, value.size) != (made.key, made.value):
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
