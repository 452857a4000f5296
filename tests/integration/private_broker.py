"""A private RabbitMQ node with the topology of one manager and one host, and the manager's end of it.

For tests of the daemon's link alone: what the real manager declares and signs stands here in its smallest
form.
"""

import asyncio
import datetime
import ipaddress
import secrets
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aio_pika
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from yarl import URL

from tests.harness.broker import free_ports
from tests.unit.policy_messages import HOST
from vagrant.lab.broker import Broker, Tls
from vsfwd.protocol import components, envelope, migration, topology
from vsfwd.protocol.messages import EVENTS

T = TypeVar("T")
DEADLINE_S = 60.0
_KINDS: dict[str, Any] = {**EVENTS, **components.KINDS}


class Authority:
    """A certificate authority; `directory` has ca.pem, and NAME.pem with NAME.key for every name issued."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("vsfw test CA")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self._write("ca", certificate.sign(self._key, hashes.SHA256()), self._key)

    def issue(self, common_name: str, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """Certificate and key of a client, or of a server on `address`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(_name(common_name), key)
        builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
        return self._write(name, builder.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(minutes=5),
            not_valid_after=now + datetime.timedelta(days=1),
        )

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> tuple[Path, Path]:
        pem, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pem, private


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class PrivateBroker:
    """A node on `address`, declared for `host` as the manager declares it."""

    def __init__(self, directory: Path, host: str = HOST, address: str = "127.0.0.1") -> None:
        self.host = host
        self.authority = Authority(directory)
        self.host_certificate = self.authority.issue(host, "host")
        self.manager_certificate = self.authority.issue(topology.MANAGER_USER, "manager")
        certificate, key = self.authority.issue("broker", "broker", address)
        port, api_port, epmd_port, node_port = free_ports(4)
        self.node = Broker(
            directory / "broker",
            address,
            Tls(self.authority.ca, certificate, key),
            secrets.token_hex(16),
            port=port,
            api_port=api_port,
            epmd_port=epmd_port,
            node_port=node_port,
        )

    def start(self) -> None:
        self.node.start()
        self.node.wait_ready()

    def declare(self) -> None:
        """vhost, users, exchanges, queues, bindings, permissions: as facts of the bus, through the HTTP
        API."""
        vhost, host = topology.VHOST, self.host
        policy, app = topology.policy_queue(host), topology.app_queue(host)
        rights = {"configure": "^$", "write": f"^{topology.EVENTS}$", "read": f"^({policy}|{app})$"}
        quorum = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 5}
        quorum["x-dead-letter-exchange"] = topology.DEAD
        durable = {"durable": True, "auto_delete": False}
        puts: list[tuple[str, dict[str, Any]]] = [
            (f"vhosts/{vhost}", {}),
            (f"users/{host}", {"password_hash": "", "tags": ""}),
            (f"users/{topology.MANAGER_USER}", {"password_hash": "", "tags": ""}),
            (f"permissions/{vhost}/{topology.MANAGER_USER}", {"configure": "", "write": ".*", "read": ".*"}),
            (f"permissions/{vhost}/{host}", rights),
            (f"exchanges/{vhost}/{topology.COMMANDS}", {"type": "topic", **durable}),
            (f"exchanges/{vhost}/{topology.EVENTS}", {"type": "topic", **durable}),
            (f"exchanges/{vhost}/{topology.DEAD}", {"type": "fanout", **durable}),
            *((f"queues/{vhost}/{name}", {"arguments": quorum, **durable}) for name in (policy, app)),
            *((f"queues/{vhost}/{name}", durable) for name in (topology.DEAD, topology.MANAGER_QUEUE)),
        ]
        topic = {"exchange": topology.EVENTS, "write": r"^host\.{username}\.[a-z]+$", "read": "^$"}
        bindings = [
            (topology.COMMANDS, policy, topology.policy_key(host)),
            (topology.COMMANDS, app, topology.app_key(host)),
            (topology.EVENTS, topology.MANAGER_QUEUE, "host.#"),
            (topology.DEAD, topology.DEAD, ""),
        ]
        with self.node.client() as client:
            for path, body in puts:
                client.put(f"/api/{path}", json=body).raise_for_status()
            client.put(f"/api/topic-permissions/{vhost}/{host}", json=topic).raise_for_status()
            for exchange, queue, key in bindings:
                body = {"routing_key": key}
                client.post(f"/api/bindings/{vhost}/e/{exchange}/q/{queue}", json=body).raise_for_status()

    def delete_queue(self, name: str) -> None:
        with self.node.client() as client:
            client.delete(f"/api/queues/{topology.VHOST}/{name}").raise_for_status()

    def purge(self) -> None:
        """No message waits for the host."""
        with self.node.client() as client:
            for queue in (topology.policy_queue(self.host), topology.app_queue(self.host)):
                client.delete(f"/api/queues/{topology.VHOST}/{queue}/contents").raise_for_status()

    def expel(self) -> None:
        """Cut the host's connections and let it in no more, until `declare`: a user that is deleted is
        out."""
        with self.node.client() as client:
            client.delete(f"/api/users/{self.host}").raise_for_status()

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(*self.manager_certificate)
        return context


class ManagersEnd:
    """The manager's connection: commands out, events in. What hosts reported is in `events`."""

    def __init__(self, broker: PrivateBroker) -> None:
        self._broker = broker
        self._stack = AsyncExitStack()
        self.events: list[Any] = []
        self.users: set[str | None] = set()
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        url = URL(self._broker.node.url).with_path(f"/{topology.VHOST}").with_query(auth="external")
        connection = await aio_pika.connect(url, ssl_context=self._broker.tls())
        await self._stack.enter_async_context(connection)
        self._channel = await connection.channel()
        self._commands = await self._channel.get_exchange(topology.COMMANDS, ensure=False)
        queue = await self._channel.get_queue(topology.MANAGER_QUEUE, ensure=False)
        await queue.purge()
        await queue.consume(self._take, no_ack=True)
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        kind = (message.routing_key or "").rpartition(".")[2]
        async with self._arrived:
            self.users.add(message.user_id)
            said = migration.decode(message.body) if kind == topology.MOVE else None
            self.events.append(said or msgspec.json.decode(message.body, type=_KINDS[kind]))
            self._arrived.notify_all()

    async def policy(self, message: envelope.Message) -> None:
        await self._publish(message, topology.policy_key(self._broker.host))

    async def app(self, message: envelope.Message) -> None:
        await self._publish(message, topology.app_key(self._broker.host))

    async def _publish(self, signed: envelope.Message, key: str) -> None:
        headers: dict[str, Any] = {
            envelope.HEADER: bytearray(signed.header),
            envelope.SIGNATURE: bytearray(signed.signature),
        }
        message = aio_pika.Message(
            signed.body, headers=headers, delivery_mode=2, user_id=topology.MANAGER_USER
        )
        await self._commands.publish(message, key, timeout=DEADLINE_S)

    async def reported(self, kind: type[T], condition: Callable[[T], bool] = lambda _: True) -> T:
        """The first event of a kind that fits, from now on or already here; what came before it is
        forgotten."""

        def found() -> int | None:
            fitting = (i for i, e in enumerate(self.events) if isinstance(e, kind) and condition(e))
            return next(fitting, None)

        async with asyncio.timeout(DEADLINE_S), self._arrived:
            await self._arrived.wait_for(lambda: found() is not None)
            index = found()
            assert index is not None
            event: T = self.events[index]
            del self.events[: index + 1]
            return event

    async def dead_letter(self) -> bytes:
        """The header of the next message that was refused."""
        queue = await self._channel.get_queue(topology.DEAD, ensure=False)
        async with asyncio.timeout(DEADLINE_S):
            while (message := await queue.get(no_ack=True, fail=False)) is None:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
        header = message.headers[envelope.HEADER]
        assert isinstance(header, bytearray)
        return bytes(header)
