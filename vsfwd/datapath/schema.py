"""What bpf/types.h and bpf/maps.h declare, as Python sees it: numbers, enums, the layouts of keys and values.

Read from their text, so that nothing is declared twice and no compiler is needed to open what is pinned. The
text may be that of another version: `Declarations` is one version, `HERE` this one."""

import hashlib
import re
import struct
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from vsfwd.datapath.errors import DatapathError

SOURCE: Final = Path(__file__).parents[2] / "bpf"
CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "int": "I", "u64": "Q"}
_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
_FIELD: Final = re.compile(r"(struct \w+|\w+) (\w+)(?:\[(\w+)\])?;")
_MAP: Final = re.compile(
    r'^(?:PINNED|BPF_F_TABLE)\("\w+", ([\w ]+), ([\w ]+), (\w+),|^INNER_ARRAY\(([\w ]+), (\w+)\)',
    re.MULTILINE,
)


class Layout:
    """A C struct as Python sees it: fields by name, numbers as int, arrays and structs as bytes. `parts` has
    the layouts of those structs, and of the structs that those arrays are of."""

    def __init__(self, name: str, fields: list[tuple[str, str, int, "Layout | None"]]) -> None:
        """A field is name, type, how many (0: no array), and the layout of its type if that is a struct."""
        self.fields = fields
        self.names = [field for field, *_ in fields]
        self.parts = {field: part for field, _, _, part in fields if part}
        self.offsets: dict[str, int] = {}
        format_, offset = "<", 0
        self.alignment: int = 1
        for field, type_, count, part in fields:
            one: int = part.size if part else struct.calcsize(CODES[type_])
            alignment: int = part.alignment if part else one
            if offset % alignment:
                raise DatapathError(
                    f"struct {name}, before {field}: padding that is not written out in types.h"
                )
            format_ += f"{one * (count or 1)}s" if part or count else CODES[type_]
            self.offsets[field] = offset
            offset += one * (count or 1)
            self.alignment = max(self.alignment, alignment)
        self._struct = struct.Struct(format_)
        self.size: int = self._struct.size
        if self.size % self.alignment:
            raise DatapathError(f"struct {name}, at its end: padding that is not written out in types.h")
        self._empty = dict(zip(self.names, self._struct.unpack(bytes(self.size)), strict=True))

    def pack(self, **fields: int | bytes) -> bytes:
        """The fields not given are zero."""
        return self._struct.pack(*(self._empty | fields).values())

    def pack_all(self, *values: int | bytes) -> bytes:
        """Every field, in the order of C: for tables of many thousands, in a third of the time."""
        return self._struct.pack(*values)

    def unpack(self, raw: bytes) -> dict[str, Any]:
        return dict(zip(self.names, self._struct.unpack(raw), strict=True))


def same(one: Layout, other: Layout) -> bool:
    """Whether what one describes may be read by the other."""
    return (
        one.names == other.names
        and [field[1:3] for field in one.fields] == [field[1:3] for field in other.fields]
        and all(same(part, other.parts[name]) for name, part in one.parts.items())
    )


class Declarations:
    """Of one version of types.h."""

    def __init__(self, types: str) -> None:
        self._text = types
        self._layouts: dict[str, Layout] = {}

    def constant(self, name: str) -> int:
        found = re.search(rf"^#define {name} (\w+)", self._text, re.MULTILINE)
        if found is None:
            raise KeyError(name)
        return int(found[1], 0)

    def enum(self, name: str) -> dict[str, int]:
        found = re.search(rf"^enum {name} \{{(.*?)^\}};", self._text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise KeyError(name)
        members = re.findall(rf"^\t{name.upper()}_(\w+),", found[1], re.MULTILINE)
        return {member: number for number, member in enumerate(members)}

    def layout(self, type_: str) -> Layout:
        """Of a struct, or of a number, which is its field `value`."""
        if type_ not in self._layouts:
            self._layouts[type_] = Layout(type_, self._fields(type_))
        return self._layouts[type_]

    def _fields(self, type_: str) -> list[tuple[str, str, int, Layout | None]]:
        if type_ in CODES:
            return [("value", type_, 0, None)]
        found = re.search(rf"^{type_} \{{(.*?)^\}};", self._text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise KeyError(type_)
        declared, fields = _COMMENT.sub("", found[1]), []
        for field in _FIELD.finditer(declared):
            of, name, places = field.groups()
            count = 0 if places is None else int(places) if places.isdigit() else self.constant(places)
            fields.append((name, of, count, self.layout(of) if of.startswith("struct") else None))
        if _FIELD.sub("", declared).strip():
            raise DatapathError(f"{type_}: {_FIELD.sub('', declared).strip()!r} is not understood in types.h")
        return fields


TYPES: Final = (SOURCE / "types.h").read_text()
HERE: Final = Declarations(TYPES)
constant: Final = cache(HERE.constant)
_DECLARED: Final = (SOURCE / "maps.h").read_text()
MAPS: Final = {
    name or inner: (key or "u32", value or leaf)
    for key, value, name, leaf, inner in _MAP.findall(
        re.sub(r"INNER_ARRAY\(([\w ]+), (\w+)\)", r"INNER_ARRAY(\1, \2_template)", _DECLARED)
    )
}
"""Types of key and value, by map. What a map of maps has is its template's."""
PINNED: Final = frozenset(
    re.findall(r'^(?:PINNED\("\w+", [\w ]+, [\w ]+, |MAP_OF\()(\w+)', _DECLARED, re.MULTILINE)
)
"""Maps that are one for all programs of a schema."""
OWN: Final = frozenset(
    re.findall(
        r'^(?:BPF_F_TABLE\("\w+", [\w ]+, [\w ]+, |BPF_RINGBUF_OUTPUT\()(\w+)(?<!_template),', _DECLARED, re.M
    )
)
"""Maps that each text has for itself."""

Reason = IntEnum("Reason", HERE.enum("reason"))  # type: ignore[misc]
State = IntEnum("State", HERE.enum("state"))  # type: ignore[misc]
Outcome = IntEnum("Outcome", HERE.enum("outcome"))  # type: ignore[misc]
_HOLDS: Final = HERE.enum("hold")
SEGMENTS: Final = HERE.enum("segment")
STAGES: Final = HERE.enum("stage")
STEPS: Final = HERE.enum("step")
DIRECTIONS: Final = tuple(name.lower() for name in HERE.enum("direction"))
ACTIONS: Final = tuple(name.lower() for name in HERE.enum("action"))
TRACKINGS: Final = tuple(name.lower() for name in HERE.enum("tracking"))
EXISTING: Final = tuple(name.lower() for name in HERE.enum("existing"))
MODES: Final = tuple(name.lower() for name in HERE.enum("mode"))


class Hold(IntEnum):
    """Why nothing passes a vNIC: enum hold."""

    NONE = _HOLDS["NONE"]
    FROZEN = _HOLDS["FROZEN"]
    WAITING = _HOLDS["WAITING"]
    HEARD = _HOLDS["HEARD"]
    DEAD = _HOLDS["DEAD"]
    PAUSED = _HOLDS["PAUSED"]


def schema() -> str:
    """Names the layout of the maps; another layout, another directory of pins."""
    layout = b"".join((SOURCE / name).read_bytes() for name in ("types.h", "maps.h", "packet.h"))
    return hashlib.sha256(layout).hexdigest()[:16]


def is_outer(table: str) -> bool:
    """Whether it is a map of maps."""
    return f"{table}_template" in MAPS


@cache
def layouts(table: str) -> tuple[Layout, Layout]:
    """Of the keys and the values of a map, or of the inner maps of a map of maps."""
    key, value = MAPS.get(f"{table}_template") or MAPS[table]
    return HERE.layout(key), HERE.layout(value)
