"""Orders on the app queue: only the manager gives them, to one host, for a while, and once."""

import hashlib
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vsfwd.protocol import envelope, order
from vsfwd.protocol.envelope import COMPRESS_ABOVE, Kind, Message, Refused
from vsfwd.protocol.order import MAX_BODY, MAX_LIFE_S, SKEW_S, CarriedOut, Order, seal_order, unseal_order

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MANAGER = KEY.public_key()
HOST, OTHER = "host-a", "host-b"
JSON = b'{"id":"r1","method":"forget"}'
NOW = 1_000_000


def given(json: bytes = JSON, **fields: Any) -> Message:
    return seal_order(
        KEY, json=json, **({"host": HOST, "id": "r1", "kind": "request", "expires": NOW + 60} | fields)
    )


@pytest.mark.parametrize("json", [JSON, b'"' + b"x" * 2 * COMPRESS_ABOVE + b'"'], ids=["plain", "zstd"])
def test_an_order_arrives_as_it_was_given(json: bytes) -> None:
    """Header and body, compressed or not."""
    header, body = unseal_order(MANAGER, given(json), HOST)
    assert (header.host, header.id, header.kind, header.expires) == (HOST, "r1", "request", NOW + 60)
    assert body == json


def test_nobody_else_gives_orders() -> None:
    """Who can write to the queue but has not the manager's key; and no key at all."""
    stranger = Ed25519PrivateKey.generate()
    forged = seal_order(stranger, host=HOST, id="r1", kind="request", expires=NOW + 60, json=JSON)
    for message in (forged, Message(b"", b"", JSON)):
        with pytest.raises(Refused, match="signature"):
            unseal_order(MANAGER, message, HOST)


@pytest.mark.parametrize("part", ["header", "signature", "body"])
def test_an_altered_order_is_refused(part: str) -> None:
    """One bit of any part."""
    message = given()
    altered = bytearray(getattr(message, part))
    altered[-2] ^= 1
    with pytest.raises(Refused):
        unseal_order(MANAGER, msgspec.structs.replace(message, **{part: bytes(altered)}), HOST)


def test_an_order_for_another_host_is_refused() -> None:
    """Moved from one queue into another."""
    with pytest.raises(Refused, match=f"addressed to {OTHER}"):
        unseal_order(MANAGER, given(host=OTHER), HOST)


def test_signed_policy_is_no_order() -> None:
    """Nor an order policy: what was signed to be the one is never read as the other."""
    policy = envelope.seal(
        KEY, host=HOST, epoch=1, generation=1, base=1, kind=Kind.SNAPSHOT, digest="0", json=JSON
    )
    with pytest.raises(Refused, match="signature"):
        unseal_order(MANAGER, policy, HOST)
    with pytest.raises(Refused, match="signature"):
        envelope.unseal(MANAGER, given(), HOST)


def test_what_is_too_large_is_refused_on_both_sides() -> None:
    """By its length on the wire, before the signature is looked at."""
    with pytest.raises(Refused, match="over the limit"):
        unseal_order(MANAGER, Message(b"", b"", bytes(MAX_BODY + 1)), HOST)
    with pytest.raises(ValueError, match="over the limit"):
        given(b"x" * (order.MAX_DECODED + 1))


def test_a_bomb_is_refused_by_what_it_says_of_itself() -> None:
    """A signed order whose body does not say how large it becomes is not decompressed."""
    body = b"\x28\xb5\x2f\xfd\x00\x58\x00\x00"
    header = msgspec.json.encode(
        Order(HOST, "r1", "request", NOW, hashlib.sha256(body).hexdigest(), encoding="zstd")
    )
    with pytest.raises(Refused, match="size"):
        unseal_order(MANAGER, Message(header, KEY.sign(order._CONTEXT + header), body), HOST)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def header(id: str = "r1", expires: int = NOW + 60) -> Order:
    return Order(HOST, id, "request", expires, "")


def test_an_order_is_carried_out_once() -> None:
    """Until it could not come again for its age; another is another."""
    done = CarriedOut(Clock())
    assert done.is_new(header())
    done.add(header())
    assert not done.is_new(header())
    assert done.is_new(header("r2"))


@pytest.mark.parametrize("expires", [NOW - SKEW_S - 1, NOW + MAX_LIFE_S + SKEW_S + 1, 2**63 - 1, -(2**63)])
def test_an_order_has_its_time(expires: int) -> None:
    """Kept back until it is over, or without an end: refused. So is every order while a clock is wrong."""
    with pytest.raises(Refused, match="by the clock of this host"):
        CarriedOut(Clock()).is_new(header(expires=expires))


@pytest.mark.parametrize("expires", [NOW - SKEW_S, NOW + MAX_LIFE_S + SKEW_S])
def test_clocks_may_differ_by_minutes(expires: int) -> None:
    """At both ends of the time an order has."""
    assert CarriedOut(Clock()).is_new(header(expires=expires))


def test_an_order_that_is_over_is_known_while_clocks_may_differ() -> None:
    """Another that comes meanwhile does not make room for it."""
    clock = Clock()
    done = CarriedOut(clock)
    done.add(header(expires=NOW + 1))
    clock.now = NOW + 60.0
    done.add(header("r2", NOW + 120))
    assert not done.is_new(header(expires=NOW + 1))


def test_what_cannot_come_again_is_forgotten() -> None:
    """A host remembers no more than the orders of a while."""
    clock = Clock()
    done = CarriedOut(clock)
    for number in range(1000):
        clock.now = NOW + 10.0 * number
        done.add(header(str(number), int(clock.now) + 60))
    assert len(done) <= (60 + SKEW_S) // 10 + 1
