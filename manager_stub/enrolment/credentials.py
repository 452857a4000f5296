"""What each host has been given to prove itself: a login at the broker, and the certificate in force.

The broker knows a host by the name in its certificate. So that no certificate of an earlier enrolment is ever
good again, each enrolment of a host has a login of its own (`topology.login`), and the earlier ones are users
the broker does not have any more. A renewal keeps the login: the session goes on.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from manager_stub.store import Store
from manager_stub.transaction import Transaction
from vsfwd.protocol import topology
from vsfwd.protocol.sealing import seal_secret


@dataclass(frozen=True)
class Credential:
    """`certificate` in PEM; empty for a host of a release that did not keep it."""

    host: str
    enrolment: int
    certificate: str

    @property
    def login(self) -> str:
        return topology.login(self.host, self.enrolment)


class Credentials:
    def __init__(self, store: Store) -> None:
        self._credentials = {row["host"]: Credential(**row) for row in store.credentials()}

    def of(self, host: str) -> Credential:
        return self._credentials.get(host) or Credential(host, 1, "")

    def logins(self, host: str) -> tuple[str, ...]:
        """All it ever had; the last is the one in force."""
        return tuple(topology.login(host, number) for number in range(1, self.of(host).enrolment + 1))

    def public_key(self, host: str) -> ec.EllipticCurvePublicKey | None:
        """To seal to, and to know the host's own requests by."""
        pem = self.of(host).certificate
        key = x509.load_pem_x509_certificate(pem.encode()).public_key() if pem else None
        return key if isinstance(key, ec.EllipticCurvePublicKey) else None

    def seal(self, host: str, secret: bytes, purpose: str) -> bytes:
        """For this host alone: `vsfwd.identity.open_sealed` opens it there. Raises ValueError where that
        cannot be."""
        key = self.public_key(host)
        if key is None:
            raise ValueError(f"the key of host {host} is not known; enrol it anew")
        return seal_secret(key, secret, host=host, purpose=purpose)

    def put(self, transaction: Transaction, credential: Credential) -> None:
        """It counts once `take` has it, after the transaction."""
        transaction.put_credential(vars(credential))

    def take(self, credential: Credential) -> None:
        self._credentials[credential.host] = credential
