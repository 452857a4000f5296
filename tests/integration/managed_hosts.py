"""The manager over a real broker, with REST called directly, and hosts without a datapath that enrol there.

async with managed(installation) as manager:
    host = await manager.enrol(installation, tmp_path)
    async with host.connected(VNIC):
        await manager.in_sync(host)
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import msgspec
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from yarl import URL

from manager_stub.api.interface import interface
from manager_stub.app import Parts, compose
from manager_stub.levels import Level, Position
from manager_stub.publisher import Publisher
from manager_stub.state_dir import ADMIN
from manager_stub.watch import Watch
from tests.harness.installation import Installation
from tests.harness.waiting import eventually
from vsfwd import identity
from vsfwd.policy.desired import DesiredState, apply
from vsfwd.protocol import envelope, topology
from vsfwd.protocol.messages import (
    Applied,
    Binding,
    Bindings,
    Hello,
    Request,
    digest_text,
)

DEADLINE_S = 60.0
RESEND_AFTER_S = 3.0
"""Longer than a host takes to answer on a busy machine: what comes twice is more than tests expect."""
AWAY_AFTER_S = 2.0
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
MAC = "02:00:00:00:00:01"


@asynccontextmanager
async def managed(installation: Installation) -> AsyncIterator["Manager"]:
    """All of it but the TLS server: publisher task, and the REST interface called directly."""
    parts = compose(installation.directory)
    urls = installation.directory.config.broker_urls
    publisher = Publisher(
        parts.register,
        parts.vnics,
        parts.statistics,
        parts.broker,
        urls,
        installation.directory.broker_tls(),
        resend_after_s=RESEND_AFTER_S,
    )
    publisher.heard = parts.presence.heard
    watch = Watch(parts.register, parts.vnics, parts.broker, parts.presence, AWAY_AFTER_S)
    publisher.begin_beside = [watch.begin]
    publishing = asyncio.create_task(publisher.run())
    rest = httpx.AsyncClient(
        transport=httpx.ASGITransport(interface(parts, installation.directory)),
        base_url="https://manager",
        auth=(ADMIN, installation.password),
    )
    try:
        await eventually(lambda: publisher.connected_to is not None, "the manager connects")
        async with rest:
            yield Manager(parts, publisher, rest)
    finally:
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
        await parts.broker.close()
        parts.store.close()


class Manager:
    def __init__(self, parts: Parts, publisher: Publisher, rest: httpx.AsyncClient) -> None:
        self.publisher = publisher
        self.register = parts.register
        self._rest = rest

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = (await self._rest.request(method, path, json=body)).raise_for_status()
        return answer.json() if answer.content else None

    async def enrol(self, installation: Installation, path: Path) -> "Host":
        key = identity.new_key()
        pem = identity.signing_request(key)
        token = await self.call("POST", "/api/v1/vsfw/enrolment-tokens", {"display_name": "host"})
        given = await self.call("POST", "/api/v1/vsfw/enrol", {"token": token["token"], "csr": pem})
        return Host(given, key, path)

    async def in_sync(self, host: "Host") -> None:
        """The host has what it should have; its last word was heard, not only one of before."""

        def level() -> Level:
            return self.register.hosts[host.id].level

        heard = lambda: level().applied == host.position and level().outgoing is None  # noqa: E731
        await eventually(lambda: level().in_sync and heard(), "in sync")

    async def connected(self, host: "Host", yes: bool = True) -> None:
        """As the broker's statistics have it, which come every few seconds and set no event."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.shown(host))["connected"] is not yes:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def shown(self, host: "Host") -> Any:
        return await self.call("GET", f"/api/v1/vsfw/hosts/{host.id}")

    async def put_vm(self, *tags: str) -> None:
        vnic = {"id": VNIC, "mac": MAC, "addresses": ["10.0.0.1", "fd00::1"]}
        body = {
            "display_name": "vm",
            "tags": [{"scope": "tier", "tag": tag} for tag in tags],
            "vnics": [vnic],
        }
        await self.call("PUT", f"/api/v1/vsfw/vms/{VM}", body)


class Host:
    """A host without a datapath: real envelope, real desired state, and it says what it applied. `deaf` hosts
    take messages and neither apply nor answer."""

    def __init__(self, given: Any, key: ec.EllipticCurvePrivateKey, path: Path) -> None:
        self.id: str = given["id"]
        self.state = DesiredState()
        self.headers: list[envelope.Header] = []
        self.asked: asyncio.Queue[Request] = asyncio.Queue()
        self.deaf = False
        self._taking = asyncio.Lock()
        self._url = URL(given["broker_urls"][0]).with_path("/vsfw").with_query(auth="external")
        self._manager_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(given["manager_key"]))
        certificate, private = path / f"{self.id}.crt", path / f"{self.id}.key"
        certificate.write_text(given["certificate"])
        private.write_bytes(identity.key_pem(key))
        self._tls = ssl.create_default_context(cadata=given["ca"])
        self._tls.load_cert_chain(certificate, private)

    @property
    def position(self) -> Position:
        return Position(self.state.epoch, self.state.generation, digest_text(self.state.digest))

    @asynccontextmanager
    async def connected(self, *vnics: str) -> AsyncIterator["Host"]:
        async with await self.connect() as connection:
            channel = await connection.channel()
            self.events = await channel.get_exchange(topology.EVENTS, ensure=False)
            queue = await channel.declare_queue(topology.policy_queue(self.id), passive=True)
            app = await channel.declare_queue(topology.app_queue(self.id), passive=True)
            await self.say(
                "hello",
                Hello(self.position.epoch, self.position.generation, self.position.digest, "test"),
            )
            await self.say("vnics", Bindings(tuple(Binding(vnic, VM, MAC, "veth0") for vnic in vnics)))
            await queue.consume(self._take)
            await app.consume(self._ask)
            yield self
            async with self._taking:
                pass  # what the host has said to have applied is acknowledged, and not sent to it again

    async def connect(self) -> AbstractConnection:
        return await aio_pika.connect(self._url, ssl_context=self._tls, timeout=DEADLINE_S)

    async def say(self, kind: str, what: msgspec.Struct, *, host: str = "", user: str = "") -> None:
        encoding, body = envelope.pack(msgspec.json.encode(what))
        message = aio_pika.Message(body, content_encoding=encoding, user_id=user or self.id)
        await self.events.publish(message, topology.event_key(host or self.id, kind))

    async def _ask(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        request = msgspec.json.decode(message.body, type=Request)
        if request.method == "flows":
            self.asked.put_nowait(request)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        async with self._taking:
            await self._apply(message)

    async def _apply(self, message: AbstractIncomingMessage) -> None:
        sealed = envelope.Message(
            bytes(message.headers[envelope.HEADER]), bytes(message.headers[envelope.SIGNATURE]), message.body
        )
        header, json = envelope.unseal(self._manager_key, sealed, self.id)
        self.headers.append(header)
        if not self.deaf:
            self.state = apply(self.state, header, json)
            await self.say("applied", Applied(header.epoch, header.generation, header.digest))
        await message.ack()
