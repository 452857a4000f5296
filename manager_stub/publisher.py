"""The manager's link to the broker: the outbox out, what hosts report in.

What must exist on the broker is declared at the start of each session, so a broker that lost everything is
set up again.

Nothing is lost with a session: messages to send stand in the register's outbox, and the broker keeps what
was not acknowledged. A message that a host does not say it applied is sent again, after a pause that
doubles; with it goes a request to report, in case it was the host's word that was lost.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError

from manager_stub.broker import Broker, Unreachable
from manager_stub.intake import AT_HAND, consume_in_turn
from manager_stub.lead import Lead, Lost
from manager_stub.levels import Outgoing
from manager_stub.register import Register
from manager_stub.reports import BadReport, check_sender, in_order, parse_report, plain
from manager_stub.statistics import RuleStatistics
from manager_stub.vnics import REQUEST_LIVES_S, Vnics
from vsfwd.amqp import (
    PAUSE_S,
    Link,
    Session,
    SessionOver,
    publish,
    signed_message,
)
from vsfwd.protocol import topology
from vsfwd.protocol.envelope import REPORT_AFTER
from vsfwd.protocol.messages import (
    Addresses,
    Applied,
    Bindings,
    Event,
    Hello,
    Renewal,
    Reply,
    Request,
    Statistics,
)
from vsfwd.protocol.order import REQUEST
from vsfwd.protocol.topology import host_of

log = structlog.get_logger("manager.publisher")

RESEND_AFTER_S: Final = 5.0
RESEND_AT_MOST_S: Final = 300.0
_NAME: Final = "vsfwd manager"
AT_ONCE: Final = 64
"""Messages published side by side."""
SENDING_S: Final = 0.002
"""What a policy message takes where manager, broker and hosts share two cores (tests/bench/README.md)."""

Beside = Callable[[Session, AbstractExchange, AbstractChannel], Awaitable[None]]


@dataclass
class Try:
    """A message that was published `times` times, and when (in the loop's time) it is due again."""

    outgoing: Outgoing
    times: int = 0
    due: float = 0.0


class Publisher(Link):
    def __init__(
        self,
        register: Register,
        vnics: Vnics,
        statistics: RuleStatistics,
        broker: Broker,
        urls: Sequence[str],
        tls: ssl.SSLContext,
        resend_after_s: float = RESEND_AFTER_S,
        lead: Lead | None = None,
    ) -> None:
        super().__init__(f"{_NAME} {lead.epoch}" if lead else _NAME, urls, lambda: tls)
        self._register = register
        self._vnics = vnics
        self._statistics = statistics
        self._broker = broker
        self._lead = lead
        self._resend_after_s = resend_after_s
        self._tries: dict[str, Try] = {}
        self.begin_beside: list[Beside] = []
        """What else uses the session."""
        self.heard: Callable[[str], None] = lambda host: None
        """Called with whoever says something."""
        self.dropped: Callable[[str, int], None] = lambda host, size: None
        """Called with whoever says so much that a message of so many bytes is not read."""
        self.renewal_asked: Callable[[str, Renewal], None] = lambda host, said: None
        """Called when a host asks for its next certificate; raises BadReport."""
        self._woken = asyncio.Event()
        register.wake = self._woken.set

    def pause_after_s(self, failures: int) -> float:
        """The longest is for hosts, so that not all come at once. All of them wait for the manager."""
        return min(super().pause_after_s(failures), PAUSE_S[0])

    async def begin(self, session: Session) -> None:
        self._check_lead()
        self._tries = {}  # whether what was published came through, only the session before could tell
        try:
            await self._broker.set_up()
            await self._broker.add_missing_hosts(self._register.hosts)
            if self._lead is not None:
                # One that was stopped holds the reports it has taken, until it has missed its heartbeats.
                await self._broker.close_connections(topology.MANAGER_USER, but=self.name)
            strangers = await self._broker.strangers(self._register.hosts)
        except Unreachable as error:
            raise SessionOver(str(error)) from None
        for login in strangers:
            log.error("the broker knows a host that this manager does not", login=login)
        for id, host in self._register.hosts.items():
            if not host.level.sent_generation:  # since the manager was restored, or ever
                self._vnics.ask_to_report(id)
        commands = await session.outlet(topology.COMMANDS)
        intake = await session.intake(AT_HAND)
        reports = await intake.declare_queue(topology.MANAGER_QUEUE, passive=True)
        session.tasks.create_task(
            consume_in_turn(reports, self._take, self._unread, self.dropped), name="reports"
        )
        session.tasks.create_task(self._publish(commands), name="outbox")
        for begin in self.begin_beside:
            await begin(session, commands, intake)

    # Out

    async def _publish(self, commands: AbstractExchange) -> NoReturn:
        clock = asyncio.get_running_loop().time
        while True:
            self._woken.clear()
            await self._send_requests(commands)
            waiting = self._waiting()
            due = [host for host, each in waiting.items() if each.due <= clock()]
            for first in range(0, len(due), AT_ONCE):
                busy_s = (len(due) - first - 1) * SENDING_S
                now = due[first : first + AT_ONCE]
                await asyncio.gather(*(self._send(commands, host, waiting[host], busy_s) for host in now))
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

    def _check_lead(self) -> None:
        if self._lead is not None and not self._lead.is_mine:
            raise SessionOver("this manager does not lead")

    async def _send(self, commands: AbstractExchange, host: str, each: Try, busy_s: float) -> None:
        self._check_lead()
        outgoing = each.outgoing
        message = signed_message(
            outgoing.message,
            {REPORT_AFTER: int(busy_s * 1000)},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=outgoing.kind,
        )
        try:
            await publish(commands, message, topology.policy_key(host))
            if each.times:
                await self._ask(commands, host, Request(str(uuid4()), "report"))
        except PublishError as error:
            raise SessionOver(f"host {host} has no queue: {error}") from None
        except DeliveryError:
            log.warning("a queue keeps nothing (no leader in the cluster?)", host=host)
            each.due = asyncio.get_running_loop().time() + PAUSE_S[0]
            return
        except TimeoutError:
            log.warning("the broker takes no messages (a memory or disk alarm?)", host=host)
        each.times += 1
        pause_s = min(self._resend_after_s * 2 ** (each.times - 1), RESEND_AT_MOST_S)
        each.due = asyncio.get_running_loop().time() + busy_s + pause_s
        log.info(
            "published" if each.times == 1 else "published again",
            host=host,
            kind=str(outgoing.kind),
            generation=outgoing.position.generation,
            base=outgoing.base.generation,
            bytes=len(outgoing.message.body),
        )

    async def _send_requests(self, commands: AbstractExchange) -> None:
        """Some of them: policy does not wait until there are none left, since hosts can make them come."""
        requests = self._register.requests
        taken = requests.take(AT_ONCE)
        try:
            await asyncio.gather(*(self._request(commands, *each) for each in taken))
        except BaseException:
            requests.put_back(taken)  # a host that is asked twice does it once
            raise
        if requests:
            self._woken.set()

    async def _request(self, commands: AbstractExchange, host: str, request: Request) -> None:
        """Once: who is away tells all it knows when it is back, and may be asked again."""
        try:
            await self._ask(commands, host, request)
        except (DeliveryError, TimeoutError) as error:
            log.warning("host not asked", host=host, method=request.method, reason=str(error))

    async def _ask(self, commands: AbstractExchange, host: str, request: Request) -> None:
        self._check_lead()
        signed = self._register.signed(host, request, REQUEST_LIVES_S)
        message = signed_message(signed, type=REQUEST, expiration=REQUEST_LIVES_S)
        await publish(commands, message, topology.app_key(host))

    # In

    def _unread(self, host: str) -> None:
        if host in self._register.hosts:
            self._vnics.ask_to_report(host)

    async def _take(self, messages: Sequence[AbstractIncomingMessage]) -> list[bool]:
        heard = {number: said for number, each in enumerate(messages) if (said := self._read(each))}
        believed = set[int]()
        for together in in_order(heard):
            believed |= self._believed({number: heard[number] for number in together})
        return [number in believed for number in range(len(messages))]

    def _read(self, message: AbstractIncomingMessage) -> tuple[str, Event] | None:
        """Whose report it is, and what it says; None if it is none."""
        try:
            encoding = message.content_encoding or "json"
            login = message.user_id
            host, report = parse_report(message.routing_key or "", login, message.body, encoding)
            check_sender(host, login, self._register.hosts, self._broker.logins(host))
        except BadReport as error:
            if error.host in self._register.hosts:
                self._register.disbelieved(error.host, str(error))
                if error.kind == "reply":
                    self._register.unreadable(error.host, str(error))
            else:
                log.error("report refused", login=message.user_id, reason=str(error))
            return None
        except Exception as error:
            self._failed(host_of(message.user_id or ""), error)  # the broker vouches for it
            return None
        self.heard(host)
        return host, report

    def _believed(self, heard: Mapping[int, tuple[str, Event]]) -> set[int]:
        """Those that counted, of reports that count together."""
        try:
            self._report(dict(heard.values()))
        except Lost:
            raise  # the messages are the next leader's
        except BadReport as error:  # of one, which counts by itself
            self._register.disbelieved(error.host, str(error))
            return set()
        except Exception as error:
            if len(heard) > 1:  # one of them
                return set().union(*(self._believed({number: said}) for number, said in heard.items()))
            for host, _ in heard.values():
                self._failed(host, error)
            return set()
        return set(heard)

    def _failed(self, host: str, error: Exception) -> None:
        """A mistake of ours, which a host has found. If it ended the process, so would the message when the
        broker gives it again: one host would stop the policy of all. The register stores each change before
        it counts, so nothing is left by halves."""
        log.error("the manager failed at a report", host=host, exc_info=error)
        if host in self._register.hosts:
            self._register.disbelieved(host, plain(f"the manager failed at a report: {error!r}"))

    def _report(self, said: Mapping[str, Event]) -> None:
        """What hosts have applied, of each or of several; or something else, of one."""
        positions = {host: each for host, each in said.items() if isinstance(each, Hello | Applied)}
        if positions:
            self._register.reported(positions)
        for host, report in said.items():
            if isinstance(report, Bindings):
                self._vnics.bound(host, report)
            elif isinstance(report, Addresses):
                self._vnics.claimed(host, report)
            elif isinstance(report, Statistics):
                self._statistics.heard(host, report)
            elif isinstance(report, Renewal):
                self.renewal_asked(host, report)
            elif isinstance(report, Reply):
                log.info("reply", host=host, request=report.id, error=report.error)
                self._register.replied(host, report)
            elif isinstance(report, Hello) and (tried := self._tries.get(host)):
                # It is back: what waits for it in its queue gets a moment, and is sent again soon if it is
                # not there.
                tried.times = 1
                tried.due = asyncio.get_running_loop().time() + self._resend_after_s
                self._woken.set()
