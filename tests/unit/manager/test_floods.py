"""O29: a host that says more than can be read is shut out for a while, by the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from manager_stub import floods
from manager_stub.broker import Broker as RealBroker
from manager_stub.broker import Unreachable
from manager_stub.floods import MOST, MOST_CONSUMERS, Floods
from tests.harness.waiting import eventually
from tests.unit.manager.rest import Manager

NOTHING = "^$"
HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


class Broker:
    """`told`: what it did; the first thing it is told it does not do."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.silenced: list[str] = []
        self.away = True

    async def shut_out(self, host: str, right: str) -> None:
        if self.away:
            self.away = False
            raise Unreachable("away")
        self.told.append((f"no {right}", host))

    async def let_in(self, host: str, right: str) -> None:
        self.told.append((right, host))


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def watched(manager: Manager, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Floods]:
    monkeypatch.setattr(floods, "SHUT_OUT_S", 0.2)
    monkeypatch.setattr(floods, "_AGAIN_S", 0.01)
    for host in (HOST, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")
    watched = Floods(manager.register, cast(Any, broker))
    watched.silenced = broker.silenced.append
    task = asyncio.create_task(watched._shut_out())
    yield watched
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_host_that_floods_is_shut_out_and_let_in_again(
    manager: Manager, broker: Broker, watched: Floods
) -> None:
    """Once, also when the broker was away at first; it is told at the host. Who says much, and not too much,
    goes on."""
    for number in range(10 * MOST):
        watched.dropped(HOST, 100)
        if number < MOST:
            watched.dropped(OTHER, 100)
    await eventually(
        lambda: broker.told == [("no write", HOST), ("write", HOST)], "it was shut out, and is in"
    )
    assert "shut out" in manager.register.hosts[HOST].left_out[0]
    assert broker.silenced == [HOST]
    watched.dropped(HOST, 100)
    await eventually(lambda: broker.told[2:] == [("no write", HOST), ("write", HOST)], "it floods again")


async def test_a_host_that_comes_and_goes_without_end_may_hear_nothing_for_a_while(
    manager: Manager, broker: Broker, watched: Floods
) -> None:
    """That is the right it floods by; what it says is taken."""
    for _ in range(MOST_CONSUMERS + 1):
        watched.came_or_went(HOST)
        watched.came_or_went("")
    await eventually(lambda: broker.told == [("no read", HOST), ("read", HOST)], "it was shut out, and is in")
    assert "came and went" in manager.register.hosts[HOST].left_out[0]


async def test_large_messages_count_for_more(broker: Broker, watched: Floods) -> None:
    """A few hundred of a megabyte are as much as a thousand."""
    for _ in range(MOST // 60):
        watched.dropped(HOST, 1 << 20)
    await eventually(lambda: ("no write", HOST) in broker.told, "it was shut out")


async def test_what_is_dropped_now_and_then_is_no_flood(
    broker: Broker, watched: Floods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it is in the end."""
    monkeypatch.setattr(floods, "WINDOW_S", 0.0)
    for _ in range(10 * MOST):
        watched.dropped(HOST, 100)
    assert not watched._flooding


async def test_a_session_of_the_manager_s_begins_with_everybody_in(broker: Broker, watched: Floods) -> None:
    """Who was shut out in the one before, and floods yet, is shut out again."""
    watched._until[HOST, "write"] = inf
    watched.dropped(HOST, 16384 * MOST)
    assert not watched._flooding
    session = SimpleNamespace(tasks=asyncio.TaskGroup())
    async with session.tasks:
        await watched.begin(cast(Any, session), cast(Any, None), cast(Any, None))
        watched.dropped(HOST, 16384 * MOST)
        await eventually(lambda: ("no write", HOST) in broker.told, "it is shut out")
        for task in session.tasks._tasks:
            task.cancel()


async def test_a_host_that_is_shut_out_gets_no_rights_by_enrolling_again(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that is new has none either, until it is let in, or the manager begins a new session. Who may
    say nothing hears all the same, and the other way round."""
    real, said, heard = manager.parts.broker, list[str](), list[str]()

    async def call(self: RealBroker, what: str, request: Any, gone_is_fine: bool = False) -> httpx.Response:
        return httpx.Response(200, json=[])

    async def put(self: RealBroker, what: str, body: dict[str, Any]) -> None:
        if what.startswith("topic-permissions"):
            said.append(body["write"])
        elif what.startswith("permissions"):
            heard.append(body["read"])

    monkeypatch.setattr(RealBroker, "_call", call)
    monkeypatch.setattr(RealBroker, "_put", put)
    await real.add_host(HOST)
    keys, queues = said.pop(), heard.pop()
    await real.shut_out(HOST, "write")
    await real.add_host(HOST)
    await real.let_in(HOST, "write")
    assert (said, heard) == ([NOTHING, NOTHING, keys], [queues] * 3)
    await real.shut_out(HOST, "read")
    await real.add_host(HOST)
    assert (said[3:], heard[3:]) == ([keys] * 2, [NOTHING] * 2)
    await real.add_missing_hosts([HOST])
    assert (said[-1], heard[-1]) == (keys, queues)
