"""O29, O38: an enrolled host that says as much as its connection carries, over a real broker. Others are
heard, and what it costs is its own."""

import asyncio
import json
import ssl
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from yarl import URL

from manager_stub import floods
from manager_stub.app import Parts
from tests.harness.installation import Installation
from tests.harness.site import connect
from tests.harness.waiting import eventually
from vsfwd.config import Config
from vsfwd.protocol import topology
from vsfwd.protocol.messages import digest_text

pytestmark = pytest.mark.slow

REPORTS = """
import asyncio, ssl, sys, aio_pika
from yarl import URL
host, url, ca, certificate, key = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
tls.load_cert_chain(certificate, key)
async def flood():
    broker = URL(url).with_path("/vsfw").with_query(auth="external")
    async with await aio_pika.connect(broker, ssl_context=tls) as connection:
        channel = await connection.channel(publisher_confirms=False)
        events = await channel.get_exchange("vsfw.evt", ensure=False)
        while True:
            await events.publish(aio_pika.Message(b'{"vnics":{}}', user_id=host), f"host.{host}.addresses")
while True:
    try:
        asyncio.run(flood())
    except Exception:
        pass
"""
CONSUMERS = """
import asyncio, sys
from types import SimpleNamespace
from tests.harness.raw_amqp import raw_channel
host, url, ca, certificate, key = sys.argv[1:]
config = SimpleNamespace(broker_urls=[url], ca=ca, certificate=certificate, key=key)
async def come_and_go():
    async with raw_channel(config) as channel:
        while True:
            await channel.consume_and_cancel(f"vsfw.host.{host}", b"tag")
while True:
    try:
        asyncio.run(come_and_go())
    except Exception:
        pass
"""
HEARD_S = 60.0
"""The broker keeps 10,000 messages of components: those that came before one take a while, not for ever."""
SAID = 20
SEEN_S = 30.0
"""RabbitMQ takes seconds to close the connections of one that floods, and may fail at the first try."""


@pytest.fixture
async def manager(installation: Installation) -> AsyncIterator[Parts]:
    async with installation.composed() as parts:
        yield parts


@asynccontextmanager
async def speaking(config: Config, confirms: bool) -> AsyncIterator[AbstractExchange]:
    """Under the host's own certificate, past `vsfwd` and the pace that it keeps."""
    tls = ssl.create_default_context(cafile=config.ca)
    tls.load_cert_chain(config.certificate, config.key)
    url = URL(config.broker_urls[0]).with_path(f"/{topology.VHOST}").with_query(auth="external")
    async with await aio_pika.connect(url, ssl_context=tls) as connection:
        channel = await connection.channel(publisher_confirms=confirms)
        yield await channel.get_exchange(topology.EVENTS, ensure=False)


async def say(exchange: AbstractExchange, host: str, component: str, topic: str, **body: object) -> None:
    said = {"id": str(uuid.uuid4()), "component": component, "topic": topic, "body": body}
    message = aio_pika.Message(json.dumps(said).encode(), user_id=host)
    await exchange.publish(message, topology.event_key(host, "component"))


@asynccontextmanager
async def flooding(config: Config) -> AsyncIterator[None]:
    """What costs most: of one guest after the other, each of which is stored by itself."""

    async def flood() -> None:
        while True:
            with suppress(Exception):  # it was shut out
                await guests()

    async def guests() -> None:
        async with speaking(config, confirms=False) as exchange:
            while True:
                guest = {"vm": str(uuid.uuid4()), "users": [{"name": "x" * 200}] * 20}
                await say(exchange, config.host_id, "context-agent", "vm", **guest)

    tasks = [asyncio.create_task(flood()) for _ in range(2)]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def flooding_by(program: str, config: Config) -> AsyncIterator[None]:
    """Programs of their own, as fast as they can. They go on when the broker closes the connection."""
    argv = (config.host_id, config.broker_urls[0], str(config.ca), str(config.certificate), str(config.key))
    programs = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, *argv) for _ in range(2)]
    try:
        yield
        assert all(program.returncode is None for program in programs)
    finally:
        for program in programs:
            program.kill()
            await program.wait()


@asynccontextmanager
async def consuming(config: Config) -> AsyncIterator[None]:
    async with await connect(config) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(topology.policy_queue(config.host_id), passive=True)
        await queue.consume(leave)
        yield


async def leave(message: object) -> None:
    pass


async def enrol(installation: Installation, parts: Parts) -> Config:
    return await installation.enrol(parts, str(uuid.uuid4()))


async def test_what_another_hosts_component_says_arrives(installation: Installation, manager: Parts) -> None:
    """All of it, while one says thousands of messages a second; what is too much of that is counted."""
    rogue, good = await enrol(installation, manager), await enrol(installation, manager)

    def heard() -> int:
        return len(manager.store.said("agent", before=2**53, limit=1000, host=good.host_id))

    async with flooding(rogue):
        await eventually(lambda: bool(manager.register.hosts[rogue.host_id].left_out), "it is too much")
        async with speaking(good, confirms=True) as exchange:
            for number in range(SAID):
                await say(exchange, good.host_id, "agent", "state", n=number)
            await eventually(lambda: heard() == SAID, "all of it is stored", HEARD_S)
    assert manager.register.hosts[good.host_id].reports_refused == 0


async def test_a_host_that_says_more_than_can_be_read_is_shut_out_for_a_while(
    installation: Installation, manager: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reports fill the queue faster than they can be dropped: the broker takes none of it any more, what
    another host reports is heard, and later the first may speak again."""
    monkeypatch.setattr(floods, "SHUT_OUT_S", 5.0)
    rogue, good = await enrol(installation, manager), await enrol(installation, manager)
    hosts = manager.register.hosts
    async with flooding_by(REPORTS, rogue):
        await eventually(lambda: "shut out" in str(hosts[rogue.host_id].left_out), "it is shut out")
        await greets(manager, good, "0.1")
    await greets(manager, rogue, "0.2")
    assert hosts[good.host_id].reports_refused == 0
    assert not manager.publisher.last_error


async def test_a_host_that_comes_and_goes_hides_no_other_host(
    installation: Installation, manager: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consumers begun and ended as fast as it can: each is an event in the queue in which those of all hosts
    are. The broker gives it none any more; another host is seen to come and to go, and later the first is
    heard again."""
    monkeypatch.setattr(floods, "SHUT_OUT_S", 5.0)
    rogue, good = await enrol(installation, manager), await enrol(installation, manager)
    async with flooding_by(CONSUMERS, rogue):
        reasons = manager.register.hosts
        await eventually(lambda: "came and went" in str(reasons[rogue.host_id].left_out), "it is shut out")
        async with consuming(good):
            await eventually(lambda: manager.presence.is_up(good.host_id) is True, "the other is up", SEEN_S)
        await eventually(lambda: manager.presence.is_up(good.host_id) is False, "the other is down", SEEN_S)
    heard = False
    async with asyncio.timeout(60):
        while not heard:
            # It is shut out yet, or again: here that is shorter than what it did before it counts.
            with suppress(AMQPError, TimeoutError):
                async with consuming(rogue):
                    await eventually(lambda: manager.presence.is_up(rogue.host_id) is True, "it is up", 5.0)
                    heard = True
    assert not manager.publisher.last_error


async def greets(manager: Parts, config: Config, vsfwd: str) -> None:
    """Says so until it is heard: what came before may have pushed it out of the queue."""
    said = {"epoch": 0, "generation": 0, "digest": digest_text(0), "vsfwd": vsfwd}
    body = json.dumps(said).encode()

    async def greet() -> None:
        async with speaking(config, confirms=True) as exchange:
            key = topology.event_key(config.host_id, "hello")
            while manager.register.hosts[config.host_id].vsfwd != vsfwd:
                await exchange.publish(aio_pika.Message(body, user_id=config.host_id), key)
                await asyncio.sleep(0.5)

    async with asyncio.timeout(60):
        while manager.register.hosts[config.host_id].vsfwd != vsfwd:
            with suppress(AMQPError, ChannelInvalidStateError):  # it is shut out yet, or again
                await greet()
