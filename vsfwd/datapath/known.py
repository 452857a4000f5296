"""The programs for devices, of whichever version: what a device bears is ours if it is pinned under
`pin_dir`.

The kernel tells of a device the ids of its programs, which `bpf` opens nothing by; so a program stays pinned
as long as a device may bear it (`pins`)."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from vsfwd.datapath import bpf

TWINS: Final = {"out": ("vnic_out", "vnic_out_again"), "in": ("vnic_in", "vnic_in_again")}
PROGRAMS: Final = "programs-"
"""How directories of programs begin: each has those of one text, and is in that of its schema."""


class _Pinned(NamedTuple):
    fd: int
    directory: Path


class Known(Mapping[int, int]):
    """Descriptors by id."""

    def __init__(self, pin_dir: Path) -> None:
        self._pin_dir = pin_dir
        self._programs: dict[int, _Pinned] = {}
        self.read()

    def read(self) -> None:
        """Again, after some have come or gone. Raises OSError, and then knows what it knew."""
        found = {}
        with ExitStack() as unless_read:
            for directory in self._pin_dir.glob(f"*/{PROGRAMS}*"):
                for name in (name for pair in TWINS.values() for name in pair):
                    if (directory / name).exists():
                        fd = bpf.pinned(directory / name)
                        unless_read.callback(os.close, fd)
                        found[bpf.object_id(fd)] = _Pinned(fd, directory)
            unless_read.pop_all()
        before, self._programs = self._programs, found
        _close(before)

    def below(self, directory: Path) -> set[int]:
        """Ids of those that are pinned there, of one text or of one schema."""
        return {id_ for id_, each in self._programs.items() if each.directory.is_relative_to(directory)}

    def __getitem__(self, id_: int) -> int:
        return self._programs[id_].fd

    def __iter__(self) -> Iterator[int]:
        return iter(self._programs)

    def __len__(self) -> int:
        return len(self._programs)

    def close(self) -> None:
        _close(self._programs)
        self._programs = {}


def _close(programs: Mapping[int, _Pinned]) -> None:
    for each in programs.values():
        os.close(each.fd)
