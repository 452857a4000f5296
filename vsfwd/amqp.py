"""Sessions with RabbitMQ, the daemon's and the manager's. The only module that opens AMQP connections.

A session is two TLS connections to one broker, one to publish and one to consume (under a memory alarm a
broker stops reading from publishers only). When anything of it ends, all of it ends and the next session
begins, after a pause with jitter, at the next broker of a shuffled list. aio-pika's robust connection is not
used: it knows one URL, waits a constant interval, and what was said in one session must be said again in the
next anyway.

A broker that falls silent is found within HEARTBEAT_S, by the connection that consumes: a heartbeat is sent
after half of it, and what TCP has not acknowledged for the other half ends it. Without that (RFC 5482) a
connection that was cut for a while waits as long again until TCP tries once more. The one that publishes has
more patience: an alarm stops the broker's reading from it for as long as it takes.
"""

import asyncio
import random
import socket
import ssl
import struct
import time
from abc import ABC, abstractmethod
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import MappingProxyType
from typing import Any, Final, NoReturn

import aio_pika
import pamqp.header
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
    ConnectionParameter,
)
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ProbableAuthenticationError
from aiormq.connection import TLSTransportFactory
from pamqp.commands import Basic
from yarl import URL

from vsfwd.protocol import topology
from vsfwd.protocol.envelope import HEADER, SIGNATURE, Message

log = structlog.get_logger(log="vsfwd.amqp")

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 10
PUBLISH_TIMEOUT_S: Final = 10
MAX_PROPERTIES: Final = 8 * 1024
"""Bytes of the properties of a message, its signed header among them: that has a few hundred."""
CLOSE_TIMEOUT_S: Final = 1
PAUSE_S: Final = (1.0, 8.0)
"""First and longest pause between two rounds of all brokers; each is multiplied by a random factor of 0.5 to
1.5. The longest is for one broker, and spreads a thousand hosts that come back to it: of three, each has a
third of them, and they come in a third of the time, so that all are back 5 s after the cluster is."""


_decode = pamqp.header.ContentHeader.unmarshal


def _decode_or_leave(header: pamqp.header.ContentHeader, data: bytes) -> None:
    """The properties of a message are its publisher's, and a broker hands on what no client can decode: a
    name that is no UTF-8, a time beyond all years, a table in a table in a table. The library would end the
    connection, and again when the message comes again. Such a message has no properties here, and whoever
    reads it refuses it."""
    try:
        if len(data) > MAX_PROPERTIES:
            raise ValueError(f"{len(data)} bytes")
        _decode(header, data)
    except Exception as error:
        log.warning("a message has properties that cannot be read", reason=repr(error)[:200])
        header.class_id, header.weight, header.body_size = struct.unpack_from(">HHQ", data)
        header.properties = Basic.Properties()


pamqp.header.ContentHeader.unmarshal = _decode_or_leave  # type: ignore[assignment,method-assign]


class SessionOver(Exception):
    """Something of the session has ended; the text says what."""


class _Transport(TLSTransportFactory):
    """Of one connection, which ends when the broker has not acknowledged what was sent for so long."""

    def __init__(self, unacknowledged_s: float | None = None) -> None:
        self._unacknowledged_s = unacknowledged_s
        self._socket: TransportSocket | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super().create(url, **kwargs)
        self._socket = writer.get_extra_info("socket")
        if self._socket is not None and self._unacknowledged_s is not None:
            self._socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self._unacknowledged_s)
            )
        return reader, writer

    def abort(self) -> None:
        """By the socket: a TLS transport that was closed twice, as aiormq does when a broker is slow to say
        goodbye, knows nothing that it could abort (Python 3.11)."""
        if self._socket is not None:
            with suppress(OSError):  # closed meanwhile
                self._socket.shutdown(socket.SHUT_RDWR)


class _Connection(aio_pika.Connection):
    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter("transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )


class Session:
    """`tasks` is for what runs as long as the session; whatever ends there ends it."""

    def __init__(
        self,
        connect: Callable[[_Transport], Awaitable[AbstractConnection]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.tasks = tasks
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._connect = connect

    async def outlet(self, exchange: str) -> AbstractExchange:
        """To publish to, on the connection for that; what finds no queue raises PublishError, what a queue
        cannot keep (it has no leader at the moment) DeliveryError."""
        channel = await self._channel(_Transport())
        return await channel.get_exchange(exchange, ensure=False)

    async def intake(self, at_once: int) -> AbstractChannel:
        """To consume from, on the connection for that; up to `at_once` messages come before the first is
        acknowledged."""
        channel = await self._channel(_Transport(HEARTBEAT_S / 2))
        await channel.set_qos(prefetch_count=at_once)
        cancelled = self._ends("a consumer was cancelled, its queue is gone")
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(cancelled)
        return channel

    async def _channel(self, transport: _Transport) -> AbstractChannel:
        connection = await self._connect(transport)
        connection.close_callbacks.add(self._ends("connection closed"))
        channel = await connection.channel(on_return_raises=True)
        channel.close_callbacks.add(self._ends("channel closed"))
        return channel

    def _ends(self, what: str) -> Callable[..., Awaitable[None]]:
        """A callback for aio-pika: the session is over, because of `what` and of the exception, if any."""

        async def end(*arguments: object) -> None:
            causes = [str(argument) for argument in arguments if isinstance(argument, Exception)]
            if not self.over.done():
                self.over.set_result(": ".join([what, *causes]))

        return end


class Link(ABC):
    """One session after the other. `tls` is asked for every connection, so that renewed certificates are
    used."""

    login_refused = ""
    """What to do where the broker does not let this one in; said with its refusal."""

    def __init__(self, name: str, urls: Sequence[str], tls: Callable[[], ssl.SSLContext]) -> None:
        self.connected_to: str | None = None
        self._away_since: float | None = time.monotonic()
        self.last_error = ""
        self.name = name
        self.urls = urls
        """Of the brokers; from the next session on where it is changed."""
        self._tls = tls

    @abstractmethod
    async def begin(self, session: Session) -> None:
        """Opens what it needs and starts the session's tasks. Raises SessionOver."""

    async def run(self) -> NoReturn:
        failures = 0
        for url in _rotation(lambda: self.urls):
            try:
                await self._session(url)
            except* (*CONNECTION_EXCEPTIONS, SessionOver, TimeoutError) as group:
                self.last_error = f"{url}: {_reason(group)}"
                if self.login_refused and group.subgroup(ProbableAuthenticationError):
                    self.last_error += f"; {self.login_refused}"
            except* (Exception, asyncio.CancelledError) as group:
                # With either of them, and no word, aiormq ends what waits on a connection that has gone.
                _, mistakes = group.split(lambda error: type(error) in (Exception, asyncio.CancelledError))
                if mistakes is not None:
                    raise mistakes from None
                self.last_error = f"{url}: the connection has gone"
            failures = 0 if self.connected_to else failures + 1
            if self.connected_to:
                self._away_since = time.monotonic()
            self.connected_to = None
            if is_cancelled():
                # A task group that ends with errors keeps the cancellation to itself.
                raise asyncio.CancelledError
            pause_s = self.pause_after_s(failures) * random.uniform(0.5, 1.5)
            log.warning("no session with a broker", reason=self.last_error, next_attempt_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)
        raise AssertionError("the rotation has no end")

    def pause_after_s(self, failures: int) -> float:
        """None before all brokers were tried. Then twice as long after each round, for as many as it takes:
        days are thousands of them."""
        rounds, rest = divmod(failures, len(self.urls))
        if rest:
            return 0.0
        first, longest = PAUSE_S
        return min(first * (1 << min(max(rounds - 1, 0), 10)), longest / len(self.urls))

    @property
    def absence(self) -> str:
        """Why there is no session; empty while there is one."""
        if self.connected_to is not None:
            return ""
        return f"no broker ({self.last_error or 'none has been reached yet'})"

    def away_for_s(self) -> float:
        """Since the last session ended, or the process began."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    async def _session(self, url: str) -> NoReturn:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            session = Session(lambda transport: self._connect(url, transport, stack), tasks)
            await self.begin(session)
            self.connected_to, self._away_since = url, None
            log.info("connected to the broker", broker=url)
            # Waited for here and not in the group's exit: a task that fails there leaves us marked as
            # cancelled for good (Python 3.11's group takes back only a cancellation that met the body).
            raise SessionOver(await session.over)

    async def _connect(self, url: str, transport: _Transport, stack: AsyncExitStack) -> AbstractConnection:
        connection = _Connection(
            URL(url).with_path(f"/{topology.VHOST}").with_query(auth="external", heartbeat=HEARTBEAT_S),
            ssl_context=self._tls(),
            client_properties={"connection_name": self.name},
            transport_factory=transport,
        )
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
        stack.push_async_callback(_close, connection, transport)
        return connection


def is_cancelled() -> bool:
    """Whether this task is to end. A CancelledError alone may be aiormq's, on a connection that has gone."""
    return bool((task := asyncio.current_task()) and task.cancelling())


async def publish(exchange: AbstractExchange, message: aio_pika.Message, key: str) -> None:
    """Returns when the broker has it; raises TimeoutError. aiormq's own timeouts are asyncio.wait_for, which
    in Python 3.11 loses a cancellation that comes with what it waits for: the session would not end."""
    async with asyncio.timeout(PUBLISH_TIMEOUT_S):
        await exchange.publish(message, key)


def signed_message(
    signed: Message, more: Mapping[str, int] = MappingProxyType({}), **properties: Any
) -> aio_pika.Message:
    """`more`: headers beside the signed one."""
    headers: dict[str, Any] = {HEADER: bytearray(signed.header), SIGNATURE: bytearray(signed.signature)}
    headers.update(more)
    return aio_pika.Message(signed.body, headers=headers, content_type="application/json", **properties)


async def consume(
    queue: AbstractQueue, take: Callable[[AbstractIncomingMessage], Awaitable[bool | None]]
) -> NoReturn:
    """One message after the other, in their order. `take` says what becomes of it: True acknowledges, False
    refuses (to the dead letters), None gives it back to the queue."""
    messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(messages.put)
    while True:
        message = await messages.get()
        taken = await take(message)
        if taken:
            await message.ack()
        else:
            await message.reject(requeue=taken is None)


def _rotation(urls: Callable[[], Sequence[str]]) -> Iterator[str]:
    """Every URL in turn, for ever, in an order that differs from host to host."""
    while True:
        now = urls()
        shuffled = random.sample(now, len(now))
        while urls() is now:
            yield from shuffled


async def _close(connection: AbstractConnection, transport: _Transport) -> None:
    """In order, if the broker still answers: to whoever is silent aiormq would say goodbye for half a minute,
    cancelled or not."""
    closing = asyncio.ensure_future(connection.close())
    for _ in range(2):
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
        if closing.done():
            break
        transport.abort()
    if error := closing.exception() if closing.done() else TimeoutError():
        log.debug("connection not closed in order", reason=repr(error))


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The first leaf says it; the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
