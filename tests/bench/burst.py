"""Frames out of a packet socket as fast as a core sends them, by sendmmsg()."""

import ctypes
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

BATCH: Final = 64
_SOL_PACKET, _QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr. Its end is padded, so nothing in struct mmsghdr lies right behind `flags`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Burst:
    """These frames, all of one length, from a device: one after the other, then from the first again."""

    def __init__(self, device: str, frames: Sequence[bytes]) -> None:
        assert len(frames) % BATCH == 0
        self._device = device
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._content = ctypes.create_string_buffer(b"".join(frames))
        self._vectors = (_Vector * len(frames))()
        self._messages = (_Message * len(frames))()
        for i, frame in enumerate(frames):
            self._vectors[i] = _Vector(ctypes.addressof(self._content) + i * len(frame), len(frame))
            at = ctypes.addressof(self._vectors) + i * ctypes.sizeof(_Vector)
            self._messages[i].header.vectors, self._messages[i].header.vector_count = at, 1
        self._next = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((device, 0))
        self._socket.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)

    def send(self) -> int:
        """The next BATCH of them; how many went."""
        at = ctypes.byref(self._messages, self._next * ctypes.sizeof(_Message))
        sent = self._libc.sendmmsg(self._socket.fileno(), at, BATCH, 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), f"sendmmsg on {self._device}")
        self._next = (self._next + BATCH) % len(self._messages)
        return int(sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
