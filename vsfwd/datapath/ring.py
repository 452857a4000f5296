"""A reader of a ring buffer map, by libbpf, which bcc depends on."""

import ctypes
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from vsfwd.datapath.errors import DatapathError

T = TypeVar("T")

AT_ONCE: Final = 1000
"""Records that one `poll` takes: under a flood there are always more."""
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libbpf = ctypes.CDLL("libbpf.so.1")
_libbpf.ring_buffer__new.restype = ctypes.c_void_p
_libbpf.ring_buffer__new.argtypes = [ctypes.c_int, _CALLBACK, ctypes.c_void_p, ctypes.c_void_p]
_libbpf.ring_buffer__consume.argtypes = _libbpf.ring_buffer__free.argtypes = [ctypes.c_void_p]


class Ring(Generic[T]):
    """`read` makes of the first `size` bytes of a record what `poll` answers."""

    def __init__(self, fd: int, size: int, read: Callable[[bytes], T]) -> None:
        self.fd = fd
        """Readable when there are records."""
        self._size, self._read = size, read
        self._received: list[T] = []
        self._callback = _CALLBACK(self._receive)
        self._ring = _libbpf.ring_buffer__new(fd, self._callback, None, None)
        if not self._ring:
            raise DatapathError(f"read ring buffer {fd}: no memory")

    def _receive(self, context: Any, data: Any, size: int) -> int:
        """Below zero: enough for now."""
        self._received.append(self._read(ctypes.string_at(data, self._size)))
        return -(len(self._received) >= AT_ONCE)

    def poll(self) -> list[T]:
        """What there is, without waiting."""
        _libbpf.ring_buffer__consume(self._ring)
        received, self._received = self._received, []
        return received

    def close(self) -> None:
        _libbpf.ring_buffer__free(self._ring)
