"""Which certificates near their end: the installation's own, from its directory, and those of hosts."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from manager_stub.enrolment.credentials import Credentials
from vsfwd.protocol.renewal import Expiry, expiry

INSTALLATION: Final = ("ca", "server", "broker", "amqp")


class Expiries:
    def __init__(self, directory: Path, credentials: Credentials) -> None:
        self._directory = directory
        self._credentials = credentials

    def of_installation(self) -> Iterator[tuple[str, Expiry]]:
        """By the certificate's name."""
        for name in INSTALLATION:
            found = _of((self._directory / f"{name}.crt").read_bytes())
            if found is not None:
                yield name, found

    def of_hosts(self, hosts: Iterable[str]) -> Iterator[tuple[str, Expiry]]:
        for host in hosts:
            pem = self._credentials.of(host).certificate
            found = _of(pem.encode()) if pem else None
            if found is not None:
                yield host, found


def _of(pem: bytes) -> Expiry | None:
    return expiry(x509.load_pem_x509_certificate(pem), datetime.now(UTC))
