"""The audit log: who changed what, when, from what to what. Rows are made here, stored in the transaction of
the change itself, and only ever added to.

Who is at it is the request's matter and known at the door, far from where a change is written: `actor` is
set there for all that the request does.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from manager_stub.rows import document_of
from manager_stub.transaction import Row
from manager_stub.world import World

SYSTEM: Final = "system"
"""Who is no user, and no user may be called: a new release, a confirmation that did not come. Hosts are
"host <id>", which is no name."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of a host's lines: each of the VMs of a full one may change a few times."""
PERIOD_MS: Final = 24 * 3600 * 1000

_HOST: Final = "host "

actor: ContextVar[str] = ContextVar("actor", default=SYSTEM)


def host_actor(host: str) -> str:
    return f"{_HOST}{host}"


@contextmanager
def as_host(host: str) -> Iterator[None]:
    """What is changed here is so since the host says it."""
    before = actor.set(host_actor(host))
    try:
        yield
    finally:
        actor.reset(before)


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


@dataclass
class _Share:
    """Since when a host's lines are counted, their bytes, and how many were left out."""

    since_ms: int
    size: int = 0
    left_out: int = 0


class Shares:
    """How much of the log is about what a host says: MAX_BYTES in PERIOD_MS, for it may say something else
    every moment. What is over is left out; that it is, and how many lines it was, are lines of their own.
    That something was made is never left out: of that there is an end, and the log is asked who made it."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}

    def kept(self, rows: Sequence[Row], now_ms: int) -> list[Row]:
        """The lines, without those that are over."""
        kept: list[Row] = []
        for row in rows:
            host = host_of(row["user"])
            kept += self._of_host(host, row, now_ms) if host else [row]
        return kept

    def _of_host(self, host: str, row: Row, now_ms: int) -> Iterator[Row]:
        path = f"/vsfw/hosts/{host}/audit-log"
        share = self._shares.setdefault(host, _Share(now_ms))
        if now_ms >= share.since_ms + PERIOD_MS:
            if share.left_out:
                yield change(path, None, {"left_out": share.left_out}, now_ms)
            share = self._shares[host] = _Share(now_ms)
        share.size += len(row["before"] or "") + len(row["after"] or "")
        if share.size <= MAX_BYTES or row["before"] is None:
            yield row
            return
        if not share.left_out:
            yield change(path, None, {"left_out_until": share.since_ms + PERIOD_MS}, now_ms)
        share.left_out += 1


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
