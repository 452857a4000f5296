"""What an enrolled host that has turned against the others can do at a running broker: read its own queues,
speak for itself, and nothing else. Each row of the table of rights is an attack."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aio_pika
import httpx
import msgspec
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed, ConnectionNotAllowed

from manager_stub.broker import ADMIN
from tests.harness.pki import Pki
from tests.harness.site import VSFW, Site, connect, site, tls_of
from tests.harness.waiting import eventually
from vsfwd.config import Config
from vsfwd.protocol import topology
from vsfwd.protocol.messages import Bindings, Hello, digest_text

pytestmark = pytest.mark.slow

NO_ENTRY = (AMQPError, ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
HELLO = msgspec.json.encode(Hello(0, 0, digest_text(0), "attacker"))
CUT_OFF_S = 60.0
"""What RabbitMQ needs on a busy machine. Who is not cut off stays as long as the certificate is valid."""


@dataclass(frozen=True)
class Scene:
    """A host that attacks, and one that is attacked."""

    site: Site
    mine: Config
    victim: Config

    def shown(self, host: Config) -> Any:
        return self.site.call("GET", f"{VSFW}/hosts/{host.host_id}")


async def forget(message: AbstractIncomingMessage) -> None:
    """What comes in is of no interest."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with site(tmp_path_factory.mktemp("site")) as here:
        yield Scene(here, here.host("attacker"), here.host("victim"))


@pytest.fixture
async def connection(scene: Scene) -> AsyncIterator[AbstractConnection]:
    """The attacker's own, by its certificate."""
    connection = await connect(scene.mine)
    yield connection
    await connection.close()


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(on_return_raises=True)


def event(scene: Scene, body: bytes = HELLO, **properties: object) -> aio_pika.Message:
    return aio_pika.Message(body, **({"user_id": scene.mine.host_id} | properties))  # type: ignore[arg-type]


async def test_a_host_says_what_it_may(scene: Scene, channel: AbstractChannel) -> None:
    """So that what follows is refused for its own reason: its events go out, its queues are read, and the
    manager believes it."""
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    await events.publish(event(scene), topology.event_key(scene.mine.host_id, "hello"))
    for name in (topology.policy_queue(scene.mine.host_id), topology.app_queue(scene.mine.host_id)):
        queue = await channel.declare_queue(name, passive=True)
        await queue.cancel(await queue.consume(forget))
    await eventually(
        lambda: scene.shown(scene.mine)["vsfwd"] == "attacker", "what it says of itself is shown"
    )


def others(scene: Scene) -> list[str]:
    victim = scene.victim.host_id
    return [
        topology.policy_queue(victim),
        topology.app_queue(victim),
        topology.MANAGER_QUEUE,
        topology.COMPONENT_QUEUE,
        topology.MOVE_QUEUE,
        topology.PRESENCE_QUEUE,
        topology.DEAD,
    ]


async def each_refused(
    connection: AbstractConnection, attacks: list[Callable[[AbstractChannel], Awaitable[object]]]
) -> None:
    """Each on a channel of its own: a refusal closes it."""
    for attack in attacks:
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(ChannelAccessRefused):
            await attack(channel)


async def test_a_host_does_not_take_the_brokers_connections(scene: Scene) -> None:
    """It has a few, and a few channels; its victim connects all the same."""

    async def connections() -> None:
        for _ in range(100):
            await stack.enter_async_context(await connect(scene.mine))

    async def channels() -> None:
        for _ in range(100):
            await one.channel()

    async with AsyncExitStack() as stack:
        with pytest.raises(NO_ENTRY):
            await connections()
        await (await connect(scene.victim)).close()
    async with await connect(scene.victim) as one:
        with pytest.raises(NO_ENTRY):
            await channels()


async def test_a_message_that_nobody_would_read_is_not_taken(scene: Scene, channel: AbstractChannel) -> None:
    """Nor kept in the memory of broker and manager until somebody refuses it."""
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    with pytest.raises(ChannelPreconditionFailed, match="larger than configured max size"):
        await events.publish(event(scene, bytes(17 << 20)), topology.event_key(scene.mine.host_id, "hello"))


async def test_nobody_else_s_queue_is_read(scene: Scene, connection: AbstractConnection) -> None:
    """The victim's two, the manager's, the dead letters: neither consumed nor fetched from."""

    def consume(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
        async def attack(channel: AbstractChannel) -> object:
            return await (await channel.get_queue(name, ensure=False)).consume(forget)

        return attack

    def fetch(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
        async def attack(channel: AbstractChannel) -> object:
            return await (await channel.get_queue(name, ensure=False)).get(fail=False)

        return attack

    await each_refused(connection, [how(name) for name in others(scene) for how in (consume, fetch)])


async def test_nobody_else_s_queue_is_emptied_or_deleted(
    scene: Scene, connection: AbstractConnection
) -> None:
    """Nor its own deleted, nor an exchange."""

    def purge(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
        async def attack(channel: AbstractChannel) -> object:
            return await (await channel.get_queue(name, ensure=False)).purge()

        return attack

    def delete(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
        return lambda channel: channel.queue_delete(name)

    mine = topology.policy_queue(scene.mine.host_id)
    exchanges = (topology.COMMANDS, topology.EVENTS, topology.DEAD)
    await each_refused(
        connection,
        [
            *(purge(name) for name in others(scene)),
            *(delete(name) for name in (mine, *others(scene))),
            *((lambda channel, name=name: channel.exchange_delete(name)) for name in exchanges),
        ],
    )


@pytest.mark.parametrize("kind", ["hello", "vnics", "applied", "reply"])
async def test_o29_a_host_speaks_for_itself_only(scene: Scene, channel: AbstractChannel, kind: str) -> None:
    """An event under the victim's key, whatever it claims to be from."""
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    with pytest.raises(ChannelAccessRefused):
        await events.publish(event(scene), topology.event_key(scene.victim.host_id, kind))


@pytest.mark.parametrize(
    "key", ["", "host", "host.*.hello", "#", "host.{}.unknown", "host.{}.hello.more", "x"]
)
async def test_a_host_has_the_keys_of_its_events_and_no_others(
    scene: Scene, channel: AbstractChannel, key: str
) -> None:
    """Neither shorter nor longer ones, no patterns, no kinds that do not exist."""
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    with pytest.raises(ChannelAccessRefused):
        await events.publish(event(scene), key.format(scene.mine.host_id))


async def test_a_host_does_not_say_that_it_is_another(scene: Scene, channel: AbstractChannel) -> None:
    """The message's user_id, which the manager goes by, is checked by the broker."""
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    forged = event(scene, user_id=scene.victim.host_id)
    with pytest.raises(ChannelPreconditionFailed):
        await events.publish(forged, topology.event_key(scene.mine.host_id, "hello"))


async def test_who_does_not_say_who_he_is_is_not_heard(scene: Scene, channel: AbstractChannel) -> None:
    """The broker lets an event without user_id pass; the manager does not."""
    before = scene.shown(scene.mine)["vnics"]
    events = await channel.get_exchange(topology.EVENTS, ensure=False)
    key = topology.event_key(scene.mine.host_id, "vnics")
    await events.publish(event(scene, msgspec.json.encode(Bindings(())), user_id=None), key)
    await events.publish(event(scene), topology.event_key(scene.mine.host_id, "hello"))
    await eventually(lambda: b"user_id is None" in scene.site.log.read_bytes(), "the manager logs it")
    assert scene.shown(scene.mine)["vnics"] == before


@pytest.mark.parametrize(
    "exchange",
    [
        topology.COMMANDS,
        topology.DEAD,
        topology.BROKER_EVENTS,
        "",
        "amq.direct",
        "amq.fanout",
        "amq.topic",
        "amq.headers",
    ],
)
async def test_a_host_writes_to_no_other_exchange(
    scene: Scene, channel: AbstractChannel, exchange: str
) -> None:
    """No policy and no order for anybody, itself included, and no word of who is connected; the default
    exchange, which reaches every queue, least of all."""
    victim = scene.victim.host_id
    target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    key = topology.policy_key(victim) if exchange else topology.policy_queue(victim)
    with pytest.raises(ChannelAccessRefused):
        await target.publish(event(scene), key)


async def test_a_host_binds_and_declares_nothing(scene: Scene, connection: AbstractConnection) -> None:
    """Its own queue to the victim's key or to all of them, away from its own; a queue or an exchange of its
    own, or one of the broker's event exchange."""
    mine = topology.policy_queue(scene.mine.host_id)

    def bind(source: str, key: str) -> Callable[[AbstractChannel], Awaitable[object]]:
        async def attack(channel: AbstractChannel) -> object:
            return await (await channel.get_queue(mine, ensure=False)).bind(source, key)

        return attack

    async def unbind(channel: AbstractChannel) -> object:
        queue = await channel.get_queue(mine, ensure=False)
        return await queue.unbind(topology.COMMANDS, topology.policy_key(scene.mine.host_id))

    async def join(channel: AbstractChannel) -> object:
        events = await channel.get_exchange(topology.EVENTS, ensure=False)
        return await events.bind(topology.COMMANDS, "#")

    await each_refused(
        connection,
        [
            bind(topology.COMMANDS, topology.policy_key(scene.victim.host_id)),
            bind(topology.COMMANDS, "#"),
            bind(topology.EVENTS, "#"),
            bind(topology.BROKER_EVENTS, "#"),
            bind("amq.rabbitmq.trace", "#"),
            unbind,
            join,
            lambda channel: channel.declare_queue("of-my-own"),
            lambda channel: channel.declare_queue(exclusive=True),
            lambda channel: channel.declare_exchange("of-my-own"),
        ],
    )


async def test_a_host_is_in_no_other_virtual_host(scene: Scene) -> None:
    """The broker's default one."""
    with pytest.raises((ConnectionNotAllowed, *NO_ENTRY)):
        await connect(scene.mine, vhost="/")


async def test_a_host_has_no_password(scene: Scene) -> None:
    """SASL PLAIN is not spoken, also by who has a certificate, and who knows the one password there is; and
    the management API does not take an empty password for the one that hosts do not have."""
    admin = f"{ADMIN}:{scene.site.node.admin_password}"
    for login in (f"{scene.victim.host_id}:", "guest:guest", f"{topology.MANAGER_USER}:", admin):
        with pytest.raises(NO_ENTRY):
            await connect(scene.mine, login=login)
    tls = tls_of(scene.mine)
    for user in (scene.mine.host_id, scene.victim.host_id, topology.MANAGER_USER):
        api = scene.site.node.api_url
        async with httpx.AsyncClient(base_url=api, verify=tls, trust_env=False) as client:
            assert (await client.get("/api/queues", auth=(user, ""))).status_code == 401


async def test_without_a_certificate_nobody_comes_in(scene: Scene) -> None:
    """Nor with one that says the right name and is another authority's, or that of the victim without its
    key."""
    nobody = ssl.create_default_context(cafile=scene.mine.ca)
    with pytest.raises(NO_ENTRY):
        await connect(scene.mine, nobody)
    directory = scene.site.installation.path / "another"
    directory.mkdir()
    for name in (scene.victim.host_id, topology.MANAGER_USER, "admin"):
        forged = Pki(directory).client_context(name)
        forged.load_verify_locations(scene.mine.ca)
        with pytest.raises(NO_ENTRY):
            await connect(scene.mine, forged)


async def test_tls_1_2_is_not_spoken(scene: Scene) -> None:
    """The host's own certificate, one version down."""
    older = tls_of(scene.mine)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(NO_ENTRY):
        await connect(scene.mine, older)
    await (await connect(scene.mine)).close()


async def test_a_revoked_certificate_is_out_at_once(scene: Scene) -> None:
    """The connection that is open ends when the host is removed, and no other one begins; also after the
    manager has set the broker up again."""
    gone = scene.site.host("gone")
    connection = await connect(gone)
    cut_off = asyncio.Event()
    connection.close_callbacks.add(lambda *_: cut_off.set())
    scene.site.call("DELETE", f"{VSFW}/hosts/{gone.host_id}")
    async with asyncio.timeout(CUT_OFF_S):
        await cut_off.wait()
    with pytest.raises(NO_ENTRY):
        await connect(gone)


async def test_a_host_that_is_enrolled_anew_is_not_who_it_was(scene: Scene) -> None:
    """Whoever has key and certificate of before is cut off at once and stays out, though both are valid for
    months; the host has its id, its queues, and is believed again."""
    stolen = scene.site.host("twice")
    thief = await connect(stolen)
    cut_off = asyncio.Event()
    thief.close_callbacks.add(lambda *_: cut_off.set())
    fresh = scene.site.host("twice-again", again=stolen.host_id)
    assert fresh.host_id == stolen.host_id
    async with asyncio.timeout(CUT_OFF_S):
        await cut_off.wait()
    with pytest.raises(NO_ENTRY):
        await connect(stolen)
    async with await connect(fresh) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(topology.policy_queue(fresh.host_id), passive=True)
        events = await channel.get_exchange(topology.EVENTS, ensure=False)
        said = aio_pika.Message(HELLO, user_id=topology.login(fresh.host_id, 2))
        await events.publish(said, topology.event_key(fresh.host_id, "hello"))
        impostor = aio_pika.Message(HELLO, user_id=fresh.host_id)
        with pytest.raises(ChannelPreconditionFailed):
            await events.publish(impostor, topology.event_key(fresh.host_id, "hello"))
    await eventually(lambda: scene.shown(fresh)["vsfwd"] == "attacker", "what the new one says is shown")
