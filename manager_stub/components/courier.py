"""Carries what the switchboard says and hears over the broker, beside policy: its tasks, its queue and the
connection it takes from are its own, and after each batch it leaves the manager as long again to others.

Hosts take turns (`turns`), as with what they report. What components say is not levelled: nothing takes the
place of anything. But of a host of which MOST_WAITING are at hand the first is refused for the next one:
otherwise what others say would wait behind a flood, until the broker drops it."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError

from manager_stub.broker import Broker
from manager_stub.components.switchboard import MAX_SENT_AT_ONCE, Letter, Switchboard
from manager_stub.intake import batches
from manager_stub.lead import Lost
from manager_stub.register import Register
from manager_stub.reports import BadReport, check_sender, parse_component_event
from manager_stub.store import TooMuch
from manager_stub.turns import Turns
from vsfwd.amqp import Session, publish, signed_message
from vsfwd.protocol import topology
from vsfwd.protocol.components import MAX_MESSAGE, ComponentEvent, ComponentMessage
from vsfwd.protocol.topology import host_of

log = structlog.get_logger("manager.components")

AT_HAND: Final = 2048
"""Messages taken from the queue before the first is acknowledged, of all hosts: 64 MB at most."""
MOST_WAITING: Final = 1024
"""Of one host. Of a component a fifth of that is kept in any case."""
MAX_BATCH: Final = 64
SHARE: Final = 8
"""Of a batch, of one host."""

Message = AbstractIncomingMessage
Said = tuple[Message, str, ComponentEvent]


class Courier:
    def __init__(self, register: Register, broker: Broker, switchboard: Switchboard) -> None:
        self._register = register
        self._broker = broker
        self._switchboard = switchboard
        self.dropped: Callable[[str, int], None] = lambda host, size: None
        """Called with whoever says so much that a message of so many bytes is not read."""
        self._woken = asyncio.Event()
        switchboard.wake = self._woken.set

    async def begin(self, session: Session, commands: AbstractExchange, _: AbstractChannel) -> None:
        """Its part of a session of the manager's."""
        intake = await session.intake(AT_HAND)
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
            await publish(commands, message, topology.app_key(letter.host))
        except (DeliveryError, TimeoutError) as error:
            log.warning("component not reached", host=letter.host, kind=letter.kind, reason=str(error))

    # In

    async def _take_all(self, queue: AbstractQueue) -> None:
        clock = asyncio.get_running_loop().time
        turns = Turns[Message](AT_HAND, MOST_WAITING)

        async def arrived(message: Message) -> None:
            host = host_of(message.user_id or "")
            if len(message.body) > MAX_MESSAGE:  # it is refused, and not held until its turn
                self.dropped(host, len(message.body))
                await self._take([message])
                return
            gone = turns.add(host, None, message, clock())
            if gone is not None:
                self.dropped(host, len(gone.body))
                self._disbelieve(host, f"more than {MOST_WAITING} messages of its components at once")
                await gone.reject()

        async for batch in batches(queue, arrived, turns, _batch):
            begun = clock()
            spent = await self._take(batch)
            ended = clock()
            for host in {host_of(message.user_id or "") for message in batch}:
                turns.took(host, spent.get(host, 0.0), ended)
            await asyncio.sleep(ended - begun)

    async def _take(self, batch: Sequence[Message]) -> Mapping[str, float]:
        """What each host cost, in seconds."""
        good: list[Said] = []
        for message in batch:
            try:
                good.append((message, *self._event(message)))
            except BadReport as error:
                self._disbelieve(error.host, str(error))
                await message.reject()
        spent = defaultdict[str, float](float)
        clock = asyncio.get_running_loop().time
        for step in self._steps(good):
            begun = clock()
            try:
                reasons = self._reasons(step)
            except TooMuch as error:
                log.error("what components say is taken later", reason=str(error))
                for message, _, _ in step:
                    await message.reject(requeue=True)
                continue
            share = (clock() - begun) / len(step)
            for (message, host, event), reason in zip(step, reasons, strict=True):
                spent[host] += share
                if reason and host in self._register.hosts:
                    component = event.component if isinstance(event, ComponentMessage) else ""
                    self._register.component_refused(host, component, reason)
                await (message.reject() if reason else message.ack())
            await asyncio.sleep(0)  # reports, and who asks by REST, have a turn as well
        return spent

    def _steps(self, good: Sequence[Said]) -> Iterator[list[Said]]:
        """What is only stored together, what the manager acts on by itself; in their order."""
        together: list[Said] = []
        for each in good:
            if not self._switchboard.acts_on(each[2]):
                together.append(each)
                continue
            if together:
                yield together
                together = []
            yield [each]
        if together:
            yield together

    def _reasons(self, good: Sequence[Said]) -> list[str]:
        events = [(host, event) for _, host, event in good]
        try:
            return self._switchboard.take(events)
        except (Lost, TooMuch):
            raise  # the messages are the next leader's, or are taken when the database has time
        except Exception as error:
            # A mistake of ours. What caused it is left, and takes nobody's message with it.
            log.exception("the manager failed at what components say", messages=len(events))
            if len(good) == 1:
                return [f"the manager failed at it: {error!r}"]
            return [reason for each in good for reason in self._reasons([each])]

    def _event(self, message: Message) -> tuple[str, ComponentEvent]:
        """Raises BadReport."""
        host, event = parse_component_event(message.routing_key or "", message.user_id, message.body)
        check_sender(host, message.user_id, self._register.hosts, self._broker.logins(host))
        return host, event

    def _disbelieve(self, host: str, reason: str) -> None:
        if host in self._register.hosts:
            self._register.disbelieved(host, reason)
        else:
            log.error("what a component says is refused", reason=reason)


def _batch(turns: Turns[Message], now: float) -> list[Message]:
    """Of each host whose turn it is a few."""
    batch: list[Message] = []
    while len(batch) <= MAX_BATCH - SHARE and (turn := turns.next(now)):
        host, message = turn
        batch += [message, *turns.more(host, SHARE - 1)]
    return batch
