"""Publishing with a way back: saved configurations, drafts, and changes that undo themselves unless somebody
confirms them.

A saved configuration is a place in the audit log: to go back to it is to undo what the policy went through
since, so that saving costs nothing and happens with every change. A confirmation window is stored, so that
it ends at its time also when the manager was restarted meanwhile.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy.exc import OperationalError

from manager_stub import audit
from manager_stub.checks import Conflict, Refused
from manager_stub.clock import now_ms
from manager_stub.locks import is_enterprise_admin
from manager_stub.model import Entity
from manager_stub.register import Register
from manager_stub.rows import document_of
from manager_stub.store import Store, TooMuch
from manager_stub.transaction import Row
from manager_stub.world import MODELS, World, is_policy, kind_of

MAX_MANUAL: Final = 50
"""Configurations saved by hand, of the hundred that are kept."""
RETRY_MS: Final = 30_000
_SAVED: Final = "/vsfw/configurations"
_PUBLISH: Final = "/vsfw/publish"
_DRAFTS: Final = "/infra/drafts"

log = structlog.get_logger("manager.publish")


@dataclass(frozen=True)
class Change:
    """Objects to put and to delete."""

    put: Mapping[str, Entity]
    delete: list[str]

    def diff(self, world: World, check: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """By path, what each object is and what it would be. `check` is called for each, and may end it by
        raising."""
        shown = []
        for path in sorted({*self.delete, *self.put}):
            check()
            stored = world.get(path)
            before = _said(stored.body) if stored else None
            after = _said(self.put[path]) if path in self.put else None
            if before != after:
                shown.append({"path": path, "before": before, "after": after})
        return shown


def _said(body: Entity) -> dict[str, Any]:
    """What is not so anyway."""
    return body.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"id", "revision"})


class Publishing:
    def __init__(self, store: Store, register: Register) -> None:
        self._store = store
        self._register = register
        self.window = store.window()
        """What waits to be confirmed: user, deadline_ms, change."""
        register.check_publish = self._check_window

    # Saved configurations

    def saved(self, id: int) -> Row | None:
        return next((row for row in self._store.configurations() if row["id"] == id), None)

    def all_saved(self) -> list[Row]:
        """The newest first."""
        return self._store.configurations()[::-1]

    def save(self, display_name: str) -> Row:
        """Raises Refused."""
        if sum(not row["automatic"] for row in self.all_saved()) >= MAX_MANUAL:
            raise Refused("", f"{MAX_MANUAL} configurations are saved by hand, which is the limit")
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(_SAVED, None, {"display_name": display_name}, now_ms())])
            transaction.add_configuration(audit.configuration(display_name, now_ms(), automatic=False))
        return self.all_saved()[0]

    def forget(self, row: Row) -> None:
        name = {"display_name": row["display_name"]}
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(f"{_SAVED}/{row['id']}", name, None, now_ms())])
            transaction.delete_configuration(row["id"])

    def way_back(self, world: World, change: int) -> Change:
        """What undoes all that happened to the policy after that change. Inventory, users and hosts stay. May
        be asked beside the loop."""
        first: dict[str, str | None] = {}
        for row in self._store.changes_since(change):
            if is_policy(row["path"]):
                first.setdefault(row["path"], row["before"])
        put: dict[str, Entity] = {}
        delete = []
        for path, before in first.items():
            stored = world.get(path)
            if before is not None and (stored is None or document_of(stored) != before):
                put[path] = MODELS[kind_of(path)].model_validate(json.loads(before))
            elif before is None and stored is not None and not stored.system_owned:
                delete.append(path)  # what a new release brought is predefined, and stays
        return Change(put, delete)

    def roll_back(self, change: int) -> None:
        """All or nothing. Raises Refused."""
        back = self.way_back(self._register.world, change)
        self._register.write(put=back.put, delete=back.delete)
        log.warning("rolled back", user=audit.actor.get(), to_change=change, objects=len(back.put))

    # Confirmation

    def open_window(self, seconds: int) -> None:
        """From now on changes of the policy are undone after that time, unless they are confirmed. Raises
        Conflict when a window is open."""
        if self.window is not None:
            raise Conflict("", f"{self._waiting()} already")
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(_PUBLISH, None, {"confirm_within": seconds}, now_ms())])
            window = transaction.open_window(audit.actor.get(), now_ms() + seconds * 1000)
        self.window = window

    def check_own(self) -> None:
        """That whoever is at it may end what waits: who began it, or an enterprise admin. Raises Conflict."""
        assert self.window is not None
        if audit.actor.get() != self.window["user"] and not is_enterprise_admin.get():
            raise Conflict("", f"{self._waiting()}; who began it, or an enterprise admin, ends it")

    def close_window(self) -> None:
        """What was changed stays."""
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(_PUBLISH, {"waiting": True}, None, now_ms())])
            transaction.close_window()
        self.window = None

    def undo_window(self) -> None:
        """What was changed is undone, now; the window stays where it cannot be. Raises Refused, and what the
        store raises."""
        held, self.window = self.window, None
        if held is None:
            return
        try:
            self.roll_back(held["change"])
            self.close_window()
        except Exception:
            self.window = held
            raise

    def expire(self) -> None:
        """Undo what was not confirmed in time."""
        if self.window is None or now_ms() < self.window["deadline_ms"]:
            return
        log.warning("a publish was not confirmed", user=self.window["user"])
        try:
            self.undo_window()
        except (Refused, TooMuch, OperationalError) as refused:
            log.error("it cannot be undone; tried again", reason=str(refused))
            self.window |= {"deadline_ms": now_ms() + RETRY_MS}

    def _check_window(self) -> None:
        if self.window is not None and audit.actor.get() not in (self.window["user"], audit.SYSTEM):
            raise Conflict("", self._waiting())

    def _waiting(self) -> str:
        assert self.window is not None
        left = max(0, self.window["deadline_ms"] - now_ms()) // 1000
        return f"a publish of {self.window['user']} waits to be confirmed, for {left} s more"

    # Drafts

    @property
    def drafts(self) -> Mapping[str, Row]:
        """By id: display_name, user, modified_ms, tree, revisions."""
        return {
            id: row | {"tree": json.loads(row["tree"]), "revisions": json.loads(row["revisions"])}
            for id, row in self._store.drafts().items()
        }

    def keep_draft(self, id: str, display_name: str, tree: Any, change: Change) -> None:
        """`change`: what the tree would do today. Objects that are in the draft already keep the revision
        they came with."""
        known = self.drafts[id]["revisions"] if id in self.drafts else {}
        revisions = {path: known.get(path, self._revision(path)) for path in (*change.put, *change.delete)}
        row = {
            "id": id,
            "display_name": display_name,
            "user": audit.actor.get(),
            "modified_ms": now_ms(),
            "tree": json.dumps(tree),
            "revisions": json.dumps(revisions),
        }
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(f"{_DRAFTS}/{id}", None, {"user_area": tree}, now_ms())])
            transaction.put_draft(row)

    def check_revisions(self, id: str) -> None:
        """Raises Conflict when somebody changed an object since it came into the draft."""
        for path, revision in self.drafts[id]["revisions"].items():
            if self._revision(path) != revision:
                raise Conflict("_revision", f"{path} was changed since it came into the draft")

    def drop_draft(self, id: str) -> None:
        with self._store.begin() as transaction:
            gone = {"user_area": self.drafts[id]["tree"]}
            transaction.add_changes([audit.change(f"{_DRAFTS}/{id}", gone, None, now_ms())])
            transaction.delete_draft(id)

    def _revision(self, path: str) -> int:
        stored = self._register.world.get(path)
        return stored.revision if stored else -1
