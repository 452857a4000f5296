"""What is secret for one host, sealed to the key of its certificate.

HPKE (RFC 9180) in its base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Whoever has the host's
certificate can seal; only the host's private key, which never leaves it, opens. Host and purpose are part of
the key schedule, so what was sealed for one of them opens for no other. Base mode does not say who sealed:
what is sealed travels in a message that the manager signed (`envelope`).

The key signs in TLS as well (ECDSA). Both uses of one key on one curve are secure together: Degabriele et al.
2012, "On the Joint Security of Encryption and Signature in EMV".
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from vsfwd.protocol.envelope import Refused

MAX_SECRET: Final = 64 * 1024
"""Bytes: keys and certificates, no files."""
OVERHEAD: Final = 65 + 16
"""Bytes that sealing adds: a point of P-256, uncompressed, and the tag."""
SUITE: Final = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal_secret(key: ec.EllipticCurvePublicKey, secret: bytes, *, host: str, purpose: str) -> bytes:
    """For the host with this key, twice never the same. Raises ValueError when it is too large to be
    opened."""
    if len(secret) > MAX_SECRET:
        raise ValueError(f"secret of {len(secret)} bytes is over the limit of {MAX_SECRET}")
    return SUITE.encrypt(secret, key, info=_info(host, purpose))


def open_secret(key: ec.EllipticCurvePrivateKey, sealed: bytes, *, host: str, purpose: str) -> bytes:
    """Raises Refused when it was not sealed to this key, for this host and purpose, byte by byte."""
    if len(sealed) > MAX_SECRET + OVERHEAD:
        raise Refused(f"secret: {len(sealed)} bytes are over the limit of {MAX_SECRET + OVERHEAD}")
    try:
        return SUITE.decrypt(sealed, key, info=_info(host, purpose))
    except InvalidTag:
        raise Refused(f"secret: not sealed to this host's key for {purpose!r}") from None


def _info(host: str, purpose: str) -> bytes:
    return f"vsfw secret 1\0{host}\0{purpose}".encode()
