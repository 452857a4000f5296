"""O15: the properties of a message, which an enrolled host can write as it likes and the broker hands on.
What no client can decode is refused like a report that cannot be read: no session ends, and no place is taken
for ever."""

import json
import struct
import uuid
from collections.abc import AsyncIterator

import pytest

from manager_stub.app import Parts
from manager_stub.intake import AT_HAND
from tests.harness.installation import Installation
from tests.harness.raw_amqp import (
    CONTENT_TYPE,
    HEADERS,
    TIMESTAMP,
    USER_ID,
    RawChannel,
    long,
    raw_channel,
    short,
)
from tests.harness.waiting import eventually
from vsfwd.protocol import topology
from vsfwd.protocol.messages import digest_text

pytestmark = pytest.mark.slow

HELLO = json.dumps({"epoch": 0, "generation": 0, "digest": digest_text(0), "vsfwd": "0.1"}).encode()
NO_TIME = struct.pack(">Q", 2**63)


def nested(depth: int) -> bytes:
    """A table in a table in a table."""
    table = b""
    for _ in range(depth):
        table = short(b"a") + b"F" + long(table)
    return table


UNREADABLE = {
    "a time beyond all years": (TIMESTAMP, NO_TIME),
    "such a time in a header": (HEADERS, long(short(b"a") + b"T" + NO_TIME)),
    "a header whose name is no text": (HEADERS, long(short(b"\xff") + b"t\1")),
    "a type that is no text": (CONTENT_TYPE, short(b"\xff")),
    "tables in tables": (HEADERS, long(nested(1000))),
    "more than there is room for": (HEADERS, long(short(b"a") + b"S" + long(bytes(10_000)))),
}


@pytest.fixture
async def manager(installation: Installation) -> AsyncIterator[Parts]:
    """In one session, from beginning to end."""
    async with installation.composed() as parts:
        yield parts
        assert not parts.publisher.last_error


async def greets(parts: Parts, channel: RawChannel, host: str) -> None:
    """What the host reports arrives."""
    await channel.publish(topology.event_key(host, "hello"), USER_ID, short(host.encode()), HELLO)
    await eventually(lambda: parts.register.hosts[host].vsfwd == "0.1", "the host is heard")


@pytest.mark.parametrize("what", UNREADABLE)
async def test_properties_that_cannot_be_read_end_no_session(
    installation: Installation, manager: Parts, what: str
) -> None:
    """More of them than the manager has at hand, as a report and as what a component says; then the next
    report is heard."""
    config = await installation.enrol(manager, str(uuid.uuid4()))
    user = short(config.host_id.encode())
    flags, properties = UNREADABLE[what]
    async with raw_channel(config) as channel:
        for kind, count in (("hello", AT_HAND + 1), ("component", 1)):
            key = topology.event_key(config.host_id, kind)
            for _ in range(count):
                await channel.publish(key, flags | USER_ID, properties + user)
        await greets(manager, channel, config.host_id)


async def test_a_consumer_that_nobody_can_read_of_ends_no_session(
    installation: Installation, manager: Parts
) -> None:
    """What a host says of itself when it begins to consume is in the broker's event."""
    config = await installation.enrol(manager, str(uuid.uuid4()))  # type: ignore[arg-type]
    queue = topology.policy_queue(config.host_id)
    long_one = short(b"a") + b"S" + long(bytes(10_000))
    async with raw_channel(config) as channel:
        for number, arguments in enumerate((long_one, nested(100), short(b"a") + b"T" + NO_TIME)):
            await channel.consume_and_cancel(queue, b"%d" % number, arguments)
        await eventually(lambda: manager.presence.is_up(config.host_id) is False, "they came and went")
        await greets(manager, channel, config.host_id)
