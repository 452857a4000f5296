"""The manager's link to the broker: the outbox out, what hosts report in. The only module of the manager
that speaks AMQP.

A session is two TLS connections, one to publish and one to consume (under a memory alarm a broker stops
reading from publishers only). When anything of it ends, all of it ends and the next begins. What must exist
on the broker is declared at the start of each, so a broker that lost everything is set up again.

Nothing is lost with a session: messages to send stand in the register's outbox, and the broker keeps what
was not acknowledged. A message that a host does not say it applied is sent again, after a pause that
doubles; with it goes a request to report, in case it was the host's word that was lost.
"""

import asyncio
import random
import re
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import uuid4

import aio_pika
import msgspec
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError
from yarl import URL

from manager_stub.broker import Broker, Unreachable
from manager_stub.levels import Outgoing
from manager_stub.register import Register
from vsfwd.protocol import topology
from vsfwd.protocol.envelope import HEADER, SIGNATURE
from vsfwd.protocol.messages import Addresses, Applied, Bindings, Hello, Reply, Request

log = structlog.get_logger("manager.publisher")

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 10
PUBLISH_TIMEOUT_S: Final = 10
CLOSE_TIMEOUT_S: Final = 5
PAUSE_S: Final = (0.5, 10.0)
"""First and longest pause between two sessions, each multiplied by a random factor of 0.5 to 1.5."""
RESEND_AFTER_S: Final = 5.0
RESEND_AT_MOST_S: Final = 300.0
AT_ONCE: Final = 64
"""Messages published side by side, and reports taken from the queue before the first is acknowledged."""

MAX_REPORT: Final = 1024 * 1024
"""Bytes of one report."""
LARGEST_NUMBER: Final = 2**53
"""Of an epoch or a generation: what every JSON reader, and the database, holds exactly."""

_KEY: Final = re.compile(r"host\.([0-9a-f-]{36})\.([a-z]+)")
Report = Hello | Applied | Bindings | Addresses | Reply
_REPORTS: Final[dict[str, type[Report]]] = {
    "hello": Hello,
    "applied": Applied,
    "vnics": Bindings,
    "addresses": Addresses,
    "reply": Reply,
}


class SessionOver(Exception):
    """Something of the session has ended; the text says what."""


@dataclass
class Try:
    """A message that was published `times` times, and when (in the loop's time) it is due again."""

    outgoing: Outgoing
    times: int = 0
    due: float = 0.0


class Publisher:
    def __init__(
        self,
        register: Register,
        broker: Broker,
        url: str,
        tls: ssl.SSLContext,
        resend_after_s: float = RESEND_AFTER_S,
    ) -> None:
        self.connected = False
        self._register = register
        self._broker = broker
        self._url = (
            URL(url).with_path(f"/{topology.VHOST}").with_query(auth="external", heartbeat=HEARTBEAT_S)
        )
        self._tls = tls
        self._resend_after_s = resend_after_s
        self._tries: dict[str, Try] = {}
        self._woken = asyncio.Event()
        register.wake = self._woken.set

    async def run(self) -> NoReturn:
        failures = 0
        while True:
            try:
                await self._session()
            except* (*CONNECTION_EXCEPTIONS, SessionOver, TimeoutError, Unreachable) as group:
                failures = 0 if self.connected else failures + 1
                reason = _reason(group)
            self.connected = False
            if (task := asyncio.current_task()) and task.cancelling():
                # A task group that ends with errors keeps the cancellation to itself.
                raise asyncio.CancelledError
            pause_s = min(PAUSE_S[0] * 2 ** max(failures - 1, 0), PAUSE_S[1]) * random.uniform(0.5, 1.5)
            log.warning("no session with the broker", reason=reason, next_attempt_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)

    async def _session(self) -> NoReturn:
        await self._broker.set_up()
        await self._broker.add_missing_hosts(self._register.hosts)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as session:
            publishing, consuming = await self._connect(stack), await self._connect(stack)
            outlet = await publishing.channel(on_return_raises=True)
            commands = await outlet.get_exchange(topology.COMMANDS, ensure=False)
            intake = await consuming.channel()
            await intake.set_qos(prefetch_count=AT_ONCE)
            cancelled = asyncio.Event()
            (await intake.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
            reports = await intake.declare_queue(topology.MANAGER_QUEUE, passive=True)
            self.connected = True
            log.info("connected to the broker", broker=str(self._url.origin()))
            session.create_task(self._consume(reports), name="reports")
            session.create_task(self._publish(commands), name="outbox")
            session.create_task(_ended(cancelled, "the broker cancelled the consumer"))
            for part in (publishing, consuming, outlet, intake):
                session.create_task(_ended(_closing(part), f"closed: {part}"))
            # Waited for here and not in the group's exit: a task that fails there leaves us marked as
            # cancelled for good (Python 3.11's group takes back only a cancellation that met the body).
            await asyncio.get_running_loop().create_future()
        raise AssertionError("the session has no end of its own")

    async def _connect(self, stack: AsyncExitStack) -> AbstractConnection:
        connection = await aio_pika.connect(
            self._url,
            ssl_context=self._tls,
            timeout=CONNECT_TIMEOUT_S,
            client_properties={"connection_name": "vsfwd manager"},
        )
        stack.push_async_callback(_close, connection)
        return connection

    # Out

    async def _publish(self, commands: AbstractExchange) -> NoReturn:
        clock = asyncio.get_running_loop().time
        while True:
            self._woken.clear()
            waiting = self._waiting()
            due = [host for host, each in waiting.items() if each.due <= clock()]
            for first in range(0, len(due), AT_ONCE):
                await asyncio.gather(
                    *(self._send(commands, host, waiting[host]) for host in due[first : first + AT_ONCE])
                )
            next_due = min((each.due for each in waiting.values()), default=None)
            try:
                async with asyncio.timeout_at(next_due):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _waiting(self) -> dict[str, Try]:
        """The outbox: what hosts have not said they applied, with what was tried so far."""
        waiting: dict[str, Try] = {}
        for id, host in self._register.hosts.items():
            outgoing = host.level.outgoing
            if outgoing is not None and not outgoing.refused:
                tried = self._tries.get(id)
                known = tried is not None and tried.outgoing.position == outgoing.position
                waiting[id] = tried if tried is not None and known else Try(outgoing)
        self._tries = waiting
        return waiting

    async def _send(self, commands: AbstractExchange, host: str, each: Try) -> None:
        outgoing = each.outgoing
        message = aio_pika.Message(
            outgoing.message.body,
            headers={
                HEADER: bytearray(outgoing.message.header),
                SIGNATURE: bytearray(outgoing.message.signature),
            },
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=outgoing.kind,
        )
        try:
            await commands.publish(message, topology.policy_key(host), timeout=PUBLISH_TIMEOUT_S)
            if each.times:
                await self._ask_to_report(commands, host)
        except DeliveryError as error:
            raise SessionOver(f"host {host} has no queue: {error}") from None
        except TimeoutError:
            log.warning("the broker takes no messages (a memory or disk alarm?)", host=host)
        each.times += 1
        pause_s = min(self._resend_after_s * 2 ** (each.times - 1), RESEND_AT_MOST_S)
        each.due = asyncio.get_running_loop().time() + pause_s
        log.info(
            "published" if each.times == 1 else "published again",
            host=host,
            kind=str(outgoing.kind),
            generation=outgoing.position.generation,
            base=outgoing.base.generation,
            bytes=len(outgoing.message.body),
        )

    async def _ask_to_report(self, commands: AbstractExchange, host: str) -> None:
        body = msgspec.json.encode(Request(str(uuid4()), "report"))
        message = aio_pika.Message(body, content_type="application/json", type="request", expiration=60)
        await commands.publish(message, topology.app_key(host), timeout=PUBLISH_TIMEOUT_S)

    # In

    async def _consume(self, queue: aio_pika.abc.AbstractQueue) -> NoReturn:
        async with queue.iterator() as messages:
            async for message in messages:
                try:
                    self._take(message)
                except BadReport as error:
                    log.error("report refused", key=message.routing_key, reason=str(error))
                    await message.reject(requeue=False)
                else:
                    await message.ack()
        raise SessionOver(f"queue {queue.name}: no more messages")

    def _take(self, message: AbstractIncomingMessage) -> None:
        host, report = parse_report(message.routing_key or "", message.user_id, message.body)
        if host not in self._register.hosts:
            raise BadReport("the host is not, or no longer, in the register")
        if isinstance(report, Bindings):
            self._register.bound(host, report)
        elif isinstance(report, Addresses):
            self._register.claimed(host, report)
        elif isinstance(report, Reply):
            log.info("reply", host=host, request=report.id, error=report.error)
        else:
            self._register.reported(host, report)
            if isinstance(report, Hello) and (tried := self._tries.get(host)):
                # It is back: what waits for it in its queue gets a moment, and is sent again soon if it is
                # not there.
                tried.times = 1
                tried.due = asyncio.get_running_loop().time() + self._resend_after_s
                self._woken.set()


class BadReport(Exception):
    """Not a report of the host it claims to be from; the text says why."""


def parse_report(key: str, user_id: str | None, body: bytes) -> tuple[str, Report]:
    """Host and report of a message. The broker vouches for `user_id`, so one that is missing or another's
    is refused. Raises BadReport."""
    match = _KEY.fullmatch(key)
    if match is None or match[2] not in _REPORTS:
        raise BadReport("the key is not one of a report")
    host, kind = match.groups()
    if user_id != host:
        raise BadReport(f"user_id is {user_id!r}")
    if len(body) > MAX_REPORT:
        raise BadReport(f"{len(body)} bytes are over the limit of {MAX_REPORT}")
    try:
        report = msgspec.json.decode(body, type=_REPORTS[kind])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadReport(f"{kind}: {error}") from None
    if isinstance(report, Hello | Applied):
        for field, number in (("epoch", report.epoch), ("generation", report.generation)):
            if not 0 <= number < LARGEST_NUMBER:
                raise BadReport(f"{kind}: {field} {number} was never sent")
    return host, report


def _closing(part: AbstractConnection | AbstractChannel) -> asyncio.Event:
    """Set when it closes, whoever closes it (aio-pika's `closed()` tells only of our own closing)."""
    ended = asyncio.Event()
    part.close_callbacks.add(lambda *_: ended.set())
    if part.is_closed:
        ended.set()
    return ended


async def _ended(end: asyncio.Event, what: str) -> NoReturn:
    await end.wait()
    raise SessionOver(what)


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except (TimeoutError, *CONNECTION_EXCEPTIONS) as error:
        log.debug("connection not closed in order", reason=repr(error))


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The first leaf says it; the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
