"""O15, O16: bytes that are no message, to a host and to the manager, over a real broker. Each is refused, a
dead letter, counted and told; what was good before stays, and the next good one counts."""

import asyncio
import hashlib
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import msgspec
import pytest
import zstandard
from aio_pika.abc import AbstractExchange
from aiormq.exceptions import ChannelAccessRefused
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from manager_stub.hosts import Host
from manager_stub.model import Vm
from manager_stub.reports import MAX_REPORT
from tests.harness.hostile import Hostile
from tests.harness.installation import Installation, Manager
from tests.harness.simulated import SimulatedHost
from tests.harness.waiting import eventually
from vsfwd.applythread import ApplyThread
from vsfwd.config import Config
from vsfwd.protocol import topology
from vsfwd.protocol.envelope import Header, Kind, Message, seal
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.topology import DELIVERY_LIMIT, MAX_BODY

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0
DIGEST = "0" * 64
DEEP = b"[" * 100_000 + b"]" * 100_000
BOMB = zstandard.compress(bytes(1 << 28), 1)
"""A quarter of a gigabyte of nothing, in a few kilobytes."""


class World:
    """A manager, one host with a VM, and somebody who may send and read anything on the broker."""

    def __init__(self, installation: Installation, manager: Manager, config: Config) -> None:
        self.key = installation.directory.signing_key()
        self.register = manager.register
        self.manager = manager
        self.config = config
        self.hostile = Hostile(installation, 0)
        self.binding = Binding(str(uuid.uuid4()), str(uuid.uuid4()), "02:00:00:00:00:01", "veth0")
        self.simulated = SimulatedHost(config, [self.binding], ApplyThread(), lambda host, took: None)

    @property
    def host(self) -> Host:
        """As the manager knows it."""
        return self.register.hosts[self.config.host_id]

    @property
    def refused(self) -> int:
        """Messages, by the host's count."""
        return self.simulated.reconciler.counters.refused

    def change(self, tag: str) -> None:
        """The VM's tag; the name goes to the host."""
        card = {"id": self.binding.vnic, "mac": self.binding.mac}
        self.register.write(
            put={f"/vsfw/vms/{self.binding.vm}": Vm.model_validate({"display_name": tag, "vnics": [card]})}
        )

    async def enforced(self, tag: str) -> None:
        vnics = self.simulated.reconciler
        await eventually(
            lambda: [each.vm_name for each in vnics.state.vnics.values()] == [tag] and self.manager.in_sync(),
            f"{tag!r} in force",
        )

    def sealed(self, json: bytes, key: Ed25519PrivateKey | None = None) -> Message:
        """A snapshot that comes next, signed by the manager unless by somebody else."""
        state = self.simulated.reconciler.state
        generation = state.generation + 1
        return seal(
            key or self.key,
            host=self.config.host_id,
            epoch=state.epoch,
            generation=generation,
            base=generation,
            kind=Kind.SNAPSHOT,
            digest=DIGEST,
            json=json,
        )

    def signed(self, body: bytes, context: bytes = b"vsfw policy 1\0", **more: Any) -> Message:
        """As `sealed`, of a body that no manager makes."""
        header = msgspec.to_builtins(msgspec.json.decode(self.sealed(b"{}").header, type=Header))
        header |= {"body": hashlib.sha256(body).hexdigest(), **more}
        text = msgspec.json.encode(header)
        return Message(text, self.key.sign(context + text), body)


@pytest.fixture
async def world(installation: Installation) -> AsyncIterator[World]:
    async with installation.manager() as manager:
        await eventually(lambda: manager.publisher.connected_to is not None, "the manager's session")
        world = World(installation, manager, await installation.enrol(manager, str(uuid.uuid4())))
        running = asyncio.create_task(world.simulated.run())
        try:
            async with world.hostile.at_work():
                world.change("before")
                await world.enforced("before")
                yield world
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await manager.broker.remove_host(world.config.host_id)
            world.register.remove_host(world.config.host_id)
            world.register.write(put={}, delete=list(world.register.world.vms))


def messages(world: World) -> dict[str, Message]:
    good = world.sealed(b'{"rules":{}}')
    return {
        "truncated body": Message(good.header, good.signature, good.body[:-3]),
        "flipped bit in the body": Message(good.header, good.signature, b"\xfb" + good.body[1:]),
        "flipped bit in the header": Message(
            good.header.replace(b"snapshot", b"snapshou"), good.signature, good.body
        ),
        "no signature": Message(good.header, b"", good.body),
        "somebody else's signature": world.sealed(b"{}", Ed25519PrivateKey.generate()),
        "no header": Message(b"", b"", b""),
        "over the limit": world.signed(bytes(MAX_BODY + 1)),
        "a bomb": world.signed(BOMB, encoding="zstd"),
        "a bomb that says it is small": world.signed(lying(BOMB), encoding="zstd"),
        "nested": world.signed(DEEP),
        "nested in an object": world.signed(b'{"rules":{"1001":' + DEEP + b"}}"),
        "another schema": world.signed(b'{"rules":7}'),
        "a kind of object that nobody knows": world.signed(b'{"zones":{}}'),
        "an encoding that nobody knows": world.signed(b"{}", encoding="brotli"),
        "another version": world.signed(b"{}", context=b"vsfw policy 2\0"),
        "a header of a later release": world.signed(b"{}", priority=1),
        "a digest that is not that of its objects": world.signed(b'{"groups":{"g":{}}}'),
    }


def lying(frame: bytes) -> bytes:
    """Frame_Content_Size, 8 bytes of RFC 8878 3.1.1.1.4, or 4: says 1,000."""
    parameters = zstandard.get_frame_parameters(frame)
    at = frame.index(parameters.content_size.to_bytes(4, "little"), 4)
    return frame[:at] + (1000).to_bytes(4, "little") + frame[at + 4 :]


async def test_o15_a_host_refuses_what_is_no_message_and_keeps_what_it_has(world: World) -> None:
    """Cut, flipped, unsigned, huge, a bomb, nested, of another schema or version, also where the manager's
    own key has signed it: the manager hears of each, and the policy stays."""
    good = world.simulated.reconciler.state
    for name, message in messages(world).items():
        before, dead = world.refused, await world.hostile.waiting(topology.DEAD)
        await world.hostile.send(world.config.host_id, message)
        await eventually(lambda before=before: world.refused == before + 1, name)
        await eventually(lambda: any(each.kind == "message" for each in world.host.refusals), f"{name}: told")
        assert world.simulated.reconciler.state is good, name
        await dead_letters(world, dead + 1, name)
    world.change("after")
    await world.enforced("after")
    await eventually(lambda: world.host.refusals == (), "nothing is wrong any more")


async def dead_letters(world: World, count: int, what: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await world.hostile.waiting(topology.DEAD) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await world.hostile.waiting(topology.DEAD) == count, what


@asynccontextmanager
async def host_itself(world: World) -> AsyncIterator[AbstractExchange]:
    """The host's own login, in other hands."""
    config = world.config
    tls = ssl.create_default_context(cafile=config.ca)
    tls.load_cert_chain(config.certificate, config.key)
    url = URL(config.broker_urls[0]).with_path(f"/{topology.VHOST}").with_query(auth="external")
    async with await aio_pika.connect(url, ssl_context=tls) as connection:
        channel = await connection.channel()
        yield await channel.get_exchange(topology.EVENTS, ensure=False)


REPORTS: dict[str, tuple[bytes, str]] = {
    "truncated": (b'{"vnics":[', "json"),
    "flipped": (b'{"vnics"\xba[]}', "json"),
    "over the limit": (b'{"vnics":[]}' + b" " * MAX_REPORT, "json"),
    "a bomb": (BOMB, "zstd"),
    "a bomb that says it is small": (lying(BOMB), "zstd"),
    "no compressed text": (b"(\xb5/\xfd nothing", "zstd"),
    "nested": (b'{"vnics":' + DEEP, "json"),
    "another schema": (b'{"vnics":7}', "json"),
    "a field of a later release": (b'{"vnics":[],"zones":[]}', "json"),
    "an encoding that nobody knows": (b"{}", "brotli"),
}


async def test_o15_a_manager_refuses_what_is_no_report_and_keeps_what_it_has(world: World) -> None:
    """In the name of a host, by its own login: counted at that host, with the reason, which is what its alarm
    says; a report after them counts."""
    good = world.host.bindings
    async with host_itself(world) as events:
        for name, (body, encoding) in REPORTS.items():
            before, dead = world.host.reports_refused, await world.hostile.waiting(topology.DEAD)
            message = aio_pika.Message(body, content_encoding=encoding, user_id=world.config.host_id)
            await events.publish(message, topology.event_key(world.config.host_id, "vnics"))
            await eventually(lambda before=before: world.host.reports_refused == before + 1, name)
            await dead_letters(world, dead + 1, name)
            assert world.host.left_out[0].startswith("vnics: "), name
            assert world.host.bindings == good, name
        empty = aio_pika.Message(b'{"vnics":[]}', user_id=world.config.host_id)
        await events.publish(empty, topology.event_key(world.config.host_id, "vnics"))
        await eventually(lambda: world.host.bindings == () == world.host.left_out, "a good one")


async def test_o15_a_report_of_a_kind_that_nobody_knows_gets_no_further_than_the_broker(world: World) -> None:
    """The key is not among those of the host."""
    message = aio_pika.Message(b"{}", user_id=world.config.host_id)
    async with host_itself(world) as events:
        with pytest.raises(ChannelAccessRefused):
            await events.publish(message, topology.event_key(world.config.host_id, "zones"))


async def test_o16_a_message_that_nobody_gets_done_is_a_dead_letter_in_the_end(world: World) -> None:
    """It comes again as often as the queue allows; then the next one counts."""
    take, times = world.simulated.link._policy, 0

    async def stumble(message: Message) -> bool | None:
        nonlocal times
        if message.body != b"poison":
            return await take(message)
        times += 1
        return None

    world.simulated.link._policy = stumble
    dead = await world.hostile.waiting(topology.DEAD)
    await world.hostile.send(world.config.host_id, Message(b"", b"", b"poison"))
    await dead_letters(world, dead + 1, "poison")
    assert times == DELIVERY_LIMIT + 1
    world.change("after")
    await world.enforced("after")
