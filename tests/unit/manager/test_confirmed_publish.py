"""Changes that undo themselves unless somebody confirms them."""

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from manager_stub import publish
from manager_stub.publish import Publishing
from manager_stub.register import Register
from manager_stub.transaction import Transaction
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

pytestmark = pytest.mark.slow

PUBLISH = f"{VSFW}/publish"
GROUP = f"{DOMAIN}/groups/g"


def later(manager: Manager, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    at = publish.now_ms() + seconds * 1000
    monkeypatch.setattr(publish, "now_ms", lambda: at)
    manager.parts.publishing.expire()


async def described(manager: Manager) -> Any:
    return (await manager.call("GET", GROUP))["description"]


@pytest.fixture
async def changed(manager: Manager) -> Manager:
    """One change of the group before a window, one within."""
    await manager.call("PUT", GROUP, {"description": "one"})
    await manager.call("POST", f"{PUBLISH}?action=begin&confirm_within=60")
    await manager.call("PATCH", GROUP, {"description": "two"})
    return manager


async def test_what_nobody_confirms_is_undone_at_its_time(
    changed: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before; then the policy is as it was, and nothing waits any more."""
    later(changed, monkeypatch, 59)
    assert await described(changed) == "two"
    later(changed, monkeypatch, 2)
    assert await described(changed) == "one"
    assert await changed.call("GET", PUBLISH) == {"waiting": False}
    newest = (await changed.call("GET", f"{VSFW}/audit-log?path={GROUP.removeprefix('/policy/api/v1')}"))[
        "results"
    ][0]
    assert newest["user"] == "system"


async def test_what_is_confirmed_stays(changed: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the time."""
    assert (await changed.call("GET", PUBLISH))["user"] == "admin"
    await changed.call("POST", f"{PUBLISH}?action=confirm")
    later(changed, monkeypatch, 61)
    assert await described(changed) == "two"
    assert (await changed.answer("POST", f"{PUBLISH}?action=confirm")).status_code == 409


async def test_it_can_be_undone_before_its_time(changed: Manager) -> None:
    """By hand."""
    await changed.call("POST", f"{PUBLISH}?action=roll_back")
    assert await described(changed) == "one"
    assert await changed.call("GET", PUBLISH) == {"waiting": False}


@pytest.mark.parametrize("fails", ["put_objects", "close_window"])
async def test_what_a_full_disk_does_not_take_waits_on(
    changed: Manager, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Whoever undoes it, or the time: nothing is confirmed by that. It is undone when there is room."""

    def full(*_: Any) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, fails, full)
        assert (await changed.answer("POST", f"{PUBLISH}?action=roll_back")).status_code == 503
        assert (await changed.call("GET", PUBLISH))["waiting"]
        later(changed, monkeypatch, 61)
        assert (await changed.call("GET", PUBLISH))["waiting"]
    later(changed, monkeypatch, 31)
    assert await described(changed) == "one"
    assert await changed.call("GET", PUBLISH) == {"waiting": False}


async def test_a_window_that_a_full_disk_does_not_take_is_not_open(manager: Manager) -> None:
    """It was refused: what is changed after that is not undone at some time."""

    def full(_: sa.Connection) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    engine = manager.parts.store._engine
    sa.event.listen(engine, "commit", full)
    refused = await manager.answer("POST", f"{PUBLISH}?action=begin&confirm_within=60")
    sa.event.remove(engine, "commit", full)
    assert refused.status_code == 503
    assert await manager.call("GET", PUBLISH) == {"waiting": False}


async def test_a_restart_does_not_confirm(changed: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time runs out while the manager is away: it is undone when it is back."""
    register = Register(changed.parts.store, changed.directory.signing_key())
    publishing = Publishing(changed.parts.store, register)
    at = publish.now_ms() + 61_000
    monkeypatch.setattr(publish, "now_ms", lambda: at)
    publishing.expire()
    assert register.world.groups[GROUP.removeprefix("/policy/api/v1")].body.description == "one"
    assert Publishing(changed.parts.store, register).window is None


async def test_nobody_else_publishes_meanwhile(changed: Manager) -> None:
    """Their change would be undone with it: 409. Tags of VMs are no policy."""
    user = {"role": "security_engineer", "password": "a password of length"}
    await changed.call("PUT", f"{VSFW}/users/eve", user)
    changed.rest.auth = ("eve", user["password"])
    answer = await changed.answer("PATCH", GROUP, {"description": "hers"})
    assert answer.status_code == 409
    assert "admin waits to be confirmed" in answer.json()["error_message"]
    vm = "11111111-0000-4000-8000-000000000001"
    await changed.call("PUT", f"{VSFW}/vms/{vm}", {"display_name": "web"})
    assert (await changed.answer("POST", f"{PUBLISH}?action=begin&confirm_within=60")).status_code == 409


@pytest.mark.parametrize(("action", "left"), [("confirm", "two"), ("roll_back", "one")])
async def test_who_began_decides_or_an_enterprise_admin(manager: Manager, action: str, left: str) -> None:
    """Another security admin neither confirms nor undoes it: 409, and it waits as before."""
    admin, password = manager.rest.auth, "a password of length"
    for name in ("eve", "bob"):
        user = {"role": "security_engineer", "password": password}
        await manager.call("PUT", f"{VSFW}/users/{name}", user)
    for decides in (("eve", password), admin):
        manager.rest.auth = ("eve", password)
        await manager.call("PATCH", GROUP, {"description": "one"})
        await manager.call("POST", f"{PUBLISH}?action=begin&confirm_within=60")
        await manager.call("PATCH", GROUP, {"description": "two"})
        manager.rest.auth = ("bob", password)
        answer = await manager.answer("POST", f"{PUBLISH}?action={action}")
        assert answer.status_code == 409
        assert "eve waits to be confirmed" in answer.json()["error_message"]
        assert (await manager.call("GET", PUBLISH))["waiting"]
        manager.rest.auth = decides
        await manager.call("POST", f"{PUBLISH}?action={action}")
        assert await described(manager) == left


async def test_a_draft_is_published_until_it_is_confirmed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one call; one that is refused leaves nothing that waits."""
    child = {"resource_type": "ChildGroup", "Group": {"id": "g"}}
    domain = {"resource_type": "ChildResourceReference", "target_type": "Domain", "id": "default"}
    await manager.call(
        "PUT", f"{INFRA}/drafts/d", {"user_area": {"children": [domain | {"children": [child]}]}}
    )
    await manager.call("POST", f"{INFRA}/drafts/d?action=publish&confirm_within=5")
    assert await described(manager) == ""
    later(manager, monkeypatch, 6)
    assert (await manager.answer("GET", GROUP)).status_code == 404
    service = {"resource_type": "ChildService", "Service": {"id": "SSH"}, "marked_for_delete": True}
    await manager.call("PUT", f"{INFRA}/drafts/d", {"user_area": {"children": [service]}})
    refused = await manager.answer("POST", f"{INFRA}/drafts/d?action=publish&confirm_within=5")
    assert refused.status_code == 400
    assert await manager.call("GET", PUBLISH) == {"waiting": False}
