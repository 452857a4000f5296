"""A manager and its broker, set up as an operator does, and hosts enrolled there. The REST interface is left
out: what it calls is called directly."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from manager_stub import config as manager_config
from manager_stub.app import Parts, compose
from manager_stub.broker import Broker as BrokerApi
from manager_stub.publisher import RESEND_AFTER_S, Publisher
from manager_stub.register import Register
from manager_stub.state_dir import StateDir
from manager_stub.statistics import RuleStatistics
from manager_stub.vnics import Vnics
from tests.harness.broker import free_ports
from tests.harness.waiting import eventually
from vagrant.lab.broker import Broker, Tls
from vsfwd import identity
from vsfwd.config import Config


@dataclass(frozen=True)
class Manager:
    register: Register
    publisher: Publisher
    broker: BrokerApi

    def in_sync(self) -> bool:
        """Every host has said that it has what it should have."""
        return all(
            host.level.in_sync and host.level.outgoing is None for host in self.register.hosts.values()
        )


class Installation:
    """`node` is not started: `installed` does that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rest, port, api_port, epmd_port, node_port = free_ports(5)
        self.directory = StateDir(
            manager_config.Config(
                listen=f"127.0.0.1:{rest}",
                brokers=(f"127.0.0.1:{port}",),
                broker_apis=(f"https://127.0.0.1:{api_port}",),
                state_dir=path / "manager",
            )
        )
        self.password = self.directory.create()
        here = self.directory.path
        self.node = Broker(
            path / "broker",
            "127.0.0.1",
            Tls(here / "ca.crt", here / "broker.crt", here / "broker.key"),
            self.directory.broker_password(),
            port=port,
            api_port=api_port,
            epmd_port=epmd_port,
            node_port=node_port,
        )

    @asynccontextmanager
    async def manager(self, url: str = "", resend_after_s: float = RESEND_AFTER_S) -> AsyncIterator[Manager]:
        """What is stored, and the link to the broker, at `url` if that is another way to it."""
        store = self.directory.open_store()
        register = Register(store, self.directory.signing_key())
        broker = BrokerApi([self.node.api_url], self.directory.broker_password(), self.directory.broker_tls())
        publisher = Publisher(
            register,
            Vnics(register),
            RuleStatistics(store, register),
            broker,
            [url or self.node.url],
            self.directory.broker_tls(),
            resend_after_s,
        )
        running = asyncio.create_task(publisher.run())
        try:
            yield Manager(register, publisher, broker)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await broker.close()
            store.close()

    @asynccontextmanager
    async def composed(self) -> AsyncIterator[Parts]:
        """The manager as it serves, but for REST and what it does by the clock; it has a session."""
        parts = compose(self.directory)
        running = asyncio.create_task(parts.publisher.run())
        try:
            await eventually(lambda: parts.publisher.connected_to is not None, "the manager connects")
            yield parts
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await parts.broker.close()
            parts.store.close()

    async def enrol(self, manager: Manager | Parts, id: str, url: str = "") -> Config:
        """A host with this id, of which nothing runs yet."""
        key = identity.new_key()
        certificate = self.directory.authority().issue_host(id, identity.signing_request(key))
        manager.register.add_host(id, f"host {id[-4:]}")
        await manager.broker.add_host(id)
        here = self.path / "hosts" / id
        here.mkdir(parents=True)
        (here / "host.crt").write_bytes(certificate)
        (here / "host.key").write_bytes(identity.key_pem(key))
        return Config(
            host_id=id,
            broker_urls=(url or self.node.url,),
            ca=self.directory.ca,
            certificate=here / "host.crt",
            key=here / "host.key",
            manager_key=self.directory.signing_public(),
            state_dir=here / "state",
        )


@contextmanager
def installed(path: Path) -> Iterator[Installation]:
    """The broker runs as long as this lasts."""
    installation = Installation(path)
    try:
        installation.node.start()
        installation.node.wait_ready()
        yield installation
    finally:
        installation.node.kill()
