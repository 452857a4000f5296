"""The private RabbitMQ node: what it opens, to whom, and that nothing of it stays."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import httpx
import pytest
from aio_pika.exceptions import AMQPConnectionError

from tests.harness.broker import private_broker
from tests.harness.pki import Pki
from tests.harness.sockets import listening
from vagrant.lab.broker import Broker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Pki]]:
    with private_broker(tmp_path_factory.mktemp("broker")) as (broker, pki):
        with broker.client() as api:
            api.put("/api/users/manager", json={"password_hash": "", "tags": ""}).raise_for_status()
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            api.put("/api/permissions/vsfw/manager", json=everything).raise_for_status()
        yield broker, pki


async def connect(broker: Broker, context: ssl.SSLContext) -> str:
    """Go once through a message from us to us."""
    connection = await aio_pika.connect(f"{broker.url}/vsfw?auth=external", ssl_context=context, timeout=60)
    async with connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        return (await queue.get(timeout=60)).body.decode()


async def test_a_client_with_a_certificate_of_the_ca_gets_in(node: tuple[Broker, Pki]) -> None:
    """The certificate's common name is the user; no password is asked."""
    broker, pki = node
    assert await connect(broker, pki.client_context("manager")) == "hello"


async def test_a_stranger_does_not_get_in(node: tuple[Broker, Pki], tmp_path: Path) -> None:
    """No certificate, one of another CA with the right name, and one whose name the broker does not know."""
    broker, pki = node
    none = ssl.create_default_context(cafile=str(pki.ca))
    forged = Pki(tmp_path, "another CA").client_context("manager")
    forged.load_verify_locations(pki.ca)
    for context in (none, forged, pki.client_context("stranger")):
        with pytest.raises((AMQPConnectionError, ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await connect(broker, context)


def test_nothing_listens_but_what_we_gave_it(node: tuple[Broker, Pki]) -> None:
    """TLS for clients, TLS for the management API, Erlang's distribution on loopback: no clear-text AMQP."""
    broker, _ = node
    ports = (broker.port, broker.api_port, broker.node_port)
    assert listening(broker.processes()["node"].pid) == {f"tcp 127.0.0.1:{port}" for port in ports}


def test_the_management_api_wants_the_password(node: tuple[Broker, Pki]) -> None:
    """Nobody reads the broker's state without it."""
    broker, pki = node
    context = ssl.create_default_context(cafile=str(pki.ca))
    with httpx.Client(base_url=broker.api_url, verify=context, trust_env=False) as client:
        assert client.get("/api/overview").status_code == 401
        assert client.get("/api/overview", auth=("guest", "guest")).status_code == 401


@pytest.mark.slow
async def test_what_the_node_holds_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL, start: the same users are there; stop: no process of it is left."""
    with private_broker(tmp_path) as (broker, _):
        with broker.client() as api:
            api.put("/api/users/manager", json={"password_hash": "", "tags": ""}).raise_for_status()
        broker.kill()
        assert not broker.running()
        broker.start()
        broker.wait_ready()
        with broker.client() as api:
            assert api.get("/api/users/manager").status_code == 200
        processes = broker.processes().values()
        broker.stop()
        assert not any(process.alive() for process in processes)
