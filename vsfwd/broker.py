"""The link to the manager: this host's two queues in, events out. The only module of vsfwd that speaks AMQP.

A session is two TLS connections to one broker, one to consume and one to publish (under a memory alarm a
broker stops reading from publishers only). When anything of it ends, all of it ends and the next session
begins, after a pause with jitter, at the next broker of a shuffled list. aio-pika's robust connection is not
used: it knows one URL, waits a constant interval, and a session that is made anew must say hello anyway.

Nothing here is lost for good: a message is acknowledged only after it is in force, and what the host says is
levelled, so a new session begins by saying all of it (`greet`) and forgets what was left to say.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Final, NoReturn

import aio_pika
import msgspec
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError
from yarl import URL

from vsfwd.config import Config
from vsfwd.policy.desired import UNDECODABLE
from vsfwd.protocol import envelope, topology
from vsfwd.protocol.messages import Addresses, Applied, Bindings, Hello, Reply, Request

log = structlog.get_logger(log="vsfwd.broker")

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 10
PUBLISH_TIMEOUT_S: Final = 10
CLOSE_TIMEOUT_S: Final = 5
PAUSE_S: Final = (1.0, 15.0)
"""First and longest pause between two attempts; each is multiplied by a random factor of 0.5 to 1.5."""
CHECK_S: Final = 20.0
"""How often the broker is asked whether this host still consumes."""
PREFETCH: Final = 1
"""One message at a time: what is not delivered stays countable in the queue."""
OUTGOING: Final = 1000

Event = Hello | Applied | Bindings | Addresses | Reply
_KIND: Final[dict[type[Event], str]] = {
    Hello: "hello",
    Applied: "applied",
    Bindings: "vnics",
    Addresses: "addresses",
    Reply: "reply",
}


class SessionOver(Exception):
    """Something of the session has ended; the text says what."""


class BrokerLink:
    """`policy` and `request` take what comes in, one message at a time, and say what becomes of it: True
    acknowledges, False refuses (to the dead letters), None gives it back to the queue. `greet` is what the
    host has to say at the start of a session."""

    def __init__(
        self,
        config: Config,
        policy: Callable[[envelope.Message], Awaitable[bool | None]],
        request: Callable[[Request], Awaitable[None]],
        greet: Callable[[], Sequence[Event]],
    ) -> None:
        self.connected_to: str | None = None
        self.last_error = ""
        self._config = config
        self._policy = policy
        self._request = request
        self._greet = greet
        self._outgoing: deque[Event] = deque(maxlen=OUTGOING)
        self._has_outgoing = asyncio.Event()
        self._taken = 0

    def send(self, event: Event) -> None:
        """Say something when there is a session; without one, the next greeting says it."""
        if self.connected_to is not None:
            self._outgoing.append(event)
            self._has_outgoing.set()

    async def run(self) -> NoReturn:
        failures = 0
        for url in _rotation(self._config.broker_urls):
            try:
                await self._session(url)
            except* (*CONNECTION_EXCEPTIONS, SessionOver, TimeoutError) as group:
                failures = 0 if self.connected_to else failures + 1
                self.last_error = f"{url}: {_reason(group)}"
            self.connected_to = None
            if (task := asyncio.current_task()) and task.cancelling():
                # A task group that ends with errors keeps the cancellation to itself.
                raise asyncio.CancelledError
            pause_s = min(PAUSE_S[0] * 2 ** max(failures - 1, 0), PAUSE_S[1]) * random.uniform(0.5, 1.5)
            log.warning("no session with a broker", reason=self.last_error, next_attempt_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)
        raise AssertionError("the rotation has no end")

    async def _session(self, url: str) -> NoReturn:
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as session:
            consuming, publishing = [await self._connect(url, stack, over) for _ in range(2)]
            publisher = await publishing.channel(on_return_raises=True)
            exchange = await publisher.get_exchange(topology.EVENTS, ensure=False)
            intake = await consuming.channel()
            await intake.set_qos(prefetch_count=PREFETCH)
            intake.close_callbacks.add(_ends(over, "channel closed"))
            cancelled = _ends(over, "a consumer was cancelled, its queue is gone")
            (await intake.get_underlay_channel()).on_consumer_cancel_callbacks.add(cancelled)
            policy = await intake.declare_queue(topology.policy_queue(self._config.host_id), passive=True)
            app = await intake.declare_queue(topology.app_queue(self._config.host_id), passive=True)
            self._outgoing.clear()
            self.connected_to = url
            log.info("connected to the broker", broker=url)
            for event in self._greet():
                self.send(event)
            session.create_task(self._consume(policy, self._take_policy), name="policy queue")
            session.create_task(self._consume(app, self._take_request), name="app queue")
            session.create_task(self._publish(exchange), name="events")
            session.create_task(self._watch(intake, policy.name, app.name), name="consumers")
            raise SessionOver(await over)

    async def _connect(
        self, url: str, stack: AsyncExitStack, over: asyncio.Future[str]
    ) -> AbstractConnection:
        connection = await aio_pika.connect(
            URL(url).with_path(f"/{topology.VHOST}").with_query(auth="external", heartbeat=HEARTBEAT_S),
            ssl_context=_tls(self._config),
            timeout=CONNECT_TIMEOUT_S,
            client_properties={"connection_name": f"vsfwd {self._config.host_id}"},
        )
        connection.close_callbacks.add(_ends(over, "connection closed"))
        stack.push_async_callback(_close, connection)
        return connection

    async def _consume(
        self,
        queue: aio_pika.abc.AbstractQueue,
        take: Callable[[AbstractIncomingMessage], Awaitable[bool | None]],
    ) -> NoReturn:
        """One message after the other, so that what was sent first is in force first."""
        messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(messages.put)
        while True:
            message = await messages.get()
            self._taken += 1
            taken = await take(message)
            if taken:
                await message.ack()
            else:
                await message.reject(requeue=taken is None)

    async def _watch(self, intake: AbstractChannel, *queues: str) -> NoReturn:
        """A queue that is deleted and made anew loses its consumer, and now and then the broker does not say
        so or even counts what it does not deliver as delivered (quorum queues of RabbitMQ 3.10)."""
        while True:
            before = self._taken
            await asyncio.sleep(CHECK_S)
            for name in queues:
                queue = await intake.declare_queue(name, passive=True, timeout=CONNECT_TIMEOUT_S)
                found = queue.declaration_result
                if not found.consumer_count or (found.message_count and self._taken == before):
                    raise SessionOver(f"queue {name}: messages do not come any more")

    async def _take_policy(self, message: AbstractIncomingMessage) -> bool | None:
        header, signature = (
            _bytes(message.headers.get(name)) for name in (envelope.HEADER, envelope.SIGNATURE)
        )
        return await self._policy(envelope.Message(header, signature, message.body))

    async def _take_request(self, message: AbstractIncomingMessage) -> bool:
        try:
            request = msgspec.json.decode(message.body, type=Request)
        except UNDECODABLE as error:
            log.error("request refused", reason=str(error))
            return False
        await self._request(request)
        return True

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
        message = aio_pika.Message(
            msgspec.json.encode(event),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=kind,
            user_id=self._config.host_id,
        )
        try:
            await exchange.publish(
                message, topology.event_key(self._config.host_id, kind), timeout=PUBLISH_TIMEOUT_S
            )
        except TimeoutError:
            log.warning("the broker takes no events (a memory or disk alarm?)", kind=kind)
            return False
        except DeliveryError as error:
            log.error("event not taken by the broker", kind=kind, reason=str(error))
        return True


def _rotation(urls: Sequence[str]) -> Iterator[str]:
    """Every URL in turn, for ever, in an order that differs from host to host."""
    shuffled = random.sample(urls, len(urls))
    while True:
        yield from shuffled


def _tls(config: Config) -> ssl.SSLContext:
    """Made for each connection, so that renewed certificates are used. Checks the broker's name as well."""
    context = ssl.create_default_context(cafile=config.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(config.certificate, config.key)
    return context


def _ends(over: asyncio.Future[str], what: str) -> Callable[..., Awaitable[None]]:
    """A callback for aio-pika: the session is over, because of `what` and of the exception, if any."""

    async def end(*arguments: object) -> None:
        causes = [str(argument) for argument in arguments if isinstance(argument, Exception)]
        if not over.done():
            over.set_result(": ".join([what, *causes]))

    return end


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except (TimeoutError, *CONNECTION_EXCEPTIONS) as error:
        log.debug("connection not closed in order", reason=repr(error))


def _bytes(value: object) -> bytes:
    """A header's value; what is not text or bytes becomes empty and fails its signature."""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | bytearray) else b""


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The first leaf says it; the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
