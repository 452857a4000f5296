"""The broker says who comes and goes, is not let in, or is there twice: to the manager as it is composed."""

import asyncio
import os
import signal
import sys
import uuid

import aio_pika
import pytest
import structlog
from aio_pika.abc import AbstractConnection
from structlog.testing import LogCapture
from yarl import URL

from manager_stub import floods, log
from manager_stub.app import Parts
from manager_stub.log import MOST, Bounded
from manager_stub.presence import MAX_CONSUMERS
from tests.harness.installation import Installation
from tests.harness.waiting import eventually
from vsfwd.broker import _tls
from vsfwd.config import Config
from vsfwd.protocol import topology

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_S = 60.0
CONSUME = """
import asyncio, pathlib, sys, aio_pika, ssl
from yarl import URL
async def main(url, ca, certificate, key, queue):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    connection = await aio_pika.connect(URL(url), ssl_context=context)
    channel = await connection.channel()
    await (await channel.declare_queue(queue, passive=True)).consume(print)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def connect(config: Config) -> AbstractConnection:
    url = URL(config.broker_urls[0]).with_path(f"/{topology.VHOST}").with_query(auth="external", heartbeat=10)
    return await aio_pika.connect(url, ssl_context=_tls(config))


async def consume(config: Config) -> AbstractConnection:
    connection = await connect(config)
    queue = topology.policy_queue(config.host_id)
    await (await (await connection.channel()).declare_queue(queue, passive=True)).consume(_leave)
    return connection


async def _leave(message: object) -> None:
    pass


async def enrol(installation: Installation, parts: Parts) -> Config:
    return await installation.enrol(parts, str(uuid.uuid4()))


async def test_a_host_is_up_while_it_takes_its_messages(installation: Installation) -> None:
    """At once, both ways; a new session of the manager's knows it again."""
    async with installation.composed() as parts:
        config = await enrol(installation, parts)
        connection = await consume(config)
        await eventually(lambda: parts.presence.is_up(config.host_id) is True, "the host is up")
        await connection.close()
        await eventually(lambda: parts.presence.is_up(config.host_id) is False, "the host is down")


async def test_o11_a_host_that_dies_in_silence_is_down_within_seconds(installation: Installation) -> None:
    """Its machine is there no more: the connection stays open and nothing comes. RabbitMQ misses two of its
    heartbeats of 10 s."""
    async with installation.composed() as parts:
        config = await enrol(installation, parts)
        url = f"{config.broker_urls[0]}/{topology.VHOST}?auth=external&heartbeat=10"
        argv = [url, config.ca, config.certificate, config.key, topology.policy_queue(config.host_id)]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CONSUME, *map(str, argv))
        try:
            await eventually(lambda: parts.presence.is_up(config.host_id) is True, "the host is up")
            os.kill(process.pid, signal.SIGSTOP)
            begun = asyncio.get_running_loop().time()
            await eventually(lambda: parts.presence.is_up(config.host_id) is False, "the host is down")
            print(f"down {asyncio.get_running_loop().time() - begun:.1f} s after it fell silent")
        finally:
            process.kill()
            await process.wait()


async def test_two_machines_with_one_certificate_are_an_alarm_with_both(installation: Installation) -> None:
    """One of them is given the messages, the other waits; the alarm goes when one of them does."""
    async with installation.composed() as parts:
        config = await enrol(installation, parts)
        first, second = await consume(config), await consume(config)
        await eventually(lambda: parts.presence.clones() == [config.host_id], "there are two")
        peers: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(peers) < 2:  # the broker's statistics come every 5 s
                await asyncio.sleep(0.2)
                peers = await parts.broker.peers(config.host_id)
        assert len(set(peers)) == 2
        await first.close()
        await eventually(lambda: parts.presence.clones() == [], "there is one")
        assert parts.presence.is_up(config.host_id) is True
        await second.close()


async def test_o38_a_host_that_comes_and_goes_in_a_loop_fills_neither_log_nor_memory(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consumers by the hundred, one after the other and side by side: what is known of it is bounded, and
    another host is seen all the same. Here nobody shuts it out."""
    monkeypatch.setitem(floods._MOST, "read", 10**6)
    monkeypatch.setattr(log, "WINDOW_S", 3600.0)  # however long this takes
    logged = LogCapture()
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[Bounded(), logged])
    try:
        async with installation.composed() as parts:
            config, other = await enrol(installation, parts), await enrol(installation, parts)
            connection = await connect(config)
            channel = await connection.channel()
            queue = await channel.declare_queue(topology.policy_queue(config.host_id), passive=True)
            for _ in range(MOST):
                await queue.cancel(await queue.consume(_leave))
            for _ in range(2 * MAX_CONSUMERS):
                await queue.consume(_leave)
            good = await consume(other)
            await eventually(lambda: parts.presence.is_up(other.host_id) is True, "the other host is up")
            assert len(parts.presence._consumers[config.host_id]) == MAX_CONSUMERS
            await asyncio.gather(connection.close(), good.close())
    finally:
        structlog.configure(processors=processors)
    lines = [line for line in logged.entries if line["event"] == "host" and line["host"] == config.host_id]
    assert len(lines) == MOST


async def test_who_knocks_with_a_revoked_certificate_is_known(installation: Installation) -> None:
    """The login it shows, and where it is."""
    async with installation.composed() as parts:
        config = await enrol(installation, parts)
        await parts.broker.remove_host(config.host_id)
        with pytest.raises(aio_pika.exceptions.CONNECTION_EXCEPTIONS):
            await connect(config)
        await eventually(lambda: bool(parts.presence.knocks()), "somebody knocks")
        (knock,) = parts.presence.knocks()
        assert knock.login == config.host_id
        assert knock.peer.startswith("127.0.0.1:")


async def test_o16_dead_letters_are_counted_and_an_alarm(installation: Installation) -> None:
    """Here one that says nothing that can be read, with its host and why; when they are forgotten the alarm
    is gone."""
    async with installation.composed() as parts:
        await parts.broker.forget_dead_letters()  # of a host that came and went with one in its hands
        await counted(parts, 0)
        config = await enrol(installation, parts)
        connection = await connect(config)
        channel = await connection.channel()
        events = await channel.get_exchange(topology.EVENTS, ensure=False)
        nonsense = aio_pika.Message(b"nonsense", user_id=config.host_id)
        await events.publish(nonsense, topology.event_key(config.host_id, "hello"))
        await counted(parts, 1)
        for _ in range(2):  # to look at them changes nothing
            (letter,) = await parts.broker.oldest_dead_letters(10)
        found = (letter.host, letter.to_host, letter.queue, letter.reason)
        assert found == (config.host_id, False, topology.MANAGER_QUEUE, "refused")
        await parts.broker.forget_dead_letters()
        await counted(parts, 0)
        await connection.close()


async def test_o16_no_look_at_dead_letters_costs_one(installation: Installation) -> None:
    """RabbitMQ 4.0 drops what was looked at 20 times, if nothing else is said; also of a queue of an earlier
    release. Here 3.10, which takes the word, and counts too."""
    async with installation.composed():
        with installation.node.client() as client:
            queue = client.get(f"/api/queues/{topology.VHOST}/{topology.DEAD}").raise_for_status().json()
    assert queue["effective_policy_definition"] == {"delivery-limit": 1_000_000}


async def counted(parts: Parts, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await parts.broker.dead_letters() != count:  # noqa: ASYNC110  (statistics come every 5 s)
            await asyncio.sleep(0.2)


async def test_without_its_events_policy_goes_out_all_the_same(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has no event exchange: nobody is up or down, and the manager has a session."""
    monkeypatch.setattr(topology, "BROKER_EVENTS", "not.there")
    async with installation.composed() as parts:
        config = await enrol(installation, parts)
        assert parts.presence.is_up(config.host_id) is None
