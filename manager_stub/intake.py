"""What hosts report, from the queue to who reads it: in turns (`turns`), so that no host keeps the manager
from the others, or from who asks by REST."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

from manager_stub.reports import MAX_REPORT
from manager_stub.turns import Turns
from vsfwd.protocol.topology import host_of

AT_HAND: Final = 128
"""Reports taken from the queue before the first is acknowledged, of all hosts."""
TOGETHER: Final = 64
"""Reports read at once, of different hosts."""
LEVELLED: Final = ("hello", "applied", "vnics")
"""Kinds of reports of which the newest says it all."""
SHORT: Final = ("hello", "applied")
"""Those that are stored together; each of the others has a turn of the loop for itself."""

Message = AbstractIncomingMessage
Batch = TypeVar("Batch")
Take = Callable[[Sequence[Message]], Awaitable[Sequence[bool]]]


async def batches(
    queue: AbstractQueue,
    arrived: Callable[[Message], Awaitable[None]],
    turns: Turns[Message],
    next_batch: Callable[[Turns[Message], float], Batch],
) -> AsyncIterator[Batch]:
    """What is read next, as soon as it is somebody's turn, for ever. `arrived` adds what comes to `turns`."""
    clock, arrival = asyncio.get_running_loop().time, asyncio.Event()

    async def come(message: Message) -> None:
        await arrived(message)
        arrival.set()

    await queue.consume(come)
    while True:
        arrival.clear()
        if batch := next_batch(turns, clock()):
            yield batch
            continue
        with suppress(TimeoutError):
            async with asyncio.timeout_at(turns.due()):
                await arrival.wait()


async def consume_in_turn(
    queue: AbstractQueue,
    take: Take,
    unread: Callable[[str], None],
    dropped: Callable[[str, int], None] = lambda host, size: None,
) -> None:
    """`take` says which messages are acknowledged; the others are refused (to the dead letters). `dropped` is
    told of each that nobody reads, its host and size, `unread` of a host of which something was dropped that
    no later report makes up for."""
    clock = asyncio.get_running_loop().time
    turns = Turns[Message](AT_HAND)

    async def arrived(message: Message) -> None:
        host = host_of(message.user_id or "")
        if len(message.body) > MAX_REPORT:  # it is refused, and not held until its turn
            dropped(host, len(message.body))
            (acknowledged,) = await take([message])
            await (message.ack() if acknowledged else message.reject())
            return
        kind = _kind(message)
        gone = turns.add(host, kind if kind in LEVELLED else None, message, clock())
        if gone is not None:
            dropped(host, len(gone.body))
            await gone.ack()
            if kind not in SHORT:  # of vNICs the newer report may be the one that came first
                unread(host)

    async for batch in batches(queue, arrived, turns, _batch):
        begun = clock()
        taken = await take([*batch.values()])
        ended = clock()
        for (host, message), acknowledged in zip(batch.items(), taken, strict=True):
            share = 1.0 if _kind(message) not in SHORT else 1 / len(batch)
            turns.took(host, (ended - begun) * share, ended)
            await (message.ack() if acknowledged else message.reject())
        await asyncio.sleep(0)  # who asks by REST has a turn as well


def _batch(turns: Turns[Message], now: float) -> dict[str, Message]:
    """The next reports, by host: short ones of several, at most one of another kind."""
    batch: dict[str, Message] = {}
    while len(batch) < TOGETHER and (turn := turns.next(now)):
        host, message = turn
        batch[host] = message
        if _kind(message) not in SHORT:
            break
    return batch


def _kind(message: Message) -> str:
    return (message.routing_key or "").rpartition(".")[2]
