"""The link to the manager without a broker: what it makes of a message. With one: tests/integration."""

import asyncio
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aio_pika
import msgspec
import pytest

import vsfwd.amqp
from tests.harness.pki import Pki
from vsfwd.amqp import Link, Session
from vsfwd.broker import BrokerLink
from vsfwd.protocol.messages import Bindings


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"id":"\xff","method":"report"}', b'{"x":' + b"[" * 100_000],
    ids=["empty", "no request", "no text", "depth"],
)
async def test_a_request_that_cannot_be_read_goes_to_the_dead_letters(body: bytes) -> None:
    """It would come again for ever if it ended the session or the daemon."""
    nobody = cast(Any, None)
    link = BrokerLink(cast(Any, SimpleNamespace(host_id="host", broker_urls=())), nobody, nobody, nobody)
    assert await link._take_request(cast(Any, SimpleNamespace(body=body))) is False


async def test_what_is_plugged_is_said_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the clock is set back, so that the manager knows which word is the last."""
    nobody, said = cast(Any, None), []

    async def publish(message: aio_pika.Message, *_: Any, **__: Any) -> None:
        said.append(msgspec.json.decode(message.body, type=Bindings).said_ns)

    link = BrokerLink(cast(Any, SimpleNamespace(host_id="host", broker_urls=())), nobody, nobody, nobody)
    for now in (1000, 1000, 10):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        assert await link._published(cast(Any, SimpleNamespace(publish=publish)), Bindings(()))
    assert said == [1000, 1001, 1002]


class _Hopeful(Link):
    async def begin(self, session: Session) -> None:
        await session.outlet("events")


@pytest.mark.parametrize("secure", [False, True], ids=["before TLS", "in TLS"])
async def test_x49_a_broker_that_says_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """It takes the connection and never goes on: after a while the next broker of the list has its turn."""
    monkeypatch.setattr(vsfwd.amqp, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(vsfwd.amqp, "PAUSE_S", (0.01, 0.01))
    pki = Pki(tmp_path)
    tls = pki.server("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def take_note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context if secure else None)
    other = await asyncio.start_server(take_note, "127.0.0.1", 0)
    urls = [f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in (silent, other)]
    monkeypatch.setattr(vsfwd.amqp, "_rotation", lambda _: iter(urls * 1000))
    link = _Hopeful("host", urls, lambda: ssl.create_default_context(cafile=str(pki.ca)))
    running = asyncio.create_task(link.run())
    await asyncio.wait_for(asked.wait(), 10)
    assert urls[0] in link.last_error
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    silent.close()
    other.close()
