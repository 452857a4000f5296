"""What this host proves itself with: its key and certificate, in one file, so that they change together.

The key is made here and never leaves the host. What it is entered with is a signing request, of which the
manager believes the key alone.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.sealing import open_secret
from vsfwd.protocol.topology import host_of

CA: Final = "ca.pem"
HOST: Final = "host.pem"
"""Private key and certificate."""
NEXT_KEY: Final = "renewing.key"
"""Beside it, while the next certificate is asked for."""


class Unfit(Exception):
    """A key or certificate that this host cannot have; the text says why."""


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises Unfit."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise Unfit(f"no private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unfit("not an elliptic-curve key")
    return key


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    """In PEM. Its subject is empty: the manager decides."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def load_certificate(pem: bytes) -> x509.Certificate:
    """Raises Unfit."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise Unfit(f"no certificate: {error}") from None


def login_of(certificate: x509.Certificate) -> str:
    """The user at the broker. Raises Unfit."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise Unfit("the certificate does not say whose it is")
    return str(names[0].value)


def issued_for(pem: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> x509.Certificate:
    """That it is for this key, and from this authority. Raises Unfit."""
    certificate = load_certificate(pem.encode())
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unfit(f"not a certificate of the authority: {error}") from None
    if certificate.public_key() != key.public_key():
        raise Unfit("the certificate is for another key")
    return certificate


def check(
    pem: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, host: str
) -> x509.Certificate:
    """That it is for this key and this host, and from this authority. Raises Unfit."""
    certificate = issued_for(pem, key, authority)
    if host_of(login_of(certificate)) != host:
        raise Unfit(f"the certificate is not for host {host}")
    return certificate


def open_sealed(own: Path, sealed: bytes, *, host: str, purpose: str) -> bytes:
    """What the manager has sealed to this host's key, which is in `own`, or to the next one: the manager
    knows that a moment before its certificate is here. Raises OSError, Unfit, Refused."""
    keys = [load_key(own.read_bytes())]
    with suppress(FileNotFoundError, Unfit):
        keys.append(load_key(own.with_name(NEXT_KEY).read_bytes()))
    *others, last = keys
    for key in others:
        with suppress(Refused):
            return open_secret(key, sealed, host=host, purpose=purpose)
    return open_secret(last, sealed, host=host, purpose=purpose)
