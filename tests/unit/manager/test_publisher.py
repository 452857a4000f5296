"""The publisher's sessions, without a broker."""

import asyncio

import pytest

from manager_stub.publisher import Publisher, SessionOver
from tests.unit.manager.rest import Manager


async def test_a_session_that_fails_while_it_is_cancelled_is_the_last(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker goes at the moment the manager is told to end: it ends, and looks for no other session."""
    begun = asyncio.Event()

    async def session(_: Publisher) -> None:
        first = not begun.is_set()
        begun.set()
        async with asyncio.TaskGroup():
            try:
                await asyncio.Event().wait()
            finally:
                if first:
                    raise SessionOver("the broker has gone")

    monkeypatch.setattr(Publisher, "_session", session)
    publishing = asyncio.create_task(manager.parts.publisher.run())
    await begun.wait()
    publishing.cancel()
    await asyncio.wait([publishing], timeout=5)
    assert publishing.cancelled()
