"""What hosts report, from the queue to who reads it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from manager_stub.intake import TOGETHER, consume_in_turn
from manager_stub.reports import MAX_REPORT
from manager_stub.turns import Turns

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


class Message:
    """Of a host, as the broker delivers it. `acknowledged`: what became of it."""

    def __init__(self, kind: str, host: str = HOST, body: bytes = b"") -> None:
        self.body = body
        self.routing_key = f"host.{host}.{kind}"
        self.user_id = host
        self.acknowledged: bool | None = None
        self.done = asyncio.Event()

    async def ack(self) -> None:
        self.acknowledged = True
        self.done.set()

    async def reject(self) -> None:
        self.acknowledged = False
        self.done.set()


async def consumed(
    messages: Sequence[Message],
    take: Callable[[Sequence[Message]], Awaitable[list[bool]]],
    dropped: Callable[[str, int], None] = lambda host, size: None,
) -> list[str]:
    """All of them in a queue at once, until something became of each; the hosts that left something
    unread."""
    unread: list[str] = []

    class Queue:
        async def consume(self, callback: Callable[[Message], Awaitable[None]]) -> None:
            for message in messages:
                await callback(message)

    queue: Any = Queue()
    taking: Any = take
    task = asyncio.create_task(consume_in_turn(queue, taking, unread.append, dropped))
    async with asyncio.timeout(10):
        for message in messages:
            await message.done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return unread


async def test_a_host_that_floods_does_not_keep_others_waiting() -> None:
    """Each of its reports is work: another's is read after one of them. Of two hundred the newest counts,
    nothing stays with the broker, and the host is to say again what was not read."""
    read: list[Message] = []

    async def slowly(messages: Sequence[Message]) -> list[bool]:
        read.extend(messages)
        time.sleep(0.02)  # noqa: ASYNC251  # what a large report costs
        return [True] * len(messages)

    flood, other = [Message("vnics") for _ in range(200)], Message("vnics", OTHER_HOST)
    seen = [Message("addresses") for _ in range(2)]
    assert set(await consumed([*flood, *seen, other], slowly)) == {HOST}
    assert read == [flood[-1], other, *seen]
    assert all(message.acknowledged for message in flood)


async def test_a_report_that_is_too_long_takes_no_memory() -> None:
    """It is refused as it comes, before those that wait for their turn, and counts for a flood."""
    read: list[Message] = []
    dropped: list[tuple[str, int]] = []

    async def take(messages: Sequence[Message]) -> list[bool]:
        read.extend(messages)
        return [len(message.body) <= MAX_REPORT for message in messages]

    short, long = Message("addresses"), Message("addresses", body=bytes(MAX_REPORT + 1))
    await consumed([short, long], take, lambda host, size: dropped.append((host, size)))
    assert read == [long, short]
    assert dropped == [(HOST, MAX_REPORT + 1)]
    assert (short.acknowledged, long.acknowledged) == (True, False)


async def test_what_is_no_report_is_refused() -> None:
    """Each by itself; what is said beside it is acknowledged."""

    async def take(messages: Sequence[Message]) -> list[bool]:
        return [message.user_id == HOST for message in messages]

    good, bad = Message("hello"), Message("hello", OTHER_HOST)
    assert await consumed([good, bad], take) == []
    assert (good.acknowledged, bad.acknowledged) == (True, False)


async def test_short_reports_of_many_hosts_are_read_together() -> None:
    """They are stored at once; of a longer one there is one at most, and one of each host."""
    batches: list[list[str]] = []

    async def take(messages: Sequence[Message]) -> list[bool]:
        batches.append([message.routing_key.rpartition(".")[2] for message in messages])
        return [True] * len(messages)

    many = [Message("applied", f"{number:08x}{HOST[8:]}") for number in range(TOGETHER - 2)]
    more = [Message("hello", many[0].user_id), Message("vnics", HOST), Message("applied", OTHER_HOST)]
    await consumed([*many, *more], take)
    first, *later = batches
    assert first == ["applied"] * len(many) + ["vnics"]
    assert sorted(kind for batch in later for kind in batch) == ["applied", "hello"]


async def test_hosts_that_are_read_together_share_the_time_that_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host does not rest for what the reports of others cost."""
    took_s: list[float] = []
    monkeypatch.setattr(Turns, "took", lambda self, host, seconds, now: took_s.append(seconds))

    async def take(messages: Sequence[Message]) -> list[bool]:
        time.sleep(0.05)  # noqa: ASYNC251  # what storing them costs
        return [True] * len(messages)

    begun = time.monotonic()
    await consumed([Message("hello", f"host-{number}") for number in range(TOGETHER)], take)
    assert len(took_s) == TOGETHER
    assert sum(took_s) <= time.monotonic() - begun
