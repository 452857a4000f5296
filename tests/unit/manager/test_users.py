"""Users and API tokens: made, changed, gone, and what that means for who is logged in."""

import pytest
from starlette.types import Message

from manager_stub import users
from manager_stub.guard import LOGIN
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


@pytest.mark.parametrize(
    ("form", "why"),
    [(b"&" * 8, "more than 8 fields"), (b"\xff", "not UTF-8"), (b"x" * 5000, "more than 4096 bytes")],
)
async def test_what_is_no_form_is_refused(manager: Manager, form: bytes, why: str) -> None:
    """Whoever says that is not known yet: it is no fault, of which the log would have a traceback each."""
    answer = await manager.rest.post("/api/session/create", content=form, auth=None)
    assert (answer.status_code, answer.json()["error_message"]) == (400, why)


async def test_a_login_that_is_cut_off_is_no_fault(manager: Manager) -> None:
    """Of ours: anybody may hang up."""
    coming = iter([{"type": "http.request", "body": b"j_us", "more_body": True}, {"type": "http.disconnect"}])
    said: list[Message] = []

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": LOGIN, "query_string": b"", "headers": []}
    await manager.interface(scope, receive, send)
    assert said[0]["status"] == 400


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
        ("system", USER),
    ],
)
async def test_a_user_that_cannot_be_is_refused(manager: Manager, name: str, body: object) -> None:
    """No password, no such role, too short, no name, an unknown field, no enterprise admin left, the name
    the audit log has for the manager itself: 400."""
    before = dict(manager.parts.users.all)
    assert (await manager.answer("PUT", f"{VSFW}/users/{name}", body)).status_code == 400
    assert manager.parts.users.all == before
    assert (await manager.answer("DELETE", f"{VSFW}/users/admin")).status_code == 400


async def test_a_token_stands_for_its_user_until_it_is_revoked_or_expires(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restart; the database has a hash only; another user cannot revoke it."""
    made = await manager.call("POST", f"{VSFW}/tokens", {"display_name": "ci", "lifetime_s": 60})
    assert made["token"] not in str(manager.parts.store.tokens())
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    foreign = await manager.rest.delete(f"{VSFW}/tokens/{made['id']}", auth=("eve", PASSWORD))
    assert foreign.status_code == 404
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 200
    again = users.Users(manager.parts.store)
    assert again.of_token(made["token"]) == "admin"
    monkeypatch.setattr(users, "now_ms", lambda: made["expires"])
    assert again.of_token(made["token"]) is None
    monkeypatch.undo()
    await manager.call("DELETE", f"{VSFW}/tokens/{made['id']}")
    assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 403
    assert users.Users(manager.parts.store).of_token(made["token"]) is None


async def test_tokens_end_with_the_password_they_were_made_under(manager: Manager) -> None:
    """Changed by its owner or by an admin, also after a restart, and the audit log says so; a new role alone
    ends none."""
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    for change in ("own", "admin's"):
        manager.rest.auth = ("eve", PASSWORD)
        made = await manager.call("POST", f"{VSFW}/tokens", {"display_name": "t"})
        bearer = {"Authorization": f"Bearer {made['token']}"}
        await manager.rest.put(f"{VSFW}/users/eve", json={"role": "security_op"}, auth=manager.admin)
        assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 200
        if change == "own":
            body = {"old_password": PASSWORD, "password": PASSWORD}
            await manager.call("POST", f"{VSFW}/own-password", body)
        else:
            await manager.rest.put(f"{VSFW}/users/eve", json=USER, auth=manager.admin)
        assert (await manager.rest.get("/api/v1/node", auth=None, headers=bearer)).status_code == 403
        assert users.Users(manager.parts.store).of_token(made["token"]) is None
        manager.rest.auth = manager.admin
        log = await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/users/eve/tokens/{made['id']}")
        assert [bool(line["after"]) for line in log["results"]] == [False, True]


async def test_a_token_makes_no_credentials(manager: Manager) -> None:
    """Not even an enterprise admin's: whoever stole it has it until it is revoked, and nothing after that."""
    made = await manager.call("POST", f"{VSFW}/tokens", {"display_name": "stolen"})
    before = dict(manager.parts.users.all)
    manager.rest.auth, manager.rest.headers["Authorization"] = None, f"Bearer {made['token']}"
    new = {"old_password": manager.admin[1], "password": PASSWORD}
    for method, path, body in (
        ("POST", "tokens", {"display_name": "another"}),
        ("PUT", "users/eve", USER),
        ("POST", "own-password", new),
        ("POST", "enrolment-tokens", {"display_name": "mine"}),
    ):
        answer = await manager.answer(method, f"{VSFW}/{path}", body)
        assert (answer.status_code, answer.json()["error_code"]) == (403, 401)
    assert manager.parts.users.all == before
    assert manager.parts.store.enrolment_tokens() == []
    assert len(manager.parts.users.tokens_of("admin")) == 1
    await manager.call("DELETE", f"{VSFW}/tokens/{made['id']}")


async def test_an_admin_sees_and_revokes_the_tokens_of_others(manager: Manager) -> None:
    """An auditor sees them; one is named by its user and its id."""
    await manager.call("PUT", f"{VSFW}/users/eve", USER)
    eve, url = ("eve", PASSWORD), f"{VSFW}/users/eve/tokens"
    made = (await manager.rest.post(f"{VSFW}/tokens", json={"display_name": "t"}, auth=eve)).json()
    (told,) = (await manager.rest.get(url, auth=eve)).json()["results"]
    assert told == {key: made[key] for key in made if key != "token"}
    assert (await manager.rest.delete(f"{url}/{made['id']}", auth=eve)).status_code == 403
    assert (await manager.answer("DELETE", f"{VSFW}/users/admin/tokens/{made['id']}")).status_code == 404
    await manager.call("DELETE", f"{url}/{made['id']}")
    assert (await manager.call("GET", url))["results"] == []
