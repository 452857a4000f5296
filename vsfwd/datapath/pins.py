"""Pins that a daemon with other structs has left beside those of this one (bpf/README.md, Maps).

They go when no device bears that daemon's programs any more, and not before: what is attached goes on with
the stages in a pinned map, which the kernel empties when nobody in user space refers to it."""

import errno
import re
import shutil
from pathlib import Path
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.attach import TWINS

_SCHEMA: Final = re.compile(r"[0-9a-f]{16}")
_ATTACHED: Final = (*TWINS["in"], *TWINS["out"])
"""Programs that live while a device bears them, once the daemon that loaded them is gone and they are not
pinned."""
_STAGES: Final = "stages"
"""The map that every attached program uses, and that no daemon takes over from one with other structs."""


def remove_older(current: Path) -> list[str]:
    """All beside `current` that no program needs; answers which."""
    beside = [path for path in current.parent.iterdir() if _SCHEMA.fullmatch(path.name) and path != current]
    needed = _maps_of_attached() if beside else set()
    older = [path for path in beside if not (path / _STAGES).exists() or _id(path) not in needed]
    for path in older:
        shutil.rmtree(path)
    return sorted(path.name for path in older)


def _id(pins: Path) -> int:
    return bpf.pinned_id(pins / _STAGES)


def _maps_of_attached() -> set[int]:
    found: set[int] = set()
    for id_ in bpf.programs():
        try:
            with bpf.program_by_id(id_) as fd:
                if bpf.program_info(fd).name in _ATTACHED:
                    found |= set(bpf.program_map_ids(fd))
        except OSError as error:
            if error.errno != errno.ENOENT:  # it has gone meanwhile
                raise
    return found
