"""The signed envelope: what was sent arrives, anything else is refused before it costs anything."""

import hashlib
import tracemalloc
import uuid
from typing import Any

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import (
    COMPRESS_ABOVE,
    Header,
    Kind,
    Message,
    Refused,
    seal,
    unseal,
    verify_header,
)
from vsfwd.protocol.topology import MAX_BODY, MAX_DECODED

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MANAGER = KEY.public_key()
HOST = str(uuid.UUID(int=5))
JSON = b'{"rules":{"1":null}}'


def sealed(json: bytes = JSON, **fields: Any) -> Message:
    header: dict[str, Any] = {
        "host": HOST,
        "epoch": 1,
        "generation": 3,
        "base": 2,
        "kind": Kind.DELTA,
        "digest": "0",
    }
    return seal(KEY, json=json, **(header | fields))


def signed(data: bytes, **fields: Any) -> Message:
    """A message as a manager would sign it that does not check what it sends."""
    header = Header(HOST, 1, 3, 2, Kind.DELTA, "0", hashlib.sha256(data).hexdigest())
    raw = msgspec.json.encode(msgspec.structs.replace(header, **fields))
    return Message(raw, KEY.sign(envelope._CONTEXT + raw), data)


@pytest.mark.parametrize("size", [2, COMPRESS_ABOVE, COMPRESS_ABOVE + 1, 1_000_000])
def test_what_is_sealed_is_what_is_unsealed(size: int) -> None:
    """Below and above the size at which bodies are compressed."""
    json = b" " * size
    message = sealed(json)
    header, received = unseal(MANAGER, message, HOST)
    assert received == json
    assert (header.host, header.epoch, header.generation, header.base) == (HOST, 1, 3, 2)
    assert header.encoding == ("zstd" if size > COMPRESS_ABOVE else "json")
    assert verify_header(MANAGER, message.header, message.signature, HOST) == header


@pytest.mark.parametrize("json", [JSON, b" " * (COMPRESS_ABOVE + 1)])
@pytest.mark.parametrize("part", ["header", "signature", "body"])
def test_every_byte_counts(part: str, json: bytes) -> None:
    """Any byte flipped, lost or added, in any part: refused."""
    message = sealed(json)
    good = getattr(message, part)
    changed = [
        good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :] for at in range(len(good)) for bit in (1, 128)
    ]
    for bad in (*changed, b"", good[:-1], good[1:], good + b"\0", good + good):
        with pytest.raises(Refused):
            unseal(MANAGER, msgspec.structs.replace(message, **{part: bad}), HOST)


def test_parts_of_two_messages_do_not_mix() -> None:
    """Both signed by the manager: the signature is over the header and the header over the body."""
    one, two = sealed(b"{}"), sealed(b"[]", generation=4)
    for mixed in (
        Message(one.header, one.signature, two.body),
        Message(one.header, two.signature, one.body),
        Message(two.header, one.signature, one.body),
    ):
        with pytest.raises(Refused):
            unseal(MANAGER, mixed, HOST)


def test_a_message_for_another_host_is_refused() -> None:
    """The broker may be made to deliver it; the signature names the addressee."""
    with pytest.raises(Refused, match="addressed to"):
        unseal(MANAGER, sealed(host=str(uuid.UUID(int=6))), HOST)


def test_another_key_is_another_manager() -> None:
    """Also for the header alone, as it is kept on disk."""
    message, other = sealed(), Ed25519PrivateKey.generate().public_key()
    with pytest.raises(Refused, match="signature"):
        unseal(other, message, HOST)
    with pytest.raises(Refused, match="signature"):
        verify_header(other, message.header, message.signature, HOST)


def test_a_signature_over_the_header_alone_is_not_one_of_ours() -> None:
    """The key signs in a context: a signature it made for something else does not pass here."""
    message = sealed()
    with pytest.raises(Refused, match="signature"):
        unseal(MANAGER, Message(message.header, KEY.sign(message.header), message.body), HOST)


@pytest.mark.parametrize(
    "fields",
    [{"encoding": "gzip"}, {"encoding": ""}, {"body": "00"}, {"encoding": "zstd"}, {"kind": "patch"}],
)
def test_a_header_that_does_not_fit_is_refused(fields: dict[str, Any]) -> None:
    """Signed, but an unknown encoding or kind, another hash, or a body that is not what it says."""
    with pytest.raises(Refused):
        unseal(MANAGER, signed(JSON, **fields), HOST)


@pytest.mark.parametrize(
    "header", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"host":1}', b'{"host":"\xff"}', b'{"more":1}']
)
def test_a_signed_header_that_is_none_is_refused(header: bytes) -> None:
    """Not JSON, nested without end, fields missing, of a wrong type or too many."""
    with pytest.raises(Refused):
        unseal(MANAGER, Message(header, KEY.sign(envelope._CONTEXT + header), b""), HOST)


def test_a_body_over_the_limit_is_refused_first() -> None:
    """Before the signature costs anything: its size alone decides."""
    with pytest.raises(Refused, match="size"):
        unseal(MANAGER, Message(b"", b"", bytes(MAX_BODY + 1)), HOST)


@pytest.mark.parametrize("told", [True, False])
def test_a_bomb_is_refused_before_it_grows(told: bool) -> None:
    """A few KB that decode to over the limit, with the size in the frame and without: no memory is spent on
    it."""
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=told).compressobj(
        size=MAX_DECODED + 1 if told else -1
    )
    chunk = bytes(1 << 20)
    body = b"".join(compressor.compress(chunk) for _ in range(MAX_DECODED >> 20))
    body += compressor.compress(b"\0") + compressor.flush()
    assert len(body) < 100_000
    message = signed(body, encoding="zstd")
    tracemalloc.start()
    with pytest.raises(Refused, match="size"):
        unseal(MANAGER, message, HOST)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    """It says little and holds much: decoding stops at what it said."""
    body = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(200)))
    assert zstandard.frame_content_size(bytes(body)) == 200
    body[5] = 100  # the content size: one byte in a frame this small (RFC 8878, 3.1.1.1)
    assert zstandard.frame_content_size(bytes(body)) == 100
    with pytest.raises(Refused):
        unseal(MANAGER, signed(bytes(body), encoding="zstd"), HOST)


def test_the_manager_is_told_of_a_policy_that_is_too_large() -> None:
    """At the source, not at every host."""
    with pytest.raises(ValueError, match="limit"):
        sealed(bytes(MAX_DECODED + 1))
