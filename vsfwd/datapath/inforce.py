"""Of which policy the tables in force are made: what a daemon that comes back compares its own with.

Owns the pinned map `in_force`, which no program reads. A name counts only under the `policy_seq` it was
remembered with: whatever else may alter a verdict raises that, and so forgets the name."""

import struct
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.loader import IN_FORCE, Programs
from vsfwd.datapath.maps import Policy

LAYOUT: Final = struct.Struct("<Q32s")
"""Sequence and name."""
NEVER: Final = 2**64 - 1
"""No sequence: of a name that is only the last."""


def remembered(fd: int) -> tuple[int, bytes]:
    """What such a map has: sequence and name."""
    sequence, name = LAYOUT.unpack(bpf.lookup(fd, bytes(4), LAYOUT.size) or bytes(LAYOUT.size))
    return sequence, name


class InForce:
    def __init__(self, programs: Programs, policy: Policy) -> None:
        self._fd, self._policy = programs.fd(IN_FORCE), policy

    def name(self) -> bytes:
        """None is empty."""
        sequence, name = remembered(self._fd)
        return name if sequence == self._policy.seq else b""

    def last(self) -> bytes:
        """Whatever has altered verdicts since."""
        return remembered(self._fd)[1]

    def remember(self, name: bytes, *, ahead: bool = False) -> None:
        bpf.update(self._fd, bytes(4), LAYOUT.pack(NEVER if ahead else self._policy.seq, name))
