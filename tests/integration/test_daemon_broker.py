"""The link to the manager against a real broker: order, acknowledgement, refusal, and coming back."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import pytest

import vsfwd.broker
from tests.harness.waiting import eventually
from tests.integration.private_broker import DEADLINE_S, ManagersEnd, PrivateBroker
from tests.unit.policy_messages import HOST, Manager, group
from vsfwd.broker import BrokerLink
from vsfwd.config import Config
from vsfwd.protocol import topology
from vsfwd.protocol.components import ComponentAnswer, ComponentEvent, ComponentMessage
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Applied, Bindings, Hello, Reply, Request
from vsfwd.protocol.order import seal_order
from vsfwd.protocol.topology import DELIVERY_LIMIT
from vsfwd.relay import NotConnected

pytestmark = pytest.mark.slow

HELLO = Hello(1, 5, "00", "1.0")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    broker = PrivateBroker(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        broker.declare()
        yield broker
    finally:
        broker.node.kill()


class Host:
    """The daemon's side of a link: what came in, and what the test says becomes of it."""

    def __init__(self, broker: PrivateBroker, *more_urls: str) -> None:
        certificate, key = broker.host_certificate
        self.manager = Manager()
        self.taken: list[Message] = []
        self.requests: list[Request] = []
        self.heard: list[ComponentEvent] = []
        self.verdicts: list[bool | None] = []
        self.link = BrokerLink(
            Config(
                host_id=HOST,
                broker_urls=(broker.node.url, *more_urls),
                ca=broker.authority.ca,
                certificate=certificate,
                key=key,
                manager_key=base64.b64encode(self.manager.key.public_key().public_bytes_raw()).decode(),
            ),
            self._policy,
            self._request,
            self._component,
            lambda: (HELLO, Bindings(())),
        )

    async def _policy(self, message: Message) -> bool | None:
        self.taken.append(message)
        self.link.send(Applied(1, len(self.taken), ""))
        return self.verdicts.pop(0) if self.verdicts else True

    async def _request(self, request: Request) -> None:
        self.requests.append(request)
        self.link.send(Reply(request.id))

    def _component(self, event: ComponentEvent) -> ComponentAnswer:
        self.heard.append(event)
        return ComponentAnswer(event.id)


@asynccontextmanager
async def connected(broker: PrivateBroker, *more_urls: str) -> AsyncIterator[tuple[Host, ManagersEnd]]:
    """A host with a session, and the manager that has heard its greeting."""
    host = Host(broker, *more_urls)
    async with ManagersEnd(broker) as manager:
        running = asyncio.create_task(host.link.run())
        try:
            await manager.reported(Hello)
            await manager.reported(Bindings)
            yield host, manager
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_policy_arrives_as_it_was_signed(broker: PrivateBroker) -> None:
    """Header, signature and body come through byte by byte, in the order they were sent."""
    signer = Manager()
    messages = [signer.snapshot(groups={"g": group()}), signer.delta(groups={"h": group()})]
    async with connected(broker) as (host, manager):
        for message in messages:
            await manager.policy(message)
        await manager.reported(Applied, lambda event: event.generation == 2)
        assert host.taken == messages


async def test_every_event_is_sent_as_this_host(broker: PrivateBroker) -> None:
    """The broker checks the user id that the host sets."""
    async with connected(broker) as (_, manager):
        assert manager.users == {HOST}


async def test_a_refused_message_is_a_dead_letter(broker: PrivateBroker) -> None:
    """It does not come again, and the next one does come."""
    async with connected(broker) as (host, manager):
        host.verdicts = [False]
        await manager.policy(Message(b"first", b"", b""))
        await manager.policy(Message(b"second", b"", b""))
        await manager.reported(Applied, lambda event: event.generation == 2)
        assert [message.header for message in host.taken] == [b"first", b"second"]
        assert await manager.dead_letter() == b"first"


async def test_o16_a_message_that_is_given_back_for_ever_becomes_a_dead_letter(broker: PrivateBroker) -> None:
    """After as many times as the queue allows; the next one comes."""
    async with connected(broker) as (host, manager):
        host.verdicts = [None] * (DELIVERY_LIMIT + 1)
        await manager.policy(Message(b"poison", b"", b""))
        await manager.policy(Message(b"good", b"", b""))
        assert await manager.dead_letter() == b"poison"
        await eventually(lambda: host.taken[-1].header == b"good", "the good one is taken")
        assert [message.header for message in host.taken[:-1]] == [b"poison"] * (DELIVERY_LIMIT + 1)


async def test_a_message_given_back_comes_again(broker: PrivateBroker) -> None:
    """In its place."""
    async with connected(broker) as (host, manager):
        host.verdicts = [None, True]
        await manager.policy(Message(b"again", b"", b""))
        await manager.reported(Applied, lambda event: event.generation == 2)
        assert [message.header for message in host.taken] == [b"again", b"again"]


async def test_what_was_not_acknowledged_comes_to_the_next_session(broker: PrivateBroker) -> None:
    """A daemon that dies in the middle of a message gets it again."""
    host = Host(broker)
    stuck = asyncio.Event()

    async def never(message: Message) -> bool | None:
        stuck.set()
        return await asyncio.Future()

    host.link._policy = never
    async with ManagersEnd(broker) as manager:
        running = asyncio.create_task(host.link.run())
        await manager.policy(Message(b"kept", b"", b""))
        async with asyncio.timeout(DEADLINE_S):
            await stuck.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    async with connected(broker) as (second, manager):
        await manager.reported(Applied)
        assert [message.header for message in second.taken] == [b"kept"]


async def test_a_request_is_answered(broker: PrivateBroker) -> None:
    """The manager asks on the app queue and finds its id in the reply."""
    async with connected(broker) as (host, manager):
        await manager.app(Message(b"", b"", b"no request at all"))
        await manager.app(host.manager.request(Request("r1", "report")))
        assert await manager.reported(Reply) == Reply("r1")
        assert host.requests == [Request("r1", "report")]


async def test_a_message_for_a_component_is_handed_on_once(broker: PrivateBroker) -> None:
    """As the manager signed it; a copy of it, or one that cannot be read, does nothing."""
    message = ComponentMessage(str(uuid4()), "agent", "users", {"n": 1})
    async with connected(broker) as (host, manager):
        for body in (b"[]", *[msgspec.json.encode(message)] * 2):
            expires = int(time.time()) + 60
            await manager.app(
                seal_order(
                    host.manager.key, host=HOST, id=message.id, kind="component", expires=expires, json=body
                )
            )
        await manager.app(host.manager.request(Request("last", "report")))
        assert await manager.reported(ComponentAnswer) == ComponentAnswer(message.id)
        await manager.reported(Reply)
        assert host.heard == [message]


async def test_what_a_component_says_is_confirmed_or_refused(broker: PrivateBroker) -> None:
    """It is with the broker when `tell` returns; without a session it is refused at once, and after one that
    broke the next is as good."""
    message = ComponentMessage(str(uuid4()), "agent", "users", {"n": 1})
    async with connected(broker) as (host, manager):
        await host.link.tell(message)
        assert await manager.reported(ComponentMessage) == message
        broker.expel()
        await eventually(lambda: host.link.connected_to is None, "the link is lost")
        with pytest.raises(NotConnected, match="no broker"):
            await host.link.tell(message)
        broker.declare()
        await manager.reported(Hello)
        await host.link.tell(message)
        assert await manager.reported(ComponentMessage) == message


async def test_a_host_that_was_expelled_comes_back_when_it_may(broker: PrivateBroker) -> None:
    """The broker cuts its connections and refuses new ones; once it may, the host says hello again."""
    async with connected(broker) as (host, manager):
        broker.expel()
        await eventually(lambda: host.link.connected_to is None, "the link is lost")
        broker.declare()
        await manager.reported(Hello)
        await manager.policy(Message(b"after", b"", b""))
        await manager.reported(Applied)
        assert [message.header for message in host.taken] == [b"after"]


async def test_a_queue_that_was_made_anew_is_consumed_again(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the broker tells that the consumer is gone or forgets to, the host begins a new session."""
    monkeypatch.setattr(vsfwd.broker, "CHECK_S", 1.0)
    async with connected(broker) as (host, manager):
        await manager.policy(Message(b"before", b"", b""))
        await manager.reported(Applied)
        broker.delete_queue(topology.policy_queue(HOST))
        broker.declare()
        for _ in range(2):
            await manager.policy(Message(b"after", b"", b""))
        await manager.reported(Applied, lambda event: event.generation == 3)
        assert [message.header for message in host.taken] == [b"before", b"after", b"after"]


async def test_of_several_brokers_one_that_lives_is_found(broker: PrivateBroker) -> None:
    """Two of three URLs lead nowhere."""
    async with connected(broker, "amqps://127.0.0.1:1", "amqps://127.0.0.1:2") as (host, _):
        assert host.link.connected_to == broker.node.url
