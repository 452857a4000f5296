"""The audit log: who changed what, when, from what to what. Rows are made here, stored in the transaction of
the change itself, and only ever added to.

Who is at it is the request's matter and known at the door, far from where a change is written: `actor` is
set there for all that the request does.
"""

import json
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from manager_stub.rows import document_of
from manager_stub.store import Row
from manager_stub.world import World

SYSTEM: Final = "system"
"""Who is no user, and no user may be called: a new release, a confirmation that did not come. Hosts are
"host <id>", which is no name."""

_HOST: Final = "host "

actor: ContextVar[str] = ContextVar("actor", default=SYSTEM)


def host_actor(host: str) -> str:
    return f"{_HOST}{host}"


def host_of(actor: str) -> str:
    """The id of the host that it is; empty if it is none."""
    return actor.removeprefix(_HOST) if actor.startswith(_HOST) else ""


def change(path: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, now_ms: int) -> Row:
    return _row(path, before and json.dumps(before), after and json.dumps(after), now_ms)


def changes(world: World, put: Iterable[Row], delete: Iterable[str], now_ms: int) -> list[Row]:
    """Of a change of `world`. What is put as it was is no change."""
    gone = [_row(path, document_of(stored), None, now_ms) for path in delete if (stored := world.get(path))]
    made = []
    for row in put:
        stored = world.get(row["path"])
        before = document_of(stored) if stored else None
        if before != row["document"]:
            made.append(_row(row["path"], before, row["document"], now_ms))
    return gone + made


def configuration(display_name: str, now_ms: int, *, automatic: bool) -> Row:
    """A saved configuration, which is a place in this log."""
    return {
        "display_name": display_name,
        "automatic": automatic,
        "user": actor.get(),
        "time_ms": now_ms,
    }


def _row(path: str, before: Any, after: Any, now_ms: int) -> Row:
    return {"time_ms": now_ms, "user": actor.get(), "path": path, "before": before, "after": after}
