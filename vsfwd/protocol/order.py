"""What the manager says on a host's app queue: everything but policy, each message signed by itself.

As with policy (`envelope`) the body travels as it is signed; beside it stand `Order` as JSON in the message
header `vsfw`, and its Ed25519 signature in `vsfw-signature`. So who has the broker can neither make an order
up, nor alter one, nor give it to another host, nor say it later or twice: an order has an id and an end, and
a host that has carried one out does nothing when it comes again.

The end is told by two clocks, so a few minutes are allowed for their difference; a host that starts anew does
not know what it had carried out before. Within those minutes an order can be repeated across a restart, so
what orders ask for must bear to be done twice.
"""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vsfwd.protocol.envelope import Message, Refused, pack, unpack

REQUEST: Final = "request"
"""The kind of `messages.Request`; the others are `components.KINDS`."""
MAX_BODY: Final = 1024 * 1024
"""Bytes of one order on the wire."""
MAX_DECODED: Final = 8 * 1024 * 1024
"""Bytes it may have after decompression."""
MAX_LIFE_S: Final = 24 * 3600
"""From when an order is given to its end."""
SKEW_S: Final = 300
"""By which the clocks of manager and host may differ (as in Kerberos, RFC 4120, 1.6)."""
_CONTEXT: Final = b"vsfw order 1\0"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom it is for, and until when (`expires`, seconds since 1970). `kind` says what the body is, `body` is
    the SHA-256 of its bytes in hex."""

    host: str
    id: str
    kind: str
    expires: int
    body: str
    encoding: str = "json"
    """"json", or "zstd"."""


def seal_order(
    key: Ed25519PrivateKey, *, host: str, id: str, kind: str, expires: int, json: bytes
) -> Message:
    """Compress what is worth it, and sign. Raises ValueError when it would be refused for its size."""
    if len(json) > MAX_DECODED:
        raise ValueError(f"order of {len(json)} bytes is over the limit of {MAX_DECODED}")
    encoding, body = pack(json)
    if len(body) > MAX_BODY:
        raise ValueError(f"order of {len(body)} bytes is over the limit of {MAX_BODY}")
    header = msgspec.json.encode(Order(host, id, kind, expires, hashlib.sha256(body).hexdigest(), encoding))
    return Message(header, key.sign(_CONTEXT + header), body)


def unseal_order(key: Ed25519PublicKey, message: Message, host: str) -> tuple[Order, bytes]:
    """Header and JSON of an order for `host`. Raises Refused, before any work an attacker could ask for."""
    if len(message.body) > MAX_BODY:
        raise Refused(f"size: {len(message.body)} bytes are over the limit of {MAX_BODY}")
    try:
        key.verify(message.signature, _CONTEXT + message.header)
    except InvalidSignature:
        raise Refused("signature: not made by this host's manager over these bytes") from None
    try:
        order = msgspec.json.decode(message.header, type=Order)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Refused(f"header: {error}") from None
    if order.host != host:
        raise Refused(f"host: addressed to {order.host}")
    if hashlib.sha256(message.body).hexdigest() != order.body:
        raise Refused("body: not the bytes that were signed")
    return order, unpack(order.encoding, message.body, MAX_DECODED)


class CarriedOut:
    """Which orders a host has carried out, as long as they could come again."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: seconds since 1970."""
        self._now = now
        self._ends: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def is_new(self, order: Order) -> bool:
        """False: it was carried out already. Raises Refused when it is not to be carried out now."""
        left_s = order.expires - self._now()
        if not -SKEW_S <= left_s <= MAX_LIFE_S + SKEW_S:
            raise Refused(f"expires: {order.expires} is {left_s:.0f} s from now by the clock of this host")
        return order.id not in self._ends

    def add(self, order: Order) -> None:
        now = self._now()
        self._ends = {id: end for id, end in self._ends.items() if end + SKEW_S >= now}
        self._ends[order.id] = order.expires
