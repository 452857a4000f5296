"""Certificates in time: when a host asks for its next one, how it proves that it is the one who asks, and
when somebody has to look. Pure.

A host asks with a new key, and signs the request with the key it has: who can put messages onto the broker in
its name still has not that key, and gets no certificate, to which secrets would be sealed.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_CONTEXT: Final = b"vsfw renewal 1\0"
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


def prove(key: ec.EllipticCurvePrivateKey, host: str, csr: str) -> bytes:
    """By the key of the certificate in force."""
    return key.sign(_signed(host, csr), _ALGORITHM)


def is_proven(key: ec.EllipticCurvePublicKey, host: str, csr: str, proof: bytes) -> bool:
    try:
        key.verify(proof, _signed(host, csr), _ALGORITHM)
    except InvalidSignature:
        return False
    return True


def _signed(host: str, csr: str) -> bytes:
    return _CONTEXT + f"{host}\0{csr}".encode()


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """At two thirds of its life, as cert-manager has it: a third is left to find out why it does not work."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * 2 / 3


class Expiry(NamedTuple):
    """In NSX's words."""

    event_type: str
    severity: str
    description: str


_STAGES: Final = (
    (timedelta(0), "certificate_expired", "CRITICAL"),
    (timedelta(days=1), "certificate_is_about_to_expire", "CRITICAL"),
    (timedelta(days=7), "certificate_is_about_to_expire", "HIGH"),
    (timedelta(days=30), "certificate_expiration_approaching", "MEDIUM"),
)


def expiry(certificate: x509.Certificate, now: datetime) -> Expiry | None:
    """What is to be told of it; None: nothing yet."""
    end = certificate.not_valid_after_utc
    for left, event_type, severity in _STAGES:
        if end - now <= left:
            verb = "expired" if end <= now else "expires"
            return Expiry(event_type, severity, f"{verb} at {end.isoformat(timespec='seconds')}")
    return None
