"""Carries what is said of moves over the broker, by a queue of its own: state is bulk, and displaces neither
policy nor reports.

Hosts take turns, one message each, so that no host's moves wait behind what another says. Of a host of which
MOST_WAITING are at hand no more are taken: what comes then is left, and counts as a flood."""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError

from manager_stub.broker import Broker
from manager_stub.lead import Lead, Lost
from manager_stub.moves.letters import Letter
from manager_stub.moves.moves import LIVES_S, Moves
from manager_stub.register import Register
from manager_stub.reports import MAX_MOVE, BadReport, check_sender, parse_move
from manager_stub.rounds import Rounds
from vsfwd.amqp import Session, SessionOver, publish, signed_message
from vsfwd.protocol import topology
from vsfwd.protocol.topology import host_of

log = structlog.get_logger("manager.moves")

AT_ONCE: Final = 16
"""Messages published side by side."""
AT_HAND: Final = 256
"""Messages taken from the queue before the first is acknowledged, of all hosts: 64 MB at most."""
MOST_WAITING: Final = 192
"""Of one host: a round of state, all of it, and what is said beside."""


class MoveCourier:
    def __init__(self, register: Register, broker: Broker, moves: Moves, lead: Lead | None = None) -> None:
        self._register = register
        self._broker = broker
        self._moves = moves
        self._lead = lead
        self._woken = asyncio.Event()
        moves.letters.wake = self._woken.set
        self.dropped: Callable[[str, int], None] = lambda host, size: None
        """Called with whoever says of moves what nobody needs, and how many bytes."""

    async def begin(self, session: Session, commands: AbstractExchange, _: AbstractChannel) -> None:
        """Its part of a session of the manager's."""
        intake = await session.intake(AT_HAND)
        said = await intake.declare_queue(topology.MOVE_QUEUE, passive=True)
        session.tasks.create_task(self._take_all(said), name="what hosts say of moves")
        session.tasks.create_task(self._send_all(commands), name="moves")

    async def _send_all(self, commands: AbstractExchange) -> NoReturn:
        while True:
            self._woken.clear()
            while letters := self._moves.letters.take(AT_ONCE):
                await asyncio.gather(*(self._send(commands, letter) for letter in letters))
            await self._woken.wait()

    async def _send(self, commands: AbstractExchange, letter: Letter) -> None:
        """Once: a move whose hosts are not reached ends by its time."""
        if self._lead is not None and not self._lead.is_mine:
            raise SessionOver("this manager does not lead")
        if letter.host not in self._register.hosts:
            return
        signed = self._register.order(letter.host, letter.id, topology.MOVE, letter.body, LIVES_S)
        message = signed_message(signed, type=topology.MOVE, expiration=LIVES_S)
        try:
            await publish(commands, message, topology.app_key(letter.host))
        except (DeliveryError, TimeoutError) as error:
            log.warning("host not told of a move", host=letter.host, reason=str(error))

    async def _take_all(self, queue: AbstractQueue) -> NoReturn:
        waiting, arrival = Rounds[AbstractIncomingMessage](), asyncio.Event()

        async def arrived(message: AbstractIncomingMessage) -> None:
            host = host_of(message.user_id or "")
            if len(message.body) > MAX_MOVE:  # it is refused, and not held until its turn
                await self._settle(message)
                return
            if len(waiting.of(host)) >= MOST_WAITING:
                self.dropped(host, len(message.body))
                await message.ack()
                return
            waiting.add(host, message)
            arrival.set()

        await queue.consume(arrived)
        while True:
            arrival.clear()
            while waiting:
                ((_, message),) = waiting.take(1)
                await self._settle(message)
            await arrival.wait()

    async def _settle(self, message: AbstractIncomingMessage) -> None:
        await (message.ack() if await self._take(message) else message.reject())

    async def _take(self, message: AbstractIncomingMessage) -> bool:
        try:
            host, said = parse_move(message.routing_key or "", message.user_id, message.body)
            check_sender(host, message.user_id, self._register.hosts, self._broker.logins(host))
            if not self._moves.heard(host, said):
                self.dropped(host, len(message.body))
        except BadReport as error:
            log.error("said of a move, and refused", host=error.host, reason=str(error))
            self.dropped(error.host, len(message.body))
            if error.host in self._register.hosts:
                self._register.disbelieved(error.host, str(error))
            return False
        except Lost:
            raise  # the message is the next leader's
        except Exception as error:
            # A mistake of ours. What caused it is left, and the move ends by its time.
            log.exception("the manager failed at what a host says of a move", error=repr(error))
            return False
        return True
