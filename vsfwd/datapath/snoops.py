"""Frames by which vNICs claim addresses or are given them, from the programs' ring buffer.

What found the ring full, or came faster than the rate, is not seen: whoever
owns an address claims it again."""

import struct
from dataclasses import dataclass

from vsfwd.datapath import bpf
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.ring import Ring
from vsfwd.datapath.schema import DIRECTIONS


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
        self.ring = Ring(programs.fd("snoops"), self._layout.size, self._snoop)

    def _snoop(self, raw: bytes) -> Snoop:
        snoop = self._layout.unpack(raw)
        return Snoop(snoop["slot"], DIRECTIONS[snoop["direction"]], snoop["frame"][: snoop["length"]])

    def reset(self, slot: int) -> None:
        """A new vNIC does not pay for the one that had its slot, and has asked nothing yet."""
        for place in (slot * 2, slot * 2 + 1):
            bpf.update(self._buckets, struct.pack("<I", place), bytes(8))
            bpf.update(self._requests, struct.pack("<I", place), bytes(self._request_size))
