"""Somebody on the broker with more rights than any host: reads what the manager sends, sends it again, to
others, late or spoilt, and makes messages vanish.

What a proxy under TLS cannot do to a single message is done here, on the broker itself: whoever owns the
broker is not believed either.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from yarl import URL

from tests.harness.installation import Installation
from vsfwd.protocol import topology
from vsfwd.protocol.envelope import HEADER, SIGNATURE, Message

USER: Final = "hostile"
_SPY: Final = "hostile.spy"


class Hostile:
    """`seen`: what was sent to each host, by its id."""

    def __init__(self, installation: Installation, seed: int) -> None:
        self._installation = installation
        self._chance = random.Random(seed)
        self.seen: dict[str, list[Message]] = {}

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Hostile"]:
        """Once the manager has set the broker up."""
        await asyncio.to_thread(self._take_rights)
        url = URL(self._installation.node.url).with_path(f"/{topology.VHOST}").with_query(auth="external")
        async with await aio_pika.connect(url, ssl_context=self._tls()) as connection:
            self._channel = await connection.channel()
            self._commands = await self._channel.get_exchange(topology.COMMANDS, ensure=False)
            self._spy = await self._channel.declare_queue(_SPY, exclusive=True)
            await self._spy.bind(topology.COMMANDS, topology.policy_key("*"))
            await self._spy.consume(self._note, no_ack=True)
            yield self

    def _take_rights(self) -> None:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        with self._installation.node.client() as client:
            client.put(f"/api/users/{USER}", json={"password_hash": "", "tags": ""}).raise_for_status()
            url = f"/api/permissions/{topology.VHOST}/{USER}"
            client.put(url, json=everything).raise_for_status()

    def _tls(self) -> ssl.SSLContext:
        context = self._installation.directory.broker_tls()
        certificate, key = self._installation.directory.authority().issue_client(USER)
        path = self._installation.path / USER
        path.write_bytes(key + certificate)
        context.load_cert_chain(path)
        return context

    async def _note(self, message: AbstractIncomingMessage) -> None:
        _, host, kind = (message.routing_key or "").split(".")
        if kind == "policy" and not message.headers.get("again"):
            header, signature = (bytes(message.headers[name]) for name in (HEADER, SIGNATURE))
            self.seen.setdefault(host, []).append(Message(header, signature, message.body))

    async def catch_up(self) -> None:
        """All that the broker was given until now is in `seen`: its answer comes behind it."""
        while await self.waiting(_SPY):
            pass

    def any_to(self, host: str) -> Message | None:
        """One of those that were sent to it, old ones too."""
        seen = self.seen.get(host)
        return self._chance.choice(seen) if seen else None

    async def send(self, host: str, message: Message, times: int = 1) -> None:
        headers = {
            HEADER: bytearray(message.header),
            SIGNATURE: bytearray(message.signature),
            "again": True,
        }
        for _ in range(times):
            await self._commands.publish(
                aio_pika.Message(message.body, headers=headers, delivery_mode=2), topology.policy_key(host)
            )

    def spoilt(self, message: Message) -> Message:
        """A bit of header, signature or body is another, or its end is missing."""
        field = self._chance.choice(("header", "signature", "body"))
        parts = {name: getattr(message, name) for name in ("header", "signature", "body")}
        whole = bytearray(parts[field])
        place = self._chance.randrange(len(whole))
        if self._chance.random() < 0.5:
            whole[place] ^= 1 << self._chance.randrange(8)
        else:
            del whole[place:]
        return Message(**{**parts, field: bytes(whole)})

    async def waiting(self, queue: str) -> int:
        found = await self._channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    @asynccontextmanager
    async def swallowing(self, exchange: str, queue: str, key: str) -> AsyncIterator[None]:
        """What goes from there to the queue meanwhile is lost, and whoever sends it is told that it went
        well."""
        victim = await self._channel.get_queue(queue, ensure=False)
        await self._spy.bind(exchange, key)
        await victim.unbind(exchange, key)
        try:
            yield
        finally:
            await victim.bind(exchange, key)
