"""Locked sections: who locked one changes it and its rules, and nobody else. As in NSX, an enterprise admin
is not locked out."""

from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime

from manager_stub import audit
from manager_stub.checks import Refused
from manager_stub.model import SecurityPolicy
from manager_stub.world import World, kind_of, parent_of

is_enterprise_admin: ContextVar[bool] = ContextVar("is_enterprise_admin", default=False)
"""Whether the `audit.actor` is one; set where that is."""


def check_locks(world: World, paths: Iterable[str]) -> None:
    """That whoever is at it may change these objects of `world`. Raises Refused."""
    user = audit.actor.get()
    if user == audit.SYSTEM or is_enterprise_admin.get():
        return
    for path in paths:
        section = world.sections.get(parent_of(path) if kind_of(path) == "rules" else path)
        if section is None or not section.body.locked or section.body.lock_modified_by == user:
            continue
        since = datetime.fromtimestamp((section.body.lock_modified_time or 0) / 1000, UTC)
        why = f": {section.body.comments}" if section.body.comments else ""
        by = f"{section.body.lock_modified_by} since {since.isoformat(timespec='seconds')}"
        raise Refused("locked", f"{section.path} is locked by {by}{why}")


def signed(body: SecurityPolicy, before: SecurityPolicy | None, now_ms: int) -> SecurityPolicy:
    """A section with who locked or unlocked it last, whatever the body says of that."""
    who = before.lock_modified_by if before else None
    when = before.lock_modified_time if before else None
    if body.locked != (before is not None and before.locked):
        who, when = audit.actor.get(), now_ms
    return body.model_copy(update={"lock_modified_by": who, "lock_modified_time": when})
