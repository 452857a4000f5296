"""The few bpf(2) calls the datapath needs, under our names.

bcc compiles and loads; what it has no call for is here: inner maps of any size, whole batches, test runs. Map
descriptors are plain integers and belong to whoever asked for them. Nothing is opened by its id, for which
the kernel wants CAP_SYS_ADMIN (linux/kernel/bpf/syscall.c): what is to be found again is pinned.
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
INSTRUCTION: Final = 8
"""Bytes."""
_PROGRAM_INFO: Final = 224
"""Bytes of struct bpf_prog_info of linux/bpf.h, as Linux 5.16 has it; an older kernel fills its part."""
_VERIFIER_LOG: Final = 1 << 24
"""Bytes; before Linux 6.4 the verifier wants room for all that it says."""
MAX_CPUS_TEXT: Final = "/sys/devices/system/cpu/possible"


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    TEST_RUN = 10
    INFO = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26


class MapType(IntEnum):
    HASH = 1
    ARRAY = 2
    LPM_TRIE = 11


class Shape(NamedTuple):
    """Of a map, as `create_map` is told. `key` and `value` are sizes in bytes."""

    type: int
    key: int
    value: int
    entries: int
    flags: int


class ProgramType(IntEnum):
    TC = 3
    XDP = 6


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


def create_map(type_: int, key: int, value: int, entries: int, flags: int, name: str, inner: int = 0) -> int:
    """`key` and `value` are sizes in bytes. `inner`: a map like those that a map of maps is to have."""
    head = struct.pack("<6I", type_, key, value, entries, flags, inner)
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


def _info(fd: int, info: ctypes.Array[ctypes.c_char]) -> bytes:
    _bpf(Command.INFO, bytearray(struct.pack("<IIQ", fd, len(info.raw), _address(info))))
    return info.raw


def shape_of(fd: int) -> Shape:
    return Shape(*struct.unpack_from("<I4x4I", _info(fd, _buffer(80))))


def object_id(fd: int) -> int:
    """Of a map or a program."""
    (id_,) = struct.unpack_from("<I", _info(fd, _buffer(80)), 4)
    return int(id_)


def inner_id(outer: int, index: int) -> int | None:
    """Of the map at `index` of an array of maps."""
    raw = lookup(outer, struct.pack("<I", index), 4)
    return int.from_bytes(raw, "little") if raw else None


def put_inner(outer: int, index: int, inner: int) -> None:
    """Returns after a grace period: no program sees the map that was there."""
    update(outer, struct.pack("<I", index), struct.pack("<I", inner))


@cache
def possible_cpus() -> int:
    """How many values an element of a per-CPU map has."""
    with open(MAX_CPUS_TEXT) as text:
        return int(text.read().strip().rpartition("-")[2].rpartition(",")[2]) + 1


class ProgramInfo(NamedTuple):
    """`jited`: bytes of machine code, 0 of a program that is interpreted. `verified`: instructions that the
    verifier has looked at, on all ways."""

    name: str
    jited: int
    verified: int


def program_info(fd: int) -> ProgramInfo:
    info = _info(fd, _buffer(_PROGRAM_INFO))
    jited, name = struct.unpack_from("<I44x16s", info, 16)
    (verified,) = struct.unpack_from("<I", info, 216)
    return ProgramInfo(name.rstrip(b"\0").decode(), jited, verified)


def load_program(type_: ProgramType, name: str, instructions: bytes, license_: str) -> int:
    """Raises OSError, with what the verifier said last."""
    code, terms = _buffer(instructions), _buffer(license_.encode() + b"\0")

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        logged = (0, 0, 0) if log is None else (1, len(log), _address(log))
        made_of = type_, len(instructions) // INSTRUCTION, _address(code), _address(terms), *logged
        return _bpf(Command.PROG_LOAD, bytearray(struct.pack("<IIQQIIQ8x16s", *made_of, name.encode()[:15])))

    try:
        return load(None)
    except OSError:
        log = _buffer(_VERIFIER_LOG)  # only then, for it takes the verifier time to write it
        try:
            return load(log)
        except OSError as error:
            said = log.value.decode(errors="replace").splitlines()[-2:]
            raise OSError(error.errno, "; ".join((os.strerror(error.errno or 0), *said))) from None


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """A descriptor that is no more after that."""
    try:
        yield fd
    finally:
        os.close(fd)


def pin(fd: int, path: Path) -> None:
    name = _buffer(bytes(path) + b"\0")
    _bpf(Command.OBJ_PIN, bytearray(struct.pack("<QII", _address(name), fd, 0)))


def pinned(path: Path) -> int:
    """A descriptor of the map or program that is pinned there."""
    name = _buffer(bytes(path) + b"\0")
    return _bpf(Command.OBJ_GET, bytearray(struct.pack("<QII", _address(name), 0, 0)))


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
    """In the place of `old`, in one step."""
    _change_chain(Command.PROG_ATTACH, ifindex, attach_type, program, F_REPLACE, old)


def detach_program(ifindex: int, attach_type: int, program: int) -> None:
    _change_chain(Command.PROG_DETACH, ifindex, attach_type, program)


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
