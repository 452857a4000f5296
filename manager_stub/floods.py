"""Hosts that say more than anybody can read, or come and go without end. Turns keep one from taking the
manager's time, not from filling the queue in which everybody's messages wait: what comes faster than the
manager can take it from there, and drop it, keeps the others' from it. So such a host is shut out for a
while: the broker takes nothing of it, or gives it nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange

from manager_stub.broker import Broker, Right, Unreachable
from manager_stub.register import Register
from vsfwd.amqp import Session

log = structlog.get_logger("manager.floods")

MOST: Final = 1000
"""Messages of a host that are dropped unread in WINDOW_S, each 16 KB of one counting as one more. It says a
few in that time, and has as many dropped when it was not heard for hours."""
MOST_CONSUMERS: Final = 100
"""That it begins and ends in that time: two of each with a session, and there is a second between sessions.
A broker that is kept busy with more tells of some thirty a second."""
WINDOW_S: Final = 10.0
SHUT_OUT_S: Final = 60.0
_AGAIN_S: Final = 1.0
_MOST: Final[dict[Right, int]] = {"write": MOST, "read": MOST_CONSUMERS}
_TOO_MUCH: Final[dict[Right, str]] = {
    "write": "said more than can be read",
    "read": "came and went more often than can be followed",
}


class Floods:
    def __init__(self, register: Register, broker: Broker) -> None:
        self._register = register
        self._broker = broker
        self._counted = Counter[tuple[str, Right]]()
        self._since = 0.0
        self._flooding: set[tuple[str, Right]] = set()
        self._woken = asyncio.Event()
        self._until: dict[tuple[str, Right], float] = {}
        """By host and the right that it has lost."""
        self.silenced: Callable[[str], None] = lambda host: None
        """Called with a host that may say nothing for a while."""

    def dropped(self, host: str, size: int) -> None:
        """A message of the host, of so many bytes, was not read: there were too many."""
        self._count(host, "write", 1 + size // 16384)

    def came_or_went(self, host: str) -> None:
        """A consumer of one of the host's queues: each is an event, which the manager has to hear."""
        self._count(host, "read", 1)

    def _count(self, host: str, right: Right, count: int) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._since + WINDOW_S:
            self._counted.clear()
            self._since = now
        each = host, right
        self._counted[each] += count
        if self._counted[each] > _MOST[right] and each not in self._until and host in self._register.hosts:
            self._flooding.add(each)
            self._woken.set()

    async def begin(self, session: Session, commands: AbstractExchange, intake: AbstractChannel) -> None:
        """Its part of a session of the manager's, which begins with letting in every host."""
        self._until.clear()
        session.tasks.create_task(self._shut_out(), name="hosts that flood")

    async def _shut_out(self) -> NoReturn:
        clock = asyncio.get_running_loop().time
        while True:
            self._woken.clear()
            try:
                while self._flooding:
                    host, right = each = next(iter(self._flooding))
                    log.error("a host floods, and is shut out", host=host, right=right, for_s=SHUT_OUT_S)
                    await self._broker.shut_out(host, right)
                    if right == "write":
                        self.silenced(host)
                    self._flooding.discard(each)
                    self._until[each] = clock() + SHUT_OUT_S
                    reason = f"it {_TOO_MUCH[right]}, and was shut out for {SHUT_OUT_S:g} s"
                    if host in self._register.hosts:
                        self._register.disbelieved(host, reason)
                for each in [each for each, until in self._until.items() if until <= clock()]:
                    host, right = each
                    if host in self._register.hosts:
                        await self._broker.let_in(host, right)
                    del self._until[each]
                due = min(self._until.values(), default=None)
            except Unreachable as error:
                log.error("hosts that flood: the broker does not do it, tried again", reason=str(error))
                due = clock() + _AGAIN_S
            try:
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            except TimeoutError:
                pass
