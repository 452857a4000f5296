"""Who is there, as the broker says it, without one. With one: tests/integration/test_broker_presence.py."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

import manager_stub.watch
from manager_stub.broker import Unreachable
from manager_stub.presence import Presence
from manager_stub.watch import Watch
from tests.harness.waiting import eventually

HOST = "33333333-0000-4000-8000-000000000001"


async def test_o10_a_queue_that_has_no_leader_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster has just lost a node: who is there is known a little later, in the same session."""
    monkeypatch.setattr(manager_stub.watch, "AGAIN_S", 0.0)
    noproc = Unreachable("delete queues/vsfw/vsfw.mgr.presence/contents: 400 noproc")
    broker = SimpleNamespace(
        set_up_presence=AsyncMock(side_effect=[noproc, noproc, None]),
        consumers=AsyncMock(return_value=[HOST]),
    )
    presence = Presence()
    register = SimpleNamespace(hosts={HOST: SimpleNamespace(level=SimpleNamespace(in_sync=True))})
    vnics = SimpleNamespace(stay_away=lambda gone, up: None)
    watch = Watch(cast(Any, register), cast(Any, vnics), cast(Any, broker), presence)
    intake = SimpleNamespace(declare_queue=AsyncMock(return_value=SimpleNamespace(consume=AsyncMock())))
    async with asyncio.TaskGroup() as tasks:
        await watch.begin(cast(Any, SimpleNamespace(tasks=tasks)), cast(Any, None), cast(Any, intake))
        assert presence.is_up(HOST) is None
        await eventually(lambda: presence.is_up(HOST) is True, "the host is up")
        for task in tasks._tasks:  # type: ignore[attr-defined]
            task.cancel()
