"""The link to the manager: this host's two queues in, events out, and what its components have to say.

Nothing here is lost for good: a message is acknowledged only after it is in force, and what the host says is
levelled, so a new session begins by saying all of it (`greet`) and forgets what was left to say.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import aio_pika
import msgspec
import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError, PublishError

from vsfwd import identity
from vsfwd.amqp import (
    CONNECT_TIMEOUT_S,
    PAUSE_S,
    PUBLISH_TIMEOUT_S,
    Link,
    Session,
    SessionOver,
    consume,
    is_cancelled,
    publish,
)
from vsfwd.config import Config
from vsfwd.policy.desired import UNDECODABLE
from vsfwd.protocol import components, envelope, migration, topology
from vsfwd.protocol.components import ComponentAnswer, ComponentEvent
from vsfwd.protocol.messages import EVENTS, Applied, Bindings, Event, Hello, Reply, Request
from vsfwd.protocol.migration import Move
from vsfwd.protocol.order import REQUEST, CarriedOut, Order, unseal_order
from vsfwd.relay import NotConnected

log = structlog.get_logger(log="vsfwd.broker")

CHECK_S: Final = 20.0
"""How often the broker is asked whether this host still consumes."""
PREFETCH: Final = 1
"""One message at a time: what is not delivered stays countable in the queue."""
OUTGOING: Final = 1000
HELD_AT_MOST_S: Final = 10.0
"""A report, whatever a message says."""
_KIND: Final = {type_: kind for kind, type_ in EVENTS.items()}


class BrokerLink(Link):
    """`policy`, `request` and `component` take what comes in, one message at a time; `policy` says what
    becomes of it, as in `amqp.consume`, `component` what is answered. `greet` is what the host has to say at
    the start of a session."""

    login_refused = "the manager may have removed this host; if so: vsfwctl enroll --again, with a new token"

    def __init__(
        self,
        config: Config,
        policy: Callable[[envelope.Message], Awaitable[bool | None]],
        request: Callable[[Request], Awaitable[None]],
        component: Callable[[ComponentEvent], ComponentAnswer | None],
        greet: Callable[[], Sequence[Event]],
    ) -> None:
        super().__init__(f"vsfwd {config.host_id}", config.broker_urls, lambda: _tls(config))
        self._config = config
        self._host = self._login = config.host_id
        self._policy = policy
        self._request = request
        self._component = component
        self._greet = greet
        self.move: Callable[[Move], Awaitable[None]] = _unheard
        """Takes what the manager says of VMs that change their host."""
        self._exchange: AbstractExchange | None = None
        self._one_at_a_time = asyncio.Lock()
        self._outgoing: deque[Event] = deque(maxlen=OUTGOING)
        self._has_outgoing = asyncio.Event()
        self._report_after_s = 0.0
        self._held: asyncio.TimerHandle | None = None
        self._taken = 0
        self._said_ns = 0
        self._carried_out = CarriedOut(time.time)

    def send(self, event: Event) -> None:
        """Say something when there is a session; without one, the next greeting says it."""
        if isinstance(event, Applied | Hello):
            self._unsay()
        if self.connected_to is not None:
            self._outgoing.append(event)
            self._has_outgoing.set()

    def report(self, applied: Applied) -> None:
        """What became of a policy message. What fails is said at once. That it is in force is said when the
        manager has sent the others theirs: a thousand reports at once would compete with policy."""
        if applied.resync or applied.refusals or not self._report_after_s:
            self.send(applied)
        elif self.connected_to is not None:
            self._unsay()
            self._held = asyncio.get_running_loop().call_later(self._report_after_s, self.send, applied)

    def _unsay(self) -> None:
        """What is held back is older than what is said now."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    async def begin(self, session: Session) -> None:
        try:
            self._login = identity.login_of(identity.load_certificate(self._config.certificate.read_bytes()))
        except (OSError, identity.Unfit) as error:
            raise SessionOver(str(error)) from None
        exchange = self._exchange = await session.outlet(topology.EVENTS)
        intake = await session.intake(PREFETCH)
        policy = await intake.declare_queue(topology.policy_queue(self._host), passive=True)
        app = await intake.declare_queue(topology.app_queue(self._host), passive=True)
        self._unsay()
        self._outgoing.clear()
        self._outgoing.extend(self._greet())
        session.tasks.create_task(consume(policy, self._take_policy), name="policy queue")
        session.tasks.create_task(consume(app, self._take_request), name="app queue")
        session.tasks.create_task(self._publish(exchange), name="events")
        session.tasks.create_task(self._watch(intake, policy.name, app.name), name="consumers")

    async def _watch(self, intake: AbstractChannel, *queues: str) -> NoReturn:
        """A queue that is deleted and made anew loses its consumer, and now and then the broker does not say
        so or even counts what it does not deliver as delivered (quorum queues of RabbitMQ 3.10)."""
        while True:
            before = self._taken
            await asyncio.sleep(CHECK_S)
            for name in queues:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):  # not aiormq's own: see amqp.publish
                    queue = await intake.declare_queue(name, passive=True)
                found = queue.declaration_result
                if not found.consumer_count or (found.message_count and self._taken == before):
                    raise SessionOver(f"queue {name}: messages do not come any more")

    async def _take_policy(self, message: AbstractIncomingMessage) -> bool | None:
        self._taken += 1
        self._report_after_s = _pause_s(message.headers.get(envelope.REPORT_AFTER))
        return await self._policy(_signed(message))

    async def _take_request(self, message: AbstractIncomingMessage) -> bool:
        """What fails here as nobody expected is refused like the rest: it holds up neither the next message
        nor policy, and would fail again."""
        self._taken += 1
        try:
            return await self._carry_out(message)
        except Exception as error:
            log.error("message refused", reason=f"internal error: {error!r}", exc_info=error)
            return False

    async def _carry_out(self, message: AbstractIncomingMessage) -> bool:
        try:
            order, json = unseal_order(self._config.public_key(), _signed(message), self._host)
            if order.kind == topology.MOVE:
                return await self._take_move(migration.decode(json), order)
            if order.kind in components.KINDS:
                event = components.decode(order.kind, json)
                return await self._take_component(event, order, again=bool(message.redelivered))
            if order.kind != REQUEST:
                raise envelope.Refused(f"kind: {order.kind!r} is unknown")
            request = msgspec.json.decode(json, type=Request)
        except (envelope.Refused, *UNDECODABLE) as error:
            log.error("request refused", reason=str(error))
            return False
        try:
            if self._carried_out.is_new(order):
                await self._request(request)
                self._carried_out.add(order)
        except envelope.Refused as refused:
            log.error("request refused", id=request.id, reason=str(refused))
            self.send(Reply(request.id, str(refused)))
            return False
        except Exception as error:
            self.send(Reply(request.id, f"internal error: {error!r}"))
            raise
        return True

    async def _take_move(self, move: Move, order: Order) -> bool:
        if self._carried_out.is_new(order):
            self._carried_out.add(order)
            await self.move(move)
        return True

    async def _take_component(self, event: ComponentEvent, order: Order, *, again: bool) -> bool:
        """At most once: what the broker gives a second time may have been given to the component before
        vsfwd was started anew."""
        try:
            if not self._carried_out.is_new(order):
                return True
            if again:
                raise envelope.Refused("it comes again, and may have reached the component before")
        except envelope.Refused as refused:
            log.error("message for a component refused", id=event.id, reason=str(refused))
            answer: ComponentAnswer | None = ComponentAnswer(event.id, error=str(refused))
        else:
            self._carried_out.add(order)
            answer = self._component(event)
        if answer is not None:
            with suppress(NotConnected):  # the manager's patience ends
                await self.tell(answer)
        return True

    async def tell(self, event: ComponentEvent) -> None:
        """What a component says, or vsfwd about one. Raises NotConnected when no broker has confirmed it."""
        await self._say(components.KIND_OF[type(event)], msgspec.json.encode(event), "application/json")

    async def tell_move(self, move: Move) -> None:
        """Of a VM that changes its host. Raises NotConnected."""
        await self._say(topology.MOVE, migration.encode(move), "application/msgpack")

    async def _say(self, kind: str, body: bytes, content_type: str) -> None:
        """One message at a time, so that reports of this host never wait behind many."""
        message = aio_pika.Message(
            body,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=kind,
            user_id=self._login,
        )
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S), self._one_at_a_time:
                if self.connected_to is None or self._exchange is None:
                    raise NotConnected(f"no broker: {self.last_error or 'not connected yet'}")
                await self._exchange.publish(message, topology.event_key(self._host, kind))
        except TimeoutError:
            raise NotConnected("the broker takes no messages (a memory or disk alarm?)") from None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise NotConnected("the connection has gone") from None
        except (DeliveryError, *CONNECTION_EXCEPTIONS) as error:
            raise NotConnected(f"the broker has not taken it: {error}") from None

    async def _publish(self, exchange: AbstractExchange) -> NoReturn:
        while True:
            self._has_outgoing.clear()
            while self._outgoing:
                event = self._outgoing[0]
                if await self._published(exchange, event) and self._outgoing and self._outgoing[0] is event:
                    self._outgoing.popleft()
            await self._has_outgoing.wait()

    async def _published(self, exchange: AbstractExchange, event: Event) -> bool:
        """Whether there is nothing left to do about `event`. It may arrive twice."""
        kind = _KIND[type(event)]
        if isinstance(event, Bindings):
            self._said_ns = max(time.time_ns(), self._said_ns + 1)
            event = msgspec.structs.replace(event, said_ns=self._said_ns)
        encoding, body = envelope.pack(msgspec.json.encode(event))
        message = aio_pika.Message(
            body,
            content_type="application/json",
            content_encoding=encoding,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=kind,
            user_id=self._login,
        )
        try:
            await publish(exchange, message, topology.event_key(self._host, kind))
        except TimeoutError:
            log.warning("the broker takes no events (a memory or disk alarm?)", kind=kind)
            return False
        except PublishError as error:
            log.error("event not taken by the broker", kind=kind, reason=str(error))
        except DeliveryError:
            log.warning("the manager's queue keeps nothing (no leader in the cluster?)", kind=kind)
            await asyncio.sleep(PAUSE_S[0])
            return False
        return True


async def _unheard(move: Move) -> None:
    log.warning("nobody here takes part in migrations", move=type(move).__name__)


def _tls(config: Config) -> ssl.SSLContext:
    """Checks the broker's name as well."""
    context = ssl.create_default_context(cafile=config.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(config.certificate, config.key)
    return context


def _signed(message: AbstractIncomingMessage) -> envelope.Message:
    header, signature = (_bytes(message.headers.get(name)) for name in (envelope.HEADER, envelope.SIGNATURE))
    return envelope.Message(header, signature, message.body)


def _pause_s(value: object) -> float:
    """A header's value in ms, which nobody has signed."""
    return min(max(value, 0) / 1000, HELD_AT_MOST_S) if isinstance(value, int) else 0.0


def _bytes(value: object) -> bytes:
    """A header's value; what is not text or bytes becomes empty and fails its signature."""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | bytearray) else b""
