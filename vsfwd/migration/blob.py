"""A round of a VM's state as bytes: versioned, bounded, and refused whole if anything is wrong with it. Pure.

    "vsfm" | version | SHA-256 of the rest | Zstandard frame of fields

A field is its type (2 bytes), its length (4) and its value; numbers are little endian. Fields of an unknown
type are passed over, so that a later version of the same format may say more; whatever an older one would
misread raises VERSION.

Flows go column by column, each number's bytes plane by plane (as Blosc shuffles), and of a TCP connection
the difference to the other side in place of what is nearly the same there: what is alike stands together,
and what is left is what nobody can guess, some 45 bytes a flow."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import numpy as np
import zstandard

from vsfwd.migration.state import (
    FLOW,
    KEY,
    NO_FLOWS,
    NO_KEYS,
    NO_PINHOLES,
    PINHOLE,
    Array,
    Learned,
    VmState,
    VnicState,
    check_flows,
    check_pinholes,
)
from vsfwd.protocol.envelope import Refused, unpack
from vsfwd.protocol.messages import MAX_CLAIMS, MAX_LEASES, Claim, is_host_address
from vsfwd.protocol.migration import MAX_PART, MAX_PARTS, MAX_VNICS

T = TypeVar("T")
MAGIC: Final = b"vsfm"
VERSION: Final = 1
MAX_BLOB: Final = MAX_PART * MAX_PARTS - 4096
"""Bytes on the wire, before it is sealed."""
MAX_DECODED: Final = 96 * 1024 * 1024
_LEVEL: Final = 1
"""Of Zstandard: higher ones find nothing in sequence numbers either."""
_HEAD: Final = struct.Struct("<4sB32s")
_FIELD: Final = struct.Struct("<HI")
_MOVE, _VNIC = 1, 2
_ID, _FLOWS, _GONE, _PINHOLES, _LEARNED = 1, 2, 3, 4, 5


class _Move(msgspec.Struct, frozen=True, array_like=True):
    vm: str
    round: int
    final: bool
    epoch: int
    generation: int


class _Fields(NamedTuple):
    single: dict[int, bytes]
    repeated: list[bytes]


def encode(state: VmState) -> bytes:
    """Raises Refused when it is too large to be taken."""
    move = _Move(state.vm, state.round, state.final, state.epoch, state.generation)
    fields = [_field(_MOVE, msgspec.msgpack.encode(move)), *(_field(_VNIC, _vnic(v)) for v in state.vnics)]
    content = b"".join(fields)
    if len(content) > MAX_DECODED:
        raise Refused(f"state: {len(content)} bytes are over the limit of {MAX_DECODED}")
    body = zstandard.compress(content, _LEVEL)
    if len(body) > MAX_BLOB:
        raise Refused(f"state: {len(body)} bytes, compressed, are over the limit of {MAX_BLOB}")
    return _HEAD.pack(MAGIC, VERSION, hashlib.sha256(body).digest()) + body


def decode(blob: bytes) -> VmState:
    """Raises Refused; then nothing of it is to be believed."""
    if len(blob) > MAX_BLOB + _HEAD.size:
        raise Refused(f"state: {len(blob)} bytes are over the limit of {MAX_BLOB + _HEAD.size}")
    if len(blob) < _HEAD.size or blob[: len(MAGIC)] != MAGIC:
        raise Refused("state: not what a vsfwd exports")
    _, version, digest = _HEAD.unpack_from(blob)
    if version != VERSION:
        raise Refused(f"state: its format is version {version}, this vsfwd knows version {VERSION}")
    body = blob[_HEAD.size :]
    if hashlib.sha256(body).digest() != digest:
        raise Refused("state: not the bytes that were exported")
    fields = _parsed(unpack("zstd", body, MAX_DECODED), "state", _VNIC)
    if len(fields.repeated) > MAX_VNICS:
        raise Refused(f"state: {len(fields.repeated)} vNICs are over the limit of {MAX_VNICS}")
    move = _decoded(fields.single.get(_MOVE, b""), _Move, "state: move")
    vnics = [_parse_vnic(value) for value in fields.repeated]
    if len({vnic.vnic for vnic in vnics}) != len(vnics):
        raise Refused("state: a vNIC is in it twice")
    return VmState(move.vm, move.round, move.final, move.epoch, move.generation, vnics)


def _vnic(state: VnicState) -> bytes:
    return b"".join(
        (
            _field(_ID, UUID(state.vnic).bytes),
            _field(_FLOWS, _columns(_differences(state.flows))),
            _field(_GONE, _columns(state.gone)),
            _field(_PINHOLES, _columns(state.pinholes)),
            _field(_LEARNED, msgspec.msgpack.encode(state.learned)),
        )
    )


def _parse_vnic(value: bytes) -> VnicState:
    fields = _parsed(value, "state: vNIC").single
    id = fields.get(_ID, b"")
    if len(id) != 16:
        raise Refused("state: a vNIC without its id")
    vnic = str(UUID(bytes=id))
    flows = _sums(_rows(fields.get(_FLOWS), FLOW, NO_FLOWS, f"flows of vNIC {vnic}"))
    pinholes = _rows(fields.get(_PINHOLES), PINHOLE, NO_PINHOLES, f"pinholes of vNIC {vnic}")
    check_flows(flows, f"flows of vNIC {vnic}")
    check_pinholes(pinholes, f"pinholes of vNIC {vnic}")
    gone = _rows(fields.get(_GONE), KEY, NO_KEYS, f"ended flows of vNIC {vnic}")
    return VnicState(vnic, flows, gone, pinholes, _learned(fields.get(_LEARNED, b"\x90"), vnic))


def _learned(value: bytes, vnic: str) -> tuple[Learned, ...]:
    what = f"addresses of vNIC {vnic}"
    learned = _decoded(value, tuple[Learned, ...], what)
    if len(learned) > MAX_CLAIMS + MAX_LEASES:
        raise Refused(f"{what}: {len(learned)} are over the limit of {MAX_CLAIMS + MAX_LEASES}")
    for one in learned:
        if not is_host_address(one.address):
            raise Refused(f"{what}: {one.address!r} is none that a vNIC can have")
        try:
            Claim(one.address, one.source, one.left_s, one.server)
        except ValueError as error:
            raise Refused(f"{what}: {error}") from None
    return learned


# ---- fields ----


def _field(type_: int, value: bytes) -> bytes:
    return _FIELD.pack(type_, len(value)) + value


def _parsed(content: bytes, what: str, repeats: int = 0) -> _Fields:
    """Of the type `repeats` all, of the others the only one. Raises Refused."""
    fields = _Fields({}, [])
    for type_, value in _fields(content, what):
        if type_ == repeats:
            fields.repeated.append(value)
        elif type_ in fields.single:
            raise Refused(f"{what}: field {type_} is there twice")
        else:
            fields.single[type_] = value
    return fields


def _fields(content: bytes, what: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        if len(content) - at < _FIELD.size:
            raise Refused(f"{what}: it ends inside a field")
        type_, size = _FIELD.unpack_from(content, at)
        at += _FIELD.size
        if len(content) - at < size:
            raise Refused(f"{what}: field {type_} ends before it should")
        yield type_, content[at : at + size]
        at += size


def _decoded(value: bytes, type_: type[T], what: str) -> T:
    try:
        return msgspec.msgpack.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Refused(f"{what}: {error}") from None


# ---- columns ----


def _columns(rows: Array) -> bytes:
    if not len(rows):
        return b""
    return b"".join(
        np.ascontiguousarray(column).view(np.uint8).reshape(len(rows), -1).T.tobytes()
        for column in _leaves(rows)
    )


def _rows(value: bytes | None, dtype: np.dtype[np.void], none: Array, what: str) -> Array:
    if not value:
        return none
    count, left = divmod(len(value), dtype.itemsize)
    if left:
        raise Refused(f"{what}: {len(value)} bytes are no whole number of them")
    rows, at = np.zeros(count, dtype), 0
    planes = np.frombuffer(value, np.uint8).reshape(-1, count)
    for column in _leaves(rows):
        size = column.nbytes // count
        column[...] = (
            np.ascontiguousarray(planes[at : at + size].T).view(column.dtype.base).reshape(column.shape)
        )
        at += size
    return rows


def _leaves(rows: Array) -> Iterator[Array]:
    """Views of the fields that are numbers, or arrays of numbers, in the order they are declared."""
    names: Sequence[str] = rows.dtype.names or ()
    for name in names:
        column = rows[name]
        if column.dtype.names:
            yield from _leaves(column)
        else:
            yield column


def _differences(flows: Array) -> Array:
    """What one side may send is near to what it has sent; what it has acknowledged, to what the other has
    sent."""
    packed = flows.copy()
    side = flows["side"]
    packed["side"]["limit"] = side["limit"] - side["end"]
    packed["side"]["acked"] = side["end"][:, ::-1] - side["acked"]
    return packed


def _sums(packed: Array) -> Array:
    side = packed["side"]
    side["limit"] += side["end"]
    side["acked"] = side["end"][:, ::-1] - side["acked"]
    return packed
