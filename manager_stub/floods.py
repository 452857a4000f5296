"""Hosts that say more than anybody can read. Turns keep one from taking the manager's time, not from filling
the queue in which everybody's messages wait: what comes faster than the manager can take it from there, and
drop it, keeps the others' from it. So such a host is shut out for a while: the broker takes none of it."""

import asyncio
from collections import Counter
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange

from manager_stub.broker import Broker, Unreachable
from manager_stub.register import Register
from vsfwd.amqp import Session

log = structlog.get_logger("manager.floods")

MOST: Final = 1000
"""Messages of a host that are dropped unread in WINDOW_S, each 16 KB of one counting as one more. It says a
few in that time, and has as many dropped when it was not heard for hours."""
WINDOW_S: Final = 10.0
SHUT_OUT_S: Final = 60.0
_AGAIN_S: Final = 1.0


class Floods:
    def __init__(self, register: Register, broker: Broker) -> None:
        self._register = register
        self._broker = broker
        self._dropped = Counter[str]()
        self._since = 0.0
        self._flooding: set[str] = set()
        self._woken = asyncio.Event()
        self._until: dict[str, float] = {}

    def dropped(self, host: str, size: int) -> None:
        """A message of the host, of so many bytes, was not read: there were too many."""
        now = asyncio.get_running_loop().time()
        if now >= self._since + WINDOW_S:
            self._dropped.clear()
            self._since = now
        self._dropped[host] += 1 + size // 16384
        if self._dropped[host] > MOST and host not in self._until and host in self._register.hosts:
            self._flooding.add(host)
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
                    host = next(iter(self._flooding))
                    log.error("a host floods, and is shut out", host=host, for_s=SHUT_OUT_S)
                    await self._broker.shut_out(host)
                    self._flooding.discard(host)
                    self._until[host] = clock() + SHUT_OUT_S
                    reason = f"it said more than can be read, and was shut out for {SHUT_OUT_S:g} s"
                    if host in self._register.hosts:
                        self._register.disbelieved(host, reason)
                for host in [host for host, until in self._until.items() if until <= clock()]:
                    if host in self._register.hosts:
                        await self._broker.let_in(host)
                    del self._until[host]
                due = min(self._until.values(), default=None)
            except Unreachable as error:
                log.error("hosts that flood: the broker does not do it, tried again", reason=str(error))
                due = clock() + _AGAIN_S
            try:
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            except TimeoutError:
                pass
