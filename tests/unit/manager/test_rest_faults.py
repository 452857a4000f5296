"""What is no request, what comes too late, and what the manager itself gets wrong: an error in NSX's body,
and nothing is left behind."""

import asyncio
import gc
import sqlite3
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from manager_stub import terms
from manager_stub.transaction import Transaction
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

GROUP = f"{DOMAIN}/groups/new"
HOST = "33333333-0000-4000-8000-000000000001"


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"display_name": "\\ud800"}', b"\xff", b""])
async def test_a_body_that_is_no_json_is_refused(manager: Manager, body: bytes) -> None:
    """Cut off, nested without end, a lone surrogate, no UTF-8, nothing at all: 400, not 500."""
    answer = await manager.rest.put(GROUP, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["httpStatus"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("method", "path", "parameter"),
    [
        ("POST", f"{INFRA}/drafts/d?action=publish&confirm_withn=300", "confirm_withn"),
        ("GET", "/api/v1/alarms?severty=HIGH", "severty"),
        ("GET", f"{DOMAIN}/groups?member_types=VirtualMachine", "member_types"),
        ("DELETE", f"{GROUP}?page_size=1", "page_size"),
        ("GET", f"{GROUP}?id=other", "id"),
    ],
)
async def test_a_parameter_that_nobody_knows_is_refused(
    manager: Manager, method: str, path: str, parameter: str
) -> None:
    """A mistyped one would publish for good what was to be confirmed, a filter would filter nothing."""
    await manager.call("PUT", GROUP, {})
    await manager.call("PUT", f"{INFRA}/drafts/d", {})
    before = manager.stored()
    answer = await manager.answer(method, path)
    assert (answer.status_code, answer.json()["error_message"]) == (400, f"{parameter}: unknown parameter")
    assert manager.stored() == before


async def test_two_requests_may_remove_one_host(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both wait for the broker, one comes too late: the host is gone, as both asked for."""

    both = asyncio.Barrier(2)

    async def told(host: str) -> None:
        await both.wait()

    monkeypatch.setattr(manager.parts.broker, "remove_host", told)
    manager.register.add_host(HOST, "host")
    answers = await asyncio.gather(*(manager.answer("DELETE", f"{VSFW}/hosts/{HOST}") for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert manager.register.hosts == {}


async def test_a_disk_that_is_full_is_named(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the database's words, nothing has changed, and what is there can be read; when there is room
    the same request is taken."""
    before = manager.stored()

    def full(*_: Any) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "put_objects", full)
        refused = await manager.answer("PUT", GROUP, {})
    assert (refused.status_code, refused.json()["error_message"]) == (
        503,
        "the database: database or disk is full",
    )
    assert (await manager.answer("GET", GROUP)).status_code == 404
    assert manager.stored() == before
    await manager.call("PUT", GROUP, {})


async def test_a_disk_that_is_full_does_not_end_the_manager() -> None:
    """What it writes from time to time is tried again."""
    outcomes: list[type[BaseException]] = [OperationalError, KeyError]

    def act() -> None:
        raise outcomes.pop(0)("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with pytest.raises(KeyError):
        await terms._every(0, act)


async def test_unknown_paths_leave_nothing_behind(manager: Manager) -> None:
    """CVE-2021-40797: a request for what does not exist costs no memory for ever."""

    async def grown(numbers: range) -> int:
        """Objects more than before these requests."""
        gc.collect()
        before = len(gc.get_objects())
        for number in numbers:
            answer = await manager.answer("GET", f"/no/such/{number}/thing?x={number}")
            assert answer.status_code == 404
        gc.collect()
        return len(gc.get_objects()) - before

    await grown(range(50))
    # What else the process does may come into one round, a leak is in each.
    assert min([await grown(range(200 * n, 200 * (n + 1))) for n in range(1, 4)]) < 100


async def test_a_fault_of_the_manager_has_the_body_of_an_error(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 in NSX's shape, with nothing of what was being done."""

    def broken() -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(manager.register, "check_publish", broken)
    transport = httpx.ASGITransport(manager.interface, raise_app_exceptions=False)
    auth = manager.rest.auth
    async with httpx.AsyncClient(transport=transport, base_url="https://manager", auth=auth) as rest:
        answer = await rest.patch(GROUP, json={"description": "one"})
    assert (answer.status_code, answer.json()["httpStatus"]) == (500, "INTERNAL_SERVER_ERROR")
    assert "secret" not in answer.text
