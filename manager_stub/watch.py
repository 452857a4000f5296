"""Hears from the broker which hosts come and go, and tells those that have to know.

RabbitMQ says it in an exchange of its own (plugin rabbitmq_event_exchange), of which the manager has a queue.
Events are changes: a session begins with what the management API says there is.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from manager_stub.broker import Broker, Unreachable
from manager_stub.presence import AWAY_AFTER_S, Presence
from manager_stub.register import Register
from manager_stub.vnics import Vnics
from vsfwd.amqp import Session, consume
from vsfwd.protocol import topology

log = structlog.get_logger("manager.watch")

LOOK_S: Final = 5.0
AGAIN_S: Final = 10.0
_NO_EVENTS: Final = "nobody tells which hosts are there; is rabbitmq_event_exchange on, in the vhost vsfw?"


class Watch:
    def __init__(
        self,
        register: Register,
        vnics: Vnics,
        broker: Broker,
        presence: Presence,
        away_after_s: float = AWAY_AFTER_S,
    ) -> None:
        """Of a host that has been away for so long others may have the vNICs."""
        self._register = register
        self._vnics = vnics
        self._broker = broker
        self._presence = presence
        self._away_after_s = away_after_s
        self.came_or_went: Callable[[str], None] = lambda host: None
        """Called with the host of each consumer that the broker speaks of."""

    async def begin(self, session: Session, commands: AbstractExchange, intake: AbstractChannel) -> None:
        """Its part of a session of the manager's. Policy goes out without it."""
        if not await self._begun(intake, session):
            session.tasks.create_task(self._begin_yet(intake, session), name="who is there")

    async def _begin_yet(self, intake: AbstractChannel, session: Session) -> None:
        """A cluster that has just lost a node may have no leader for the queue."""
        while True:
            await asyncio.sleep(AGAIN_S)
            if await self._begun(intake, session):
                return

    async def _begun(self, intake: AbstractChannel, session: Session) -> bool:
        try:
            await self._broker.set_up_presence()
            consumers = await self._broker.consumers()
        except Unreachable as error:
            log.error(_NO_EVENTS, reason=str(error))
            return False
        events = await intake.declare_queue(topology.PRESENCE_QUEUE, passive=True)
        self._presence.begin(consumers)
        session.tasks.create_task(consume(events, self._take), name="presence")
        session.tasks.create_task(self._look(), name="hosts that are away")
        return True

    async def _take(self, message: AbstractIncomingMessage) -> bool:
        said = {name: str(value) for name, value in message.headers.items()}
        if message.routing_key == "user.authentication.failure":
            login, peer = said["name"], f"{_address(said['peer_host'])}:{said['peer_port']}"
            log.warning("somebody was not let in", login=login, peer=peer)
            self._presence.knocked(login, peer)
            return True
        queue = said.get("queue", "")  # missing where a consumer has a name that nobody can read
        self.came_or_went(topology.owner_of(queue))
        host, tag = topology.host_of_queue(queue), said.get("consumer_tag", "")
        if host in self._register.hosts:
            before = self._presence.is_up(host)
            if message.routing_key == "consumer.created":
                self._presence.came(host, tag)
            else:
                self._presence.went(host, tag)
            if (connected := self._presence.is_up(host)) is not before:
                log.info("host", host=host, connected=connected)
        return True

    async def _look(self) -> NoReturn:
        presence = self._presence
        try:
            while True:
                hosts = self._register.hosts
                presence.look(hosts)
                away = {host: presence.away_for_s(host) for host in hosts}
                gone = {host: for_s for host, for_s in away.items() if for_s >= self._away_after_s}
                self._vnics.stay_away(gone, {host for host in hosts if presence.is_up(host)})
                await asyncio.sleep(min(LOOK_S, self._away_after_s / 5))
        finally:
            presence.end()


def _address(host: str) -> str:
    """RabbitMQ writes it as an Erlang term: {127,0,0,1}, or {0,0,0,0,0,0,0,1} of IPv6."""
    parts = [int(part) for part in host.strip("{}").split(",") if part.isdecimal()]
    if len(parts) == 8:
        return f"[{ipaddress.IPv6Address(b''.join(part.to_bytes(2) for part in parts))}]"
    return ".".join(map(str, parts))
