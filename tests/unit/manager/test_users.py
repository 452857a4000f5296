"""Users and API tokens: made, changed, gone, and what that means for who is logged in."""

import pytest

from manager_stub import users
from tests.unit.manager.rest import VSFW, Manager

PASSWORD = "a password of length"
USER = {"role": "auditor", "password": PASSWORD}


async def test_a_user_may_log_in_from_the_moment_they_are_made(manager: Manager) -> None:
    """With the role they were given, which they are told; their password is shown nowhere."""
    made = await manager.call("PUT", f"{VSFW}/users/eve", USER)
    assert made == {"name": "eve", "role": "auditor"}
    assert [user["name"] for user in (await manager.call("GET", f"{VSFW}/users"))["results"]] == [
        "admin",
        "eve",
    ]
    manager.rest.auth = ("eve", PASSWORD)
    info = await manager.call("GET", "/api/v1/aaa/user-info")
    assert info == {"user_name": "eve", "roles": [{"role": "auditor"}]}


async def test_a_user_who_is_deleted_is_out_at_once(manager: Manager) -> None:
    """By password, also one that was right before, by session, and by token."""
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    admin, manager.rest.auth = manager.rest.auth, ("eve", PASSWORD)
    token = (await manager.call("POST", f"{VSFW}/tokens", {"display_name": "t"}))["token"]
    session = await login(manager)
    manager.rest.auth = admin
    await manager.call("DELETE", f"{VSFW}/users/eve")
    manager.rest.auth = None
    for headers in ({"Authorization": f"Bearer {token}"}, session):
        assert (await manager.rest.get("/api/v1/node", headers=headers)).status_code == 403
    assert (await manager.rest.get("/api/v1/node", auth=("eve", PASSWORD))).status_code == 403


async def login(manager: Manager) -> dict[str, str]:
    form = {"j_username": "eve", "j_password": PASSWORD}
    made = await manager.rest.post("/api/session/create", data=form)
    assert made.status_code == 200
    cookie = made.headers["Set-Cookie"].partition(";")[0]
    manager.rest.cookies.clear()
    return {"Cookie": cookie, "X-XSRF-TOKEN": made.headers["X-XSRF-TOKEN"]}


async def test_a_new_password_ends_the_old_one_and_its_sessions(manager: Manager) -> None:
    """Changed by its owner, who has to know the old one."""
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    manager.rest.auth = ("eve", PASSWORD)
    session = await login(manager)
    wrong = {"old_password": "not the old one", "password": "another of length"}
    assert (await manager.answer("POST", f"{VSFW}/own-password", wrong)).status_code == 403
    await manager.call("POST", f"{VSFW}/own-password", wrong | {"old_password": PASSWORD})
    assert (await manager.answer("GET", "/api/v1/node")).status_code == 403
    assert (await manager.rest.get("/api/v1/node", auth=None, headers=session)).status_code == 403
    assert (await manager.rest.get("/api/v1/node", auth=("eve", "another of length"))).status_code == 200


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("eve", {"role": "auditor"}),
        ("eve", USER | {"role": "root"}),
        ("eve", USER | {"password": "short"}),
        ("Eve", USER),
        ("eve", USER | {"surprise": 1}),
        ("admin", {"role": "auditor"}),
    ],
)
async def test_a_user_that_cannot_be_is_refused(manager: Manager, name: str, body: object) -> None:
    """No password, no such role, too short, no name, an unknown field, no enterprise admin left: 400."""
    before = dict(manager.parts.users.all)
    assert (await manager.answer("PUT", f"{VSFW}/users/{name}", body)).status_code == 400
    assert manager.parts.users.all == before
    assert (await manager.answer("DELETE", f"{VSFW}/users/admin")).status_code == 400


async def test_a_token_stands_for_its_user_until_it_is_revoked_or_expires(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restart; the database has a hash only; another user cannot revoke it."""
    made = await manager.call("POST", f"{VSFW}/tokens", {"display_name": "ci", "lifetime_s": 60})
    assert made["token"] not in (manager.directory.path / "manager.db").read_bytes().decode("latin1")
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    foreign = await manager.rest.delete(f"{VSFW}/tokens/{made['id']}", auth=("eve", PASSWORD))
    assert foreign.status_code == 404
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 200
    again = users.Users(manager.parts.store)
    assert again.of_token(made["token"]) == "admin"
    monkeypatch.setattr(users, "_now_ms", lambda: made["expires"])
    assert again.of_token(made["token"]) is None
    monkeypatch.undo()
    await manager.call("DELETE", f"{VSFW}/tokens/{made['id']}")
    assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 403
    assert users.Users(manager.parts.store).of_token(made["token"]) is None
