"""O29: what hosts say of moves, from the queue to who reads it, in turns."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

from manager_stub.moves.courier import MOST_WAITING, MoveCourier
from manager_stub.reports import MAX_MOVE

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


class Message:
    """Of a host, as the broker delivers it."""

    def __init__(self, host: str, body: bytes = b"") -> None:
        self.user_id, self.body = host, body
        self.routing_key = f"host.{host}.move"
        self.done = asyncio.Event()

    async def ack(self) -> None:
        self.done.set()

    reject = ack


class Counting(MoveCourier):
    """`read`: whose messages, in their order, and how long."""

    def __init__(self) -> None:
        nobody: Any = Mock()
        super().__init__(nobody, nobody, nobody)
        self.read: list[tuple[str, int]] = []
        self.left: list[str] = []
        self.dropped = lambda host, size: self.left.append(host)

    async def _take(self, message: Any) -> bool:
        self.read.append((message.user_id, len(message.body)))
        return True


async def carried(*messages: Message) -> Counting:
    """All of them in the queue at once, until something became of each."""

    async def consume(arrived: Any) -> None:
        for message in messages:
            await arrived(message)

    courier = Counting()
    task = asyncio.create_task(courier._take_all(cast(Any, SimpleNamespace(consume=consume))))
    async with asyncio.timeout(10):
        for message in messages:
            await message.done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return courier


def whose(read: Sequence[tuple[str, int]]) -> list[str]:
    return [host for host, _ in read]


async def test_a_host_that_floods_keeps_no_others_move_waiting() -> None:
    """Hosts say one thing after the other in turn, each in its own order. What is too much is left, and
    counts for a flood."""
    flood = [Message(HOST, bytes(number)) for number in range(MOST_WAITING + 100)]
    courier = await carried(*flood, *(Message(OTHER_HOST, bytes(number)) for number in range(2)))
    assert whose(courier.read)[:4] == [HOST, OTHER_HOST] * 2
    assert [size for host, size in courier.read if host == HOST] == [*range(MOST_WAITING)]
    assert courier.left == [HOST] * 100


async def test_what_is_too_long_takes_no_memory() -> None:
    """It is refused as it comes, before what waits for its turn."""
    courier = await carried(Message(HOST), Message(HOST, bytes(MAX_MOVE + 1)))
    assert courier.read == [(HOST, MAX_MOVE + 1), (HOST, 0)]
