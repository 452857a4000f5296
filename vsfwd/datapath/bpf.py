"""The few bpf(2) calls the datapath needs, under our names.

bcc compiles and loads; what it has no call for is here: inner maps of any size, whole batches, test runs. Map
descriptors are plain integers and belong to whoever asked for them.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from vsfwd.datapath.errors import DatapathError

_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)

F_NO_PREALLOC: Final = 1
F_MMAPABLE: Final = 1 << 10
F_INNER_MAP: Final = 1 << 12
F_REPLACE: Final = 1 << 2
F_BEFORE: Final = 1 << 3
CHAIN_MAX: Final = 64
"""Programs that a tcx chain has room for: BPF_MPROG_MAX of linux/bpf_mprog.h."""
MAX_CPUS_TEXT: Final = "/sys/devices/system/cpu/possible"


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    TEST_RUN = 10
    PROG_NEXT_ID = 11
    PROG_BY_ID = 13
    MAP_BY_ID = 14
    INFO = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26


class MapType(IntEnum):
    HASH = 1
    ARRAY = 2
    LPM_TRIE = 11


def _bpf(command: Command, attributes: bytearray) -> int:
    """One call; raises OSError. The kernel may write into `attributes`."""
    raw = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = _libc.syscall(_SYSCALL[os.uname().machine], int(command), raw, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command.name}): {os.strerror(code)}")
    return int(result)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _buffer(content: bytes | int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, content if isinstance(content, int) else max(len(content), 1))


def create_map(type_: MapType, key: int, value: int, entries: int, flags: int, name: str) -> int:
    """`key` and `value` are sizes in bytes."""
    head = struct.pack("<6I", type_, key, value, entries, flags, 0)
    return _bpf(Command.MAP_CREATE, bytearray(head + struct.pack("<I16s", 0, name.encode()[:15])))


def _element(
    fd: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0
) -> tuple[bytearray, object]:
    keys = _buffer(key)
    attributes = struct.pack(
        "<IxxxxQQQ", fd, _address(keys), _address(value) if value is not None else 0, flags
    )
    return bytearray(attributes), keys


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    value = _buffer(size)
    attributes, keys = _element(fd, key, value)
    try:
        _bpf(Command.MAP_LOOKUP, attributes)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    del keys
    return value.raw


def update(fd: int, key: bytes, content: bytes) -> None:
    value = _buffer(content)
    attributes, keys = _element(fd, key, value)
    _bpf(Command.MAP_UPDATE, attributes)
    del keys


def delete(fd: int, key: bytes) -> bool:
    """Whether it was there."""
    attributes, keys = _element(fd, key, None)
    try:
        _bpf(Command.MAP_DELETE, attributes)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    del keys
    return True


def update_batch(fd: int, keys: bytes, values: bytes, count: int) -> None:
    if not count:
        return
    key_buffer, value_buffer = _buffer(keys), _buffer(values)
    attributes = struct.pack("<QQQQIIQQ", 0, 0, _address(key_buffer), _address(value_buffer), count, fd, 0, 0)
    _bpf(Command.MAP_UPDATE_BATCH, bytearray(attributes))


def items(fd: int, key_size: int, value_size: int, entries: int) -> Iterator[tuple[bytes, bytes]]:
    """Everything in a hash map, a batch at a time. What changes meanwhile may be seen or not."""
    count = min(entries, 4096)
    token, keys, values = _buffer(64), _buffer(count * key_size), _buffer(count * value_size)
    first, done = True, False
    while not done:
        attributes = bytearray(
            struct.pack(
                "<QQQQIIQQ",
                0 if first else _address(token),
                _address(token),
                _address(keys),
                _address(values),
                count,
                fd,
                0,
                0,
            )
        )
        try:
            _bpf(Command.MAP_LOOKUP_BATCH, attributes)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                # One bucket holds more than the buffer: once more with a larger one.
                count *= 2
                keys, values = _buffer(count * key_size), _buffer(count * value_size)
                continue
            if error.errno != errno.ENOENT:
                raise
            done = True
        first = False
        (found,) = struct.unpack_from("<I", attributes, 32)
        all_keys, all_values = keys.raw, values.raw
        for i in range(found):
            yield (
                all_keys[i * key_size : (i + 1) * key_size],
                all_values[i * value_size : (i + 1) * value_size],
            )


def map_by_id(id_: int) -> int:
    return _bpf(Command.MAP_BY_ID, bytearray(struct.pack("<III", id_, 0, 0)))


def _info(fd: int, info: ctypes.Array[ctypes.c_char]) -> bytes:
    _bpf(Command.INFO, bytearray(struct.pack("<IIQ", fd, len(info.raw), _address(info))))
    return info.raw


def sizes_of(fd: int) -> tuple[int, int, int]:
    """What a map was made for: bytes of a key, bytes of a value, entries."""
    key, value, entries = struct.unpack_from("<III", _info(fd, _buffer(80)), 8)
    return key, value, entries


def map_name(fd: int) -> str:
    return _info(fd, _buffer(80))[24:40].rstrip(b"\0").decode()


def inner_map(outer: int, index: int) -> int | None:
    """A descriptor of the map at `index` of an array of maps."""
    raw = lookup(outer, struct.pack("<I", index), 4)
    return map_by_id(struct.unpack("<I", raw)[0]) if raw else None


def put_inner(outer: int, index: int, inner: int) -> None:
    """Returns after a grace period: no program sees the map that was there."""
    update(outer, struct.pack("<I", index), struct.pack("<I", inner))


@cache
def possible_cpus() -> int:
    """How many values an element of a per-CPU map has."""
    with open(MAX_CPUS_TEXT) as text:
        return int(text.read().strip().rpartition("-")[2].rpartition(",")[2]) + 1


class ProgramInfo(NamedTuple):
    id: int
    name: str


def program_info(fd: int) -> ProgramInfo:
    id_, name = struct.unpack_from("<I56x16s", _info(fd, _buffer(80)), 4)
    return ProgramInfo(id_, name.rstrip(b"\0").decode())


@contextmanager
def program_by_id(id_: int) -> Iterator[int]:
    fd = _bpf(Command.PROG_BY_ID, bytearray(struct.pack("<III", id_, 0, 0)))
    try:
        yield fd
    finally:
        os.close(fd)


def program_name(id_: int) -> str:
    """Empty when it is gone."""
    try:
        with program_by_id(id_) as fd:
            return program_info(fd).name
    except OSError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise


def programs() -> Iterator[int]:
    """Ids of all that are loaded on this host, whoever loaded them."""
    attributes = bytearray(struct.pack("<III", 0, 0, 0))
    while True:
        try:
            _bpf(Command.PROG_NEXT_ID, attributes)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        (id_,) = struct.unpack_from("<I", attributes, 4)
        yield id_
        struct.pack_into("<I", attributes, 0, id_)


def pin(fd: int, path: Path) -> None:
    name = _buffer(bytes(path) + b"\0")
    _bpf(Command.OBJ_PIN, bytearray(struct.pack("<QII", _address(name), fd, 0)))


def pinned(path: Path) -> int:
    """A descriptor of the map or program that is pinned there."""
    name = _buffer(bytes(path) + b"\0")
    return _bpf(Command.OBJ_GET, bytearray(struct.pack("<QII", _address(name), 0, 0)))


def pinned_id(path: Path) -> int:
    """Of the map that is pinned there."""
    fd = pinned(path)
    try:
        (id_,) = struct.unpack_from("<I", _info(fd, _buffer(80)), 4)
        return int(id_)
    finally:
        os.close(fd)


def program_maps(fd: int) -> list[int]:
    """A descriptor of each map the program uses, up to 64."""
    return [map_by_id(id_) for id_ in program_map_ids(fd)]


def program_map_ids(fd: int) -> tuple[int, ...]:
    # struct bpf_prog_info: how many ids there is room for, and are, at 52; where they go, at 56.
    ids = _buffer(4 * 64)
    info = _info(fd, _buffer(bytes(52) + struct.pack("<IQ", 64, _address(ids)) + bytes(16)))
    (count,) = struct.unpack_from("<I", info, 52)
    return struct.unpack_from(f"<{count}I", ids.raw)


def attached_programs(ifindex: int, attach_type: int) -> list[int]:
    """Ids, in the order they run. `ifindex` is a device of the caller's network namespace, here and below."""
    ids = (ctypes.c_uint32 * CHAIN_MAX)()
    attributes = bytearray(
        struct.pack("<IIIIQI4xQQQQ", ifindex, attach_type, 0, 0, ctypes.addressof(ids), CHAIN_MAX, 0, 0, 0, 0)
    )
    _bpf(Command.PROG_QUERY, attributes)
    (count,) = struct.unpack_from("<I", attributes, 24)
    return list(ids[:count])


def _change_chain(
    command: Command, ifindex: int, attach_type: int, program: int, flags: int = 0, replaced: int = 0
) -> None:
    attributes = struct.pack("<6IQ", ifindex, program, attach_type, flags, replaced, 0, 0)
    _bpf(command, bytearray(attributes))


def attach_first(ifindex: int, attach_type: int, program: int) -> None:
    """In front of all that are attached (BPF_F_BEFORE, and before nothing in particular)."""
    _change_chain(Command.PROG_ATTACH, ifindex, attach_type, program, F_BEFORE)


def replace_program(ifindex: int, attach_type: int, program: int, old: int) -> None:
    """In the place of the one with the id `old`, in one step."""
    with program_by_id(old) as fd:
        _change_chain(Command.PROG_ATTACH, ifindex, attach_type, program, F_REPLACE, fd)


def detach_program(ifindex: int, attach_type: int, id_: int) -> None:
    with program_by_id(id_) as fd:
        _change_chain(Command.PROG_DETACH, ifindex, attach_type, fd)


def run_program(
    program: int, packet: bytes, *, ifindex: int = 0, mark: int = 0, repeat: int = 1
) -> tuple[int, bytes, int, int]:
    """Verdict, the packet and the mark as the program left them, and nanoseconds a run.

    A program sees `ifindex` only if it is a device of the caller's network namespace.
    """
    # struct __sk_buff, as far as the kernel takes it in: mark at 8, ifindex at 40.
    context = _buffer(struct.pack("<II I", 0, 0, mark) + bytes(28) + struct.pack("<I", ifindex) + bytes(148))
    verdict, packet, nanoseconds = _test_run(program, packet, context, repeat)
    (left,) = struct.unpack_from("<I", context.raw, 8)
    return verdict, packet, left, nanoseconds


def run_xdp(program: int, packet: bytes, repeat: int = 1) -> tuple[int, int]:
    """Verdict of an XDP program, and nanoseconds a run."""
    verdict, _, nanoseconds = _test_run(program, packet, None, repeat)
    return verdict, nanoseconds


def _test_run(
    program: int, packet: bytes, context: ctypes.Array[ctypes.c_char] | None, repeat: int
) -> tuple[int, bytes, int]:
    data_in, data_out = _buffer(packet), _buffer(len(packet) + 256)
    size = len(context.raw) if context is not None else 0
    where = _address(context) if context is not None else 0
    attributes = bytearray(
        struct.pack(
            "<IIIIQQIIIIQQ",
            program,
            0,
            len(packet),
            len(data_out.raw),
            _address(data_in),
            _address(data_out),
            repeat,
            0,
            size,
            size,
            where,
            where,
        )
    )
    try:
        _bpf(Command.TEST_RUN, attributes)
    except OSError as error:
        raise DatapathError(f"test run of program {program}: {error}") from None
    verdict, _, left = struct.unpack_from("<III", attributes, 4)
    (nanoseconds,) = struct.unpack_from("<I", attributes, 36)
    return verdict, data_out.raw[:left], nanoseconds
