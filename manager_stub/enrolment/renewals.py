"""The next certificate of a host, while the one in force is good: over the bus, with a new key.

It is given to whoever proves to have the key of the one in force, and keeps the login: sessions go on. It is
made and kept in one step; should the answer be lost, the host asks with the same key again, and is given the
same.
"""

import time
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final
from uuid import uuid4

import structlog
from cryptography import x509

from manager_stub import audit
from manager_stub.clock import now_ms
from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.pki import Authority
from manager_stub.register import Register
from manager_stub.reports import BadReport
from manager_stub.store import Store
from vsfwd.protocol.messages import Renewal, Request
from vsfwd.protocol.renewal import is_due, is_proven

log = structlog.get_logger("manager.enrolment")

AGAIN_S: Final = 60.0
"""A host is given one certificate in this time: each is signed, stored and told in the audit log."""
EARLY: Final = timedelta(days=1)
"""That a host may ask before it is time, since its clock may be ahead."""


class Renewals:
    def __init__(
        self, store: Store, register: Register, authority: Authority, credentials: Credentials
    ) -> None:
        self._store = store
        self._register = register
        self._authority = authority
        self._credentials = credentials
        self._renewed_at: dict[str, float] = {}

    def asked(self, host: str, said: Renewal) -> None:
        """Raises BadReport."""
        try:
            key = self._authority.key_of(said.csr)
        except ValueError as error:
            raise BadReport(f"renewal: {error}", host, "renewal") from None
        known = self._credentials.public_key(host)
        if known is None or (key != known and not is_proven(known, host, said.csr, said.proof)):
            raise BadReport("renewal: not asked for by the key of the certificate in force", host, "renewal")
        if key != known:
            if time.monotonic() < self._renewed_at.get(host, -inf) + AGAIN_S:
                raise BadReport(f"renewal: it was renewed within the last {AGAIN_S:g} s", host, "renewal")
            before = self._credentials.of(host)
            if not is_due(_parsed(before), _now() + EARLY):
                raise BadReport(
                    "renewal: its certificate is not yet two thirds through its life", host, "renewal"
                )
            self._renew(before, said.csr)
            self._renewed_at[host] = time.monotonic()
        self._answer(host)

    def _answer(self, host: str) -> None:
        """In place of one that has not gone out yet: a host may ask as often as it likes."""
        requests = self._register.requests
        for each in requests.of(host):
            if each.method == "certificate":
                requests.remove(host, each)
        answer = Request(str(uuid4()), "certificate", certificate=self._credentials.of(host).certificate)
        requests.add(host, answer)
        self._register.wake()

    def _renew(self, before: Credential, csr: str) -> None:
        pem = self._authority.issue_host(before.login, csr).decode()
        after = Credential(before.host, before.enrolment, pem)
        path = f"/vsfw/hosts/{before.host}/certificate"
        with self._store.begin() as transaction, audit.as_host(before.host):
            self._credentials.put(transaction, after)
            transaction.add_changes([audit.change(path, _told(before), _told(after), now_ms())])
        self._credentials.take(after)
        log.info("certificate renewed", host=before.host)


def _now() -> datetime:
    return datetime.now(UTC)


def _parsed(credential: Credential) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credential.certificate.encode())


def _told(credential: Credential) -> dict[str, str]:
    certificate = _parsed(credential)
    end = certificate.not_valid_after_utc.isoformat(timespec="seconds")
    return {"serial_number": f"{certificate.serial_number:x}", "not_after": end}
