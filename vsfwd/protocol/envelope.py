"""The signed envelope around every policy message.

The AMQP body travels as it is signed; beside it, in the message header `vsfw`, stands `Header` as JSON and in
`vsfw-signature` its Ed25519 signature (RFC 8032) by the manager. The header names the SHA-256 of the body
bytes, so one signature covers both, and a header kept on disk proves itself without the body it came with.
Everything is checked before a byte of the body is decompressed or decoded."""

import hashlib
from enum import StrEnum
from typing import Final

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vsfwd.protocol.topology import MAX_BODY, MAX_DECODED

HEADER: Final = "vsfw"
SIGNATURE: Final = "vsfw-signature"
REPORT_AFTER: Final = "vsfw-report-after"
"""Beside them, not signed: for so many ms the manager is busy with sending to other hosts."""
COMPRESS_ABOVE: Final = 4096
_CONTEXT: Final = b"vsfw policy 1\0"

Position = tuple[int, int]
"""Epoch and generation: of two states of a host the later one has the greater."""


class Kind(StrEnum):
    SNAPSHOT = "snapshot"
    DELTA = "delta"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the message is for and where in the sequence of states it stands.

    `generation` counts within `epoch`; `base` is the generation a delta applies to (equal to `generation` in
    a snapshot); `digest` is of the state that results, `body` the SHA-256 of the body bytes, both in hex."""

    host: str
    epoch: int
    generation: int
    base: int
    kind: Kind
    digest: str
    body: str
    encoding: str = "json"
    """"json", or "zstd": JSON compressed by Zstandard (RFC 8878)."""

    @property
    def position(self) -> Position:
        return self.epoch, self.generation


class Refused(Exception):
    """The message is not one this host may apply; the text says why, for people."""


class Message(msgspec.Struct, frozen=True):
    """Bytes ready for the wire, or for the disk."""

    header: bytes
    signature: bytes
    body: bytes


def seal(
    key: Ed25519PrivateKey,
    *,
    host: str,
    epoch: int,
    generation: int,
    base: int,
    kind: Kind,
    digest: str,
    json: bytes,
) -> Message:
    """Compress what is worth it, and sign. Raises ValueError when the message would be refused for its
    size."""
    if len(json) > MAX_DECODED:
        raise ValueError(f"policy of {len(json)} bytes is over the limit of {MAX_DECODED}")
    encoding, body = pack(json)
    if len(body) > MAX_BODY:
        raise ValueError(f"message of {len(body)} bytes is over the limit of {MAX_BODY}")
    header = msgspec.json.encode(
        Header(host, epoch, generation, base, kind, digest, hashlib.sha256(body).hexdigest(), encoding)
    )
    return Message(header, key.sign(_CONTEXT + header), body)


def verify_header(key: Ed25519PublicKey, header: bytes, signature: bytes, host: str) -> Header:
    """The header, once the manager's signature and the addressee are right. Raises Refused."""
    try:
        key.verify(signature, _CONTEXT + header)
    except InvalidSignature:
        raise Refused("signature: not made by this host's manager over these bytes") from None
    try:
        parsed = msgspec.json.decode(header, type=Header)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Refused(f"header: {error}") from None
    if parsed.host != host:
        raise Refused(f"host: addressed to {parsed.host}")
    return parsed


def unseal(key: Ed25519PublicKey, message: Message, host: str) -> tuple[Header, bytes]:
    """Header and JSON of a message for `host`. Raises Refused, before any work an attacker could ask for."""
    if len(message.body) > MAX_BODY:
        raise Refused(f"size: {len(message.body)} bytes are over the limit of {MAX_BODY}")
    header = verify_header(key, message.header, message.signature, host)
    if hashlib.sha256(message.body).hexdigest() != header.body:
        raise Refused("body: not the bytes that were signed")
    return header, unpack(header.encoding, message.body, MAX_DECODED)


def pack(json: bytes) -> tuple[str, bytes]:
    """How a body travels: its encoding, and its bytes."""
    return ("zstd", zstandard.compress(json, 1)) if len(json) > COMPRESS_ABOVE else ("json", json)


def unpack(encoding: str, body: bytes, at_most: int) -> bytes:
    """The JSON of a body. Raises Refused."""
    if encoding == "json":
        return body
    if encoding != "zstd":
        raise Refused(f"encoding: {encoding!r} is unknown")
    try:
        # The frame says how large it is; it is believed only downwards, so a bomb is refused before it grows.
        if not 0 <= zstandard.frame_content_size(body) <= at_most:
            raise Refused(f"size: the body does not say that it decodes to at most {at_most} bytes")
        return zstandard.ZstdDecompressor().decompress(body)
    except zstandard.ZstdError as error:
        raise Refused(f"body: {error}") from None
