"""A manager without a broker, which takes itself to have one: REST called directly, SQLite in a directory
of the test."""

from functools import cached_property
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from manager_stub.api.interface import interface
from manager_stub.app import Parts, compose
from manager_stub.guard import Guard
from manager_stub.lead import Lead
from manager_stub.state_dir import ADMIN, StateDir

INFRA = "/policy/api/v1/infra"
DOMAIN = f"{INFRA}/domains/default"
VSFW = "/api/v1/vsfw"


class Manager:
    """`call` expects success and gives the body; `answer` gives the response."""

    def __init__(self, directory: StateDir, password: str, lead: Lead | None = None) -> None:
        self.directory = directory
        self.parts: Parts = compose(directory, lead)
        self.parts.publisher.connected_to = "amqps://broker"
        self.register, self.vnics = self.parts.register, self.parts.vnics
        self.admin = (ADMIN, password)
        self.rest = httpx.AsyncClient(
            transport=httpx.ASGITransport(self._serve),
            base_url="https://manager",
            auth=self.admin,
        )

    @cached_property
    def interface(self) -> Guard:
        """Made when it is asked for the first time: that takes longer than all the rest."""
        return interface(self.parts, self.directory)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.interface(scope, receive, send)

    async def answer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.rest.request(method, path, json=body)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.answer(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def stored(self) -> tuple[Any, Any]:
        """All that a restart would find."""
        return self.parts.store.objects(), self.parts.store.numbers()

    async def close(self) -> None:
        await self.rest.aclose()
        await self.parts.broker.close()
        self.parts.store.close()
