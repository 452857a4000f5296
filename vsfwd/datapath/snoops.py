"""Frames by which vNICs claim addresses or are given them, from the programs' ring buffer.

Its reader is bcc's, but not the module's: that one drains every ring at once, and the packet log's events
would wait for the next of them. What found the ring full, or came faster than the rate, is not seen: whoever
owns an address claims it again."""

import ctypes
import struct
from dataclasses import dataclass
from typing import Any, Final

from bcc.libbcc import _RINGBUF_CB_TYPE, lib

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import DIRECTIONS, Programs

AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Snoop:
    """`frame` may be cut off at its end."""

    slot: int
    direction: str
    frame: bytes


class Snoops:
    def __init__(self, programs: Programs) -> None:
        self._layout = programs.layouts("snoop_draft")[1]
        self._buckets = programs.fd("snoop_buckets")
        self._requests = programs.fd("dhcp_requests")
        self._request_size = programs.layouts("dhcp_requests")[1].size
        self._received: list[Snoop] = []
        self._callback = _RINGBUF_CB_TYPE(self._receive)
        self.fd = programs.fd("snoops")
        """Readable when there are frames."""
        self._reader = lib.bpf_new_ringbuf(self.fd, self._callback, None)
        if not self._reader:
            raise DatapathError("read the ring of snooped frames: no memory")

    def _receive(self, context: Any, data: Any, size: int) -> int:
        """Below zero: enough for now."""
        snoop = self._layout.unpack(ctypes.string_at(data, self._layout.size))
        self._received.append(
            Snoop(snoop["slot"], DIRECTIONS[snoop["direction"]], snoop["frame"][: snoop["length"]])
        )
        return -(len(self._received) >= AT_ONCE)

    def poll(self) -> list[Snoop]:
        """What there is, without waiting."""
        lib.bpf_consume_ringbuf(self._reader)
        received, self._received = self._received, []
        return received

    def reset(self, slot: int) -> None:
        """A new vNIC does not pay for the one that had its slot, and has asked nothing yet."""
        for place in (slot * 2, slot * 2 + 1):
            bpf.update(self._buckets, struct.pack("<I", place), bytes(8))
            bpf.update(self._requests, struct.pack("<I", place), bytes(self._request_size))

    def close(self) -> None:
        lib.bpf_free_ringbuf(self._reader)
