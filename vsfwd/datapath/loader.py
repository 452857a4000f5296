"""Compiles bpf/dfw.c with bcc, loads the programs and opens the maps.

Owns what bcc owns: the module, its descriptors and the layouts of keys and values, which come from the C
structs and are declared nowhere else. Enums and limits are read from the text of types.h. Maps that are
pinned under `<pin_dir>/<schema>/` are found again and used as they are: that is how a new daemon takes over
from a dead one."""

import ctypes
import hashlib
import os
import re
import struct
import sysconfig
import time
from enum import IntEnum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError

SOURCE: Final = Path(__file__).parents[2] / "bpf"
# bcc looks here for a kernel tree when it is imported, and finds the shim.
os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
from bcc import BPF  # noqa: E402

_TYPES: Final = (SOURCE / "types.h").read_text()
_TICK_BITS: Final = 16
"""As in limit.h: tokens cost 1/65536 jiffies."""
_KERNEL_HZ: Final = (100, 250, 300, 1000)


@cache
def constant(name: str) -> int:
    """A number that types.h defines."""
    found = re.search(rf"^#define {name} (\w+)", _TYPES, re.MULTILINE)
    if found is None:
        raise KeyError(name)
    return int(found[1], 0)


def _enum(name: str) -> dict[str, int]:
    found = re.search(rf"^enum {name} \{{(.*?)^\}};", _TYPES, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(name)
    members = re.findall(rf"^\t{name.upper()}_(\w+),", found[1], re.MULTILINE)
    return {member: number for number, member in enumerate(members)}


Reason = IntEnum("Reason", _enum("reason"))  # type: ignore[misc]
State = IntEnum("State", _enum("state"))  # type: ignore[misc]
Outcome = IntEnum("Outcome", _enum("outcome"))  # type: ignore[misc]
SEGMENTS: Final = _enum("segment")
STEPS: Final = _enum("step")
DIRECTIONS: Final = tuple(name.lower() for name in _enum("direction"))
ACTIONS: Final = tuple(name.lower() for name in _enum("action"))
TRACKINGS: Final = tuple(name.lower() for name in _enum("tracking"))
EXISTING: Final = tuple(name.lower() for name in _enum("existing"))
MODES: Final = tuple(name.lower() for name in _enum("mode"))


def schema() -> str:
    """Names the layout of the maps; another layout, another directory of pins."""
    layout = b"".join((SOURCE / name).read_bytes() for name in ("types.h", "maps.h", "packet.h"))
    return hashlib.sha256(layout).hexdigest()[:16]


_PART: Final = re.compile(r'^#include "(\w+\.c)"$', re.MULTILINE)


def _part(include: re.Match[str]) -> str:
    """The file itself, since bcc rewrites access to maps in the main text only."""
    after = include.string.count("\n", 0, include.end()) + 2
    return f'#line 1 "{include[1]}"\n{(SOURCE / include[1]).read_text()}#line {after} "dfw.c"'


def compile_text(text: str, pins: Path) -> Any:
    """A bcc module of a main text that may include everything in bpf/."""
    # Without debug information, which bcc asks for, the same programs come out in two thirds of the time.
    flags = [f"-I{SOURCE}", f'-DPINS="{pins}"', "-Wall", "-Wno-unused-function", "-g0"]
    # The UAPI headers of linux-libc-dev; the architecture's own are a directory deeper on Debian.
    for directory in ("/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"):
        flags += ["-idirafter", directory]
    try:
        return BPF(text=_PART.sub(_part, text).encode(), cflags=flags)
    except Exception as error:
        raise DatapathError(f"compile the datapath programs: {error}") from None


def load_function(module: Any, name: str, kind: int) -> int:
    """A descriptor of the program, which the module owns. `kind` is bcc's word for where it will run."""
    try:
        return int(module.load_func(name.encode(), kind).fd)
    except Exception as error:
        raise DatapathError(f"load program {name}: {error}") from None


class Layout:
    """A C struct as Python sees it: fields by name, numbers as int, arrays and structs as bytes. `parts` has
    the layouts of those structs, and of the structs that those arrays are of."""

    def __init__(self, type_: Any) -> None:
        codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
        self.names: list[str] = []
        self.parts: dict[str, Layout] = {}
        format_ = "<"
        for name, field in getattr(type_, "_fields_", [("value", type_)]):
            size = ctypes.sizeof(field)
            format_ += codes[size] if issubclass(field, ctypes._SimpleCData) else f"{size}s"
            self.names.append(name)
            part = getattr(field, "_type_", field)
            if isinstance(part, type) and issubclass(part, ctypes.Structure):
                self.parts[name] = Layout(part)
        self._struct = struct.Struct(format_)
        self.size = self._struct.size
        if self.size != ctypes.sizeof(type_):
            raise DatapathError(f"struct {type_.__name__} has padding that is not written out in types.h")
        self._empty = dict(zip(self.names, self._struct.unpack(bytes(self.size)), strict=True))

    def pack(self, **fields: int | bytes) -> bytes:
        """The fields not given are zero."""
        return self._struct.pack(*(self._empty | fields).values())

    def pack_all(self, *values: int | bytes) -> bytes:
        """Every field, in the order of C: for tables of many thousands, in a third of the time."""
        return self._struct.pack(*values)

    def unpack(self, raw: bytes) -> dict[str, Any]:
        return dict(zip(self.names, self._struct.unpack(raw), strict=True))


class Programs:
    """The loaded programs and their maps. Closing it leaves what is attached attached and what is pinned
    pinned."""

    def __init__(self, pin_dir: Path) -> None:
        self.pins = pin_dir / schema()
        self._make_room()
        self.module = compile_text((SOURCE / "dfw.c").read_text(), self.pins)
        self._clock, self.vnic_in, self.vnic_out = (
            load_function(self.module, name, BPF.SCHED_CLS) for name in ("jiffies", "vnic_in", "vnic_out")
        )
        stages = {
            number: load_function(self.module, name.lower(), BPF.SCHED_CLS)
            for name, number in _enum("stage").items()
        }
        # All are loaded before any is put in place: those of a daemon before this one may be running.
        for number, program in stages.items():
            bpf.update(self.fd("stages"), struct.pack("<I", number), struct.pack("<I", program))
        self._layouts: dict[str, tuple[Layout, Layout]] = {}
        self.hz = self._measure_hz()

    def _make_room(self) -> None:
        try:
            self.pins.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # so says sysfs, which has an empty /sys/fs/bpf and takes no directories
            raise DatapathError(
                f"{self.pins.parent}: no BPF file system; mount -t bpf bpf /sys/fs/bpf "
                "(in a network namespace enter with nsenter --net, which leaves the mounts)"
            ) from None
        except OSError as error:
            raise DatapathError(f"{self.pins}: {error.strerror}") from None

    def fd(self, table: str) -> int:
        return int(self.module[table.encode()].map_fd)

    def layouts(self, table: str) -> tuple[Layout, Layout]:
        """Of the keys and the values of a map, or of the inner maps of a map of maps."""
        if table not in self._layouts:
            inner = f"{table}_template"
            known = self.module[(inner if self._has(inner) else table).encode()]
            # Of a per-CPU map, bcc's Leaf is one value for each CPU and sLeaf the one in C.
            key, value = Layout(known.Key), Layout(getattr(known, "sLeaf", known.Leaf))
            # bcc does not describe every C type right (arrays of arrays): better found here than in a packet.
            if (key.size, value.size) != bpf.sizes_of(known.map_fd)[:2]:
                raise DatapathError(
                    f"map {table}: bcc describes its structs in another size than the kernel's"
                )
            self._layouts[table] = key, value
        return self._layouts[table]

    def _has(self, table: str) -> bool:
        try:
            self.module[table.encode()]
        except KeyError:
            return False
        return True

    def jiffies(self) -> int:
        """Now, in the clock of the programs."""
        return int.from_bytes(bpf.run_program(self._clock, bytes(64))[1][:8], "little")

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
        self.module.cleanup()

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
