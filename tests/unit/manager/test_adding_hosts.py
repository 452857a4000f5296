"""A host that is added to the broker twice at once. RabbitMQ looks for a user and then makes it: which of two
requests loses cannot be had at will, so one that behaves like that stands in for it."""

import asyncio
import ssl
from uuid import uuid4

import httpx
import pytest

from manager_stub.broker import Broker


async def test_a_session_that_begins_and_an_enrolment_may_add_the_same_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither is told that the other has declared its user."""
    users: set[str] = set()

    async def answer(request: httpx.Request) -> httpx.Response:
        user, known = request.url.path, request.url.path in users
        await asyncio.sleep(0)
        if user.startswith("/api/users/") and not known and user in users:
            return httpx.Response(400, json={"error": "bad_request", "reason": ["user_already_exists", user]})
        users.add(user)
        return httpx.Response(204)

    broker = Broker(["https://broker"], "", ssl.create_default_context())
    client = httpx.AsyncClient(base_url="https://broker", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(broker, "_client", client)
    host = str(uuid4())
    await asyncio.gather(broker.add_host(host), broker.add_host(host))
    assert f"/api/users/{host}" in users
    await client.aclose()
