"""The installation's certificate authority: EC P-256, one CA, certificates for the manager, the broker and
hosts.

Keys are made here only for the manager's and the broker's own use; a host makes its own and sends a signing
request, of which nothing but the public key is believed.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vsfwd import files
from vsfwd.protocol.fingerprint import fingerprint

CA_LIFE: Final = timedelta(days=3650)
SERVER_LIFE: Final = timedelta(days=825)
HOST_LIFE: Final = timedelta(days=93)
"""So that at two thirds, when it is renewed, more is left than the 30 days of the first alarm."""
PUBLIC: Final = 0o644
"""The mode of a certificate's file."""
_CLOCK_SKEW: Final = timedelta(minutes=5)


def key_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vsfwd CA")])
        usage = _key_usage(key_cert_sign=True)
        certificate = (
            _builder(name, name, key.public_key(), CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "Authority":
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key}: not an elliptic-curve key")
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    @property
    def key_hash(self) -> str:
        """What a host is told to know this authority by."""
        return f"sha256:{fingerprint(self._key.public_key())}"

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def save(self, certificate: Path, key: Path) -> None:
        files.create(key, key_pem(self._key))
        files.create(certificate, self.pem, PUBLIC)

    def issue_server(self, name: str, addresses: list[str]) -> tuple[bytes, bytes]:
        """Certificate and key, in PEM, of a server reached under these names or IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_alternative_name(address) for address in addresses])
        certificate = self._issue(name, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, SERVER_LIFE, names)
        return certificate, key_pem(key)

    def issue_client(self, name: str) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issue(name, key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH, SERVER_LIFE), key_pem(key)

    def renew(self, pem: bytes) -> bytes:
        """A certificate of this authority once more: name, key and purpose stay, its life begins now."""
        old = x509.load_pem_x509_certificate(pem)
        key = old.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not the certificate of an elliptic-curve key")
        [name] = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        [purpose] = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        try:
            names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = None
        return self._issue(str(name.value), key, purpose, SERVER_LIFE, names)

    def issue_host(self, login: str, request: str) -> bytes:
        """The certificate of a host that sent this signing request. Raises ValueError when it is none."""
        return self._issue(login, self.key_of(request), ExtendedKeyUsageOID.CLIENT_AUTH, HOST_LIFE)

    def key_of(self, request: str) -> ec.EllipticCurvePublicKey:
        """What is believed of a signing request. Raises ValueError when it is none."""
        try:
            parsed = x509.load_pem_x509_csr(request.encode())
            valid = parsed.is_signature_valid
            key = parsed.public_key()
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise ValueError(f"not a certificate signing request in PEM: {error}") from None
        if not valid:
            raise ValueError("the request is not signed by its own key")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the key is not an elliptic-curve key on P-256")
        return key

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        purpose: x509.ObjectIdentifier,
        life: timedelta,
        names: x509.SubjectAlternativeName | None = None,
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
