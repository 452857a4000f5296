"""Messages that should not be: put on a host's policy queue by somebody who has stolen the manager's place
at the broker. Whatever comes, the host enforces what it enforced, says so, and takes the manager's next
change.
"""

import asyncio
import hashlib
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import aio_pika
import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.lab import World, allow
from vagrant.lab.probe import Seen
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import ask
from vsfwd.ipc.interface import HostStatus
from vsfwd.protocol import envelope, topology
from vsfwd.protocol.envelope import Header, Kind, Message

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


@dataclass(frozen=True)
class Forger:
    """What a forger knows: the host, where it stands, and (stolen too) the key the manager signs with."""

    status: HostStatus
    key: Ed25519PrivateKey

    def delta(self, json: bytes = b"{}", key: Ed25519PrivateKey | None = None, **header: object) -> Message:
        """The delta that would come next and change nothing, but for the fields of the header in `header`."""
        status = self.status
        right = Header(
            host=status.host_id,
            epoch=status.epoch,
            generation=status.generation + 1,
            base=status.generation,
            kind=Kind.DELTA,
            digest=status.digest,
            body=hashlib.sha256(json).hexdigest(),
        )
        return sealed(msgspec.structs.replace(right, **header), json, key or self.key)


def sealed(header: Header, json: bytes, key: Ed25519PrivateKey) -> Message:
    """Signed as the manager signs, whatever the header says."""
    raw = msgspec.json.encode(header)
    return Message(raw, key.sign(b"vsfw policy 1\0" + raw), json)


OPEN_ALL = b'{"rules":{"9999":{"name":"x","section":"x","order":[0],"action":"allow"}}}'
"""A rule before all others that allows everything: what a forger would want."""

FORGERIES: dict[str, Callable[[Forger], Message]] = {
    "no JSON": lambda forger: forger.delta(b"\xff\x00garbage"),
    "unknown field": lambda forger: forger.delta(b'{"rulez":{}}'),
    "signed by another key": lambda forger: forger.delta(OPEN_ALL, key=Ed25519PrivateKey.generate()),
    "for another host": lambda forger: forger.delta(OPEN_ALL, host=str(uuid.uuid4())),
    "body exchanged": lambda forger: replace_body(forger.delta(), OPEN_ALL),
    "older generation": lambda forger: forger.delta(OPEN_ALL, generation=forger.status.generation - 1),
    "older epoch": lambda forger: forger.delta(OPEN_ALL, epoch=forger.status.epoch - 1),
    "re-ordered: one before it is missing": lambda forger: forger.delta(
        base=forger.status.generation + 1, generation=forger.status.generation + 2
    ),
    "wrong digest": lambda forger: forger.delta(OPEN_ALL),
    "header is no JSON": lambda forger: Message(b"{", forger.key.sign(b"vsfw policy 1\0{"), b"{}"),
    "encoding unknown": lambda forger: forger.delta(encoding="rot13"),
    "zstd that is none": lambda forger: forger.delta(b"nonsense", encoding="zstd"),
    "over the limit": lambda forger: forger.delta(b" " * (topology.MAX_BODY + 1)),
    "bomb": lambda forger: forger.delta(bomb(), encoding="zstd"),
    "empty": lambda forger: Message(b"", b"", b""),
}


def replace_body(message: Message, body: bytes) -> Message:
    return Message(message.header, message.signature, body)


def bomb() -> bytes:
    """A few KB that say they become more than a host decodes."""
    return zstandard.compress(bytes(topology.MAX_DECODED + 1))


QUICK = ("no JSON", "signed by another key", "over the limit")


@pytest.mark.parametrize(
    "forgery", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FORGERIES]
)
def test_a_forged_message_changes_nothing(world: World, forgery: str) -> None:
    """Refused and counted; the same verdicts as before; and the manager's next change is enforced."""
    world.enforce(allow("a", "c", "tcp/80"))
    before = status(world)
    send(world, FORGERIES[forgery](Forger(before, signing_key(world))))
    wait_until(lambda: status(world).messages_refused > before.messages_refused, "the refusal")
    after = status(world)
    assert (after.epoch, after.generation, after.digest) == (before.epoch, before.generation, before.digest)
    assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [ALLOWED, DROPPED]
    world.enforce(allow("a", "c", "tcp/80", "tcp/81"))
    assert world.seen("a", "c", "tcp/81") is ALLOWED


def test_a_message_without_our_headers_changes_nothing(world: World) -> None:
    """Not even an envelope: refused, and the next change is enforced."""
    before = status(world)
    send(world, None)
    wait_until(lambda: status(world).messages_refused > before.messages_refused, "the refusal")
    world.enforce(allow("a", "c", "tcp/80"))
    assert world.seen("a", "c", "tcp/80") is ALLOWED


def test_a_duplicate_is_taken_once(world: World) -> None:
    """The message that is in force already, come again: acknowledged without a word."""
    world.enforce(allow("a", "c", "tcp/80"))
    before = status(world)
    again = Forger(before, signing_key(world)).delta(
        generation=before.generation, base=before.generation, kind=Kind.SNAPSHOT
    )
    send(world, again)
    wait_until(lambda: status(world).messages_duplicate > before.messages_duplicate, "the duplicate counted")
    assert status(world).generation == before.generation
    assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [ALLOWED, DROPPED]


def status(world: World) -> HostStatus:
    """Of host1, where a is."""
    answer: HostStatus = ask(world.lab.host("host1").socket, lambda vsfwd: vsfwd.Status())["status"]
    return answer


def signing_key(world: World) -> Ed25519PrivateKey:
    pem = (world.lab.manager.directory / "signing.key").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def send(world: World, message: Message | None) -> None:
    """To the policy queue of host1, as the manager's user; None: a message with nothing of ours in it."""
    asyncio.run(_send(world, message))


async def _send(world: World, message: Message | None) -> None:
    directory = world.lab.manager.directory
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / "amqp.crt", directory / "amqp.key")
    url = f"{world.lab.broker.url}/{topology.VHOST}?auth=external"
    headers = (
        {}
        if message is None
        else {envelope.HEADER: bytearray(message.header), envelope.SIGNATURE: bytearray(message.signature)}
    )
    body = b"hello" if message is None else message.body
    host = world.lab.host("host1").id
    assert host is not None
    async with await aio_pika.connect(url, ssl_context=context, timeout=60) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(topology.COMMANDS, ensure=False)
        await exchange.publish(aio_pika.Message(body, headers=headers), topology.policy_key(host), timeout=30)
