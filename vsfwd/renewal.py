"""The next certificate of this host, over the bus, while the one in force is still good.

Each has a new key, made here. It waits on disk until its certificate comes, so that an answer that comes
after a restart is still of use; then key and certificate take the place of the old ones in one step. Sessions
that are open go on, and the next one begins with the new certificate. A host that was away until its
certificate expired is enrolled anew (`vsfwctl enroll --again`).
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from vsfwd import files, identity
from vsfwd.config import Config
from vsfwd.protocol.messages import Renewal
from vsfwd.protocol.renewal import Expiry, expiry, is_due, prove

log = structlog.get_logger(log="vsfwd.renewal")

PERIOD_S: Final = 600.0
"""A request that was lost is sent again."""


def _now() -> datetime:
    return datetime.now(UTC)


class CertificateRenewal:
    """`send` says something to the manager."""

    def __init__(
        self, config: Config, send: Callable[[Renewal], None], now: Callable[[], datetime] = _now
    ) -> None:
        self._config = config
        self._send = send
        self._now = now
        self._waiting: Path = config.certificate.with_name(identity.NEXT_KEY)

    async def run(self) -> NoReturn:
        while True:
            try:
                self.ask_if_due()
            except (OSError, identity.Unfit) as error:
                log.error("the certificate cannot be renewed; tried again later", reason=str(error))
            await asyncio.sleep(PERIOD_S)

    def ask_if_due(self) -> None:
        """Raises OSError, Unfit."""
        certificate = identity.load_certificate(self._config.certificate.read_bytes())
        if not is_due(certificate, self._now()):
            return
        if self._config.certificate != self._config.key:
            raise identity.Unfit("key and certificate are two files: whoever made them renews them")
        current = identity.load_key(self._config.key.read_bytes())
        csr = identity.signing_request(self._next_key(current))
        log.info("certificate is to be renewed", ends=str(certificate.not_valid_after_utc))
        self._send(Renewal(csr, prove(current, self._config.host_id, csr)))

    def take(self, pem: str) -> str:
        """The manager's answer. Why it is not taken; empty if it is."""
        try:
            authority = identity.load_certificate(self._config.ca.read_bytes())
            key = identity.load_key(self._waiting.read_bytes())
            certificate = identity.check(pem, key, authority, self._config.host_id)
            files.replace(self._config.certificate, identity.key_pem(key) + pem.encode())
            files.remove(self._waiting)
        except FileNotFoundError:
            return "certificate: none was asked for"
        except (OSError, identity.Unfit) as error:
            log.error("the new certificate is not taken", reason=str(error))
            return f"certificate: {error}"
        log.info("certificate renewed", ends=str(certificate.not_valid_after_utc))
        return ""

    def expiry(self) -> Expiry | None:
        """What somebody should know of the certificate in force."""
        try:
            return expiry(identity.load_certificate(self._config.certificate.read_bytes()), self._now())
        except (OSError, identity.Unfit):
            return None  # nothing connects then, which is told already

    def _next_key(self, current: ec.EllipticCurvePrivateKey) -> ec.EllipticCurvePrivateKey:
        """The one that was asked with already, or a new one; not that of the certificate in force, which a
        crash can have left."""
        try:
            key = identity.load_key(self._waiting.read_bytes())
            if key.public_key() != current.public_key():
                return key
        except (FileNotFoundError, identity.Unfit):
            pass
        key = identity.new_key()
        files.replace(self._waiting, identity.key_pem(key))
        return key
