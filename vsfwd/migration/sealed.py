"""What a VM takes along, for the eyes of one host and from the hand of another. Pure.

Sealed to the target's key (HPKE, as secrets are: `protocol.sealing`), then signed with the source's (ECDSA,
P-256). Both bind the bytes to the move, the VM, the two hosts and the round: what was made for another of
them, or is altered, opens nowhere. That the same round is not taken twice is `move`'s matter."""

import struct
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.migration import MAX_PART, MAX_PARTS, MoveOffer
from vsfwd.protocol.sealing import OVERHEAD, SUITE

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_CONTEXT: Final = "vsfw move 1"
_SIZE: Final = struct.Struct("<H")
_MAX_SEALED: Final = MAX_PART * MAX_PARTS


class Bound(NamedTuple):
    """What a sealed round is for: nothing else takes it."""

    migration: str
    vm: str
    source: str
    target: str
    round: int

    def info(self) -> bytes:
        return "\0".join((_CONTEXT, *map(str, self))).encode()


def bound(offer: MoveOffer, round_: int) -> Bound:
    return Bound(offer.migration, offer.vm, offer.source, offer.target, round_)


def seal(
    blob: bytes, bound: Bound, own: ec.EllipticCurvePrivateKey, target: ec.EllipticCurvePublicKey
) -> bytes:
    closed = SUITE.encrypt(blob, target, info=bound.info())
    signature = own.sign(bound.info() + closed, _ALGORITHM)
    return _SIZE.pack(len(signature)) + signature + closed


def unseal(
    sealed: bytes, bound: Bound, own: ec.EllipticCurvePrivateKey, source: ec.EllipticCurvePublicKey
) -> bytes:
    """Raises Refused, before anything is decrypted that the source has not signed."""
    if not _SIZE.size + OVERHEAD <= len(sealed) <= _MAX_SEALED:
        raise Refused(f"state: {len(sealed)} bytes are not the size of one that is sealed")
    (size,) = _SIZE.unpack_from(sealed)
    signature, closed = sealed[_SIZE.size : _SIZE.size + size], sealed[_SIZE.size + size :]
    try:
        source.verify(signature, bound.info() + closed, _ALGORITHM)
    except InvalidSignature:
        raise Refused(f"state: not signed by host {bound.source} for this round of this move") from None
    try:
        return SUITE.decrypt(closed, own, info=bound.info())
    except InvalidTag:
        raise Refused("state: not sealed to this host's key for this move") from None


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_public(der: bytes, whose: str) -> ec.EllipticCurvePublicKey:
    """Raises Refused."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused(f"key of the {whose}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refused(f"key of the {whose}: not one of P-256, as certificates of hosts have")
    return key
