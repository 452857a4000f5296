"""Renewed certificates come into use without a restart: new connections have them, those that are open go
on."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import structlog

PERIOD_S: Final = 5.0

log = structlog.get_logger("manager.certificates")


class Rotation:
    def __init__(self, directory: Path, contexts: Mapping[str, ssl.SSLContext]) -> None:
        """By the name of the certificate (`state_dir`)."""
        self._directory = directory
        self._contexts = contexts
        self._known = {name: self._certificate(name).read_bytes() for name in contexts}
        self._refused: dict[str, str] = {}

    async def follow(self) -> NoReturn:
        while True:
            await asyncio.sleep(PERIOD_S)
            self.look()

    def look(self) -> None:
        """Take what has changed. What cannot be used is told and tried again; that of before stays in use."""
        for name, context in self._contexts.items():
            try:
                pem = self._certificate(name).read_bytes()
                if pem == self._known[name]:
                    continue
                pair = self._certificate(name), self._directory / f"{name}.key"
                # A context that refuses a pair has lost its key by then: OpenSSL. So another is asked first.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair)
                context.load_cert_chain(*pair)
            except (OSError, ssl.SSLError) as error:
                if self._refused.get(name) != str(error):
                    log.error("a renewed certificate is not taken", name=name, reason=str(error))
                self._refused[name] = str(error)
            else:
                self._known[name] = pem
                self._refused.pop(name, None)
                log.info("a renewed certificate is taken", name=name)

    def _certificate(self, name: str) -> Path:
        return self._directory / f"{name}.crt"
