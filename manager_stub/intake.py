"""What hosts report, from the queue to who reads it: in turns (`turns`), so that no host keeps the manager
from the others, or from who asks by REST."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NoReturn

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
Take = Callable[[Sequence[Message]], Awaitable[Sequence[bool]]]


async def consume_in_turn(
    queue: AbstractQueue,
    take: Take,
    unread: Callable[[str], None],
    dropped: Callable[[str, int], None] = lambda host, size: None,
) -> NoReturn:
    """`take` says which messages are acknowledged; the others are refused (to the dead letters). `dropped` is
    told of each that nobody reads, its host and size, `unread` of a host of which something was dropped that
    no later report makes up for."""
    clock = asyncio.get_running_loop().time
    turns, arrival = Turns[Message](AT_HAND), asyncio.Event()

    async def arrived(message: Message) -> None:
        host = host_of(message.user_id or "")
        if len(message.body) > MAX_REPORT:  # it is refused, and not held until its turn
            dropped(host, len(message.body))
            (acknowledged,) = await take([message])
            await (message.ack() if acknowledged else message.reject())
            return
        kind = _kind(message)
        gone = turns.add(host, kind if kind in LEVELLED else None, message, clock())
        arrival.set()
        if gone is not None:
            dropped(host, len(gone.body))
            await gone.ack()
            if kind not in SHORT:  # of vNICs the newer report may be the one that came first
                unread(host)

    await queue.consume(arrived)
    while True:
        arrival.clear()
        batch = _batch(turns, clock())
        if not batch:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(turns.due()):
                    await arrival.wait()
            continue
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
