"""Pins that other versions have left beside those of this daemon (bpf/README.md, Maps).

They go when no device bears their programs any more, and not before: by its pins a program is known as ours
(`known`), and what is attached goes on with the stages in a pinned map, which the kernel empties when nobody
in user space refers to it."""

import re
import shutil
from pathlib import Path
from typing import Final

from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.known import PROGRAMS

SCHEMA: Final = re.compile(r"[0-9a-f]{16}")
"""How directories of pins are named, each of one schema."""


def remove_older(current: Path, hooks: Hooks) -> list[str]:
    """Directories of programs beside `current` that no device bears, and schemas without any; answers these.
    Raises OSError."""
    schemas = [path for path in current.parents[1].iterdir() if SCHEMA.fullmatch(path.name)]
    texts = [path for schema in schemas for path in schema.glob(f"{PROGRAMS}*") if path != current]
    if texts or len(schemas) > 1:
        hooks.known.read()
        borne = hooks.borne() if texts else set()
        for path in texts:
            if not hooks.known.below(path) & borne:
                shutil.rmtree(path)
        hooks.known.read()
    older = [path for path in schemas if path != current.parent and not any(path.glob(f"{PROGRAMS}*"))]
    for path in older:
        shutil.rmtree(path)
    return sorted(path.name for path in older)
