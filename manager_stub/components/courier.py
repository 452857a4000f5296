"""Carries what the switchboard says and hears over the broker, beside policy: its tasks and its queue are its
own, and after each batch that it takes from the queue it leaves the manager as long again to others."""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError

from manager_stub.broker import Broker
from manager_stub.components.switchboard import MAX_SENT_AT_ONCE, Letter, Switchboard
from manager_stub.lead import Lost
from manager_stub.register import Register
from manager_stub.reports import BadReport, check_sender, parse_component_event
from vsfwd.amqp import PUBLISH_TIMEOUT_S, Session, signed_message
from vsfwd.protocol import topology
from vsfwd.protocol.components import ComponentEvent

log = structlog.get_logger("manager.components")

MAX_BATCH: Final = 64


class Courier:
    def __init__(self, register: Register, broker: Broker, switchboard: Switchboard) -> None:
        self._register = register
        self._broker = broker
        self._switchboard = switchboard
        self._woken = asyncio.Event()
        switchboard.wake = self._woken.set

    async def begin(self, session: Session, commands: AbstractExchange, intake: AbstractChannel) -> None:
        """Its part of a session of the manager's."""
        said = await intake.declare_queue(topology.COMPONENT_QUEUE, passive=True)
        session.tasks.create_task(self._take_all(said), name="what components say")
        session.tasks.create_task(self._send_all(commands), name="to components")

    # Out

    async def _send_all(self, commands: AbstractExchange) -> NoReturn:
        while True:
            self._woken.clear()
            while letters := self._switchboard.outgoing.take(MAX_SENT_AT_ONCE):
                await asyncio.gather(*(self._send(commands, letter) for _, letter in letters))
            await self._woken.wait()

    async def _send(self, commands: AbstractExchange, letter: Letter) -> None:
        """Once. Whoever waits for an answer finds out that none comes."""
        if letter.host not in self._register.hosts:
            return
        signed = self._register.order(letter.host, letter.event.id, letter.kind, letter.json, letter.lives_s)
        message = signed_message(signed, type=letter.kind, expiration=letter.lives_s)
        try:
            await commands.publish(message, topology.app_key(letter.host), timeout=PUBLISH_TIMEOUT_S)
        except (DeliveryError, TimeoutError) as error:
            log.warning("component not reached", host=letter.host, kind=letter.kind, reason=str(error))

    # In

    async def _take_all(self, queue: AbstractQueue) -> NoReturn:
        messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(messages.put)
        clock = asyncio.get_running_loop().time
        while True:
            batch = [await messages.get()]
            while len(batch) < MAX_BATCH and not messages.empty():
                batch.append(messages.get_nowait())
            begun = clock()
            await self._take(batch)
            await asyncio.sleep(clock() - begun)

    async def _take(self, batch: Sequence[AbstractIncomingMessage]) -> None:
        good: list[tuple[AbstractIncomingMessage, str, ComponentEvent]] = []
        for message in batch:
            try:
                good.append((message, *self._event(message)))
            except BadReport as error:
                self._disbelieve(error.host, str(error))
                await message.reject()
        for (message, host, _), reason in zip(good, self._reasons(good), strict=True):
            if reason:
                self._disbelieve(host, reason)
                await message.reject()
            else:
                await message.ack()

    def _reasons(self, good: Sequence[tuple[AbstractIncomingMessage, str, ComponentEvent]]) -> list[str]:
        events = [(host, event) for _, host, event in good]
        try:
            return self._switchboard.take(events)
        except Lost:
            raise  # the messages are the next leader's
        except Exception as error:
            # A mistake of ours. What caused it is left, and takes nobody's message with it.
            log.exception("the manager failed at what components say", messages=len(events))
            if len(good) == 1:
                return [f"the manager failed at it: {error!r}"]
            return [reason for each in good for reason in self._reasons([each])]

    def _event(self, message: AbstractIncomingMessage) -> tuple[str, ComponentEvent]:
        """Raises BadReport."""
        host, event = parse_component_event(message.routing_key or "", message.user_id, message.body)
        check_sender(host, message.user_id, self._register.hosts, self._broker.logins(host))
        return host, event

    def _disbelieve(self, host: str, reason: str) -> None:
        if host in self._register.hosts:
            self._register.disbelieved(host, reason)
        else:
            log.error("what a component says is refused", reason=reason)
