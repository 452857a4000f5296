"""Maps of maps: what is in one, for a daemon with no memory and without CAP_SYS_ADMIN.

The kernel tells of a place in such a map the id of what is there, and opens nothing by id (`bpf`). So
whatever is put in one is pinned under its id. The pin comes before the map is put there, and goes after
another has taken its place: whenever a daemon is killed, each map that is in use has its pin. What is pinned
and nowhere in use, the next daemon unpins."""

import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vsfwd.datapath import bpf

INNER: Final = "inner"
"""The directory of these pins, beside the pins of the maps that they are in."""


class MapOfMaps:
    """An array of maps, by its descriptor, which is the caller's."""

    def __init__(self, fd: int, pins: Path) -> None:
        self._fd, self._pins = fd, pins

    def get(self, index: int) -> int | None:
        """A descriptor of what is there. None: nothing, or nothing that is pinned."""
        id_ = bpf.inner_id(self._fd, index)
        if id_ is not None:
            with suppress(FileNotFoundError):
                return bpf.pinned(self._pins / str(id_))
        return None

    def put(self, index: int, inner: int) -> None:
        """Returns after a grace period: no program sees the map that was there."""
        before, id_ = bpf.inner_id(self._fd, index), bpf.object_id(inner)
        if id_ == before:
            bpf.put_inner(self._fd, index, inner)
            return
        pin = self._pins / str(id_)
        bpf.pin(inner, pin)
        try:
            bpf.put_inner(self._fd, index, inner)
        except OSError:
            pin.unlink()
            raise
        self._unpin(before)

    def empty(self, index: int) -> None:
        before = bpf.inner_id(self._fd, index)
        bpf.delete(self._fd, struct.pack("<I", index))
        self._unpin(before)

    def _unpin(self, id_: int | None) -> None:
        if id_ is not None:
            (self._pins / str(id_)).unlink(missing_ok=True)

    def ids(self) -> set[int]:
        """Of all that are in it."""
        places = range(bpf.shape_of(self._fd).entries)
        return {id_ for index in places if (id_ := bpf.inner_id(self._fd, index)) is not None}


def tidy(pins: Path, outers: Iterable[MapOfMaps]) -> None:
    """Unpins what is in none of them: all that have their pins there."""
    used = {id_ for outer in outers for id_ in outer.ids()}
    for pin in pins.iterdir():
        if int(pin.name) not in used:
            pin.unlink()
