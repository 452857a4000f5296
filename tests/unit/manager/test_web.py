"""The web server under load that no honest client makes: silence, half a request, too many connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import manager_stub.throttle
import manager_stub.web
from manager_stub.throttle import Throttle
from manager_stub.web import WebServer
from tests.harness.pki import Pki

ADDRESS = "127.0.0.1"
REQUEST = b"GET / HTTP/1.1\r\nHost: manager\r\nConnection: close\r\n\r\n"
SOON_S = 1.5
LATE_S = 10.0
LARGE = 32 * 1024 * 1024
"""More than sockets hold."""


class Site:
    """A server that answers whole requests at once, but under /slow when it may, and under /guess as if a
    wrong password had come."""

    def __init__(self, directory: Path) -> None:
        pki = Pki(directory)
        tls = pki.server(ADDRESS)
        self.tls = ssl.create_default_context(cafile=str(pki.ca))
        self.may = asyncio.Event()
        self.asked = asyncio.Semaphore(0)
        self.throttle = Throttle()
        self.wrong = asyncio.Semaphore(0)
        self.server = WebServer(self, (ADDRESS, 0), tls.certificate, tls.key)
        self.port = self.server.listener.getsockname()[1]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.release()
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/slow":
            await self.may.wait()
        if scope["path"] == "/guess":
            await self.throttle.guess(scope["client"][0], self._is_right)
        length = LARGE if scope["path"] == "/large" else 0
        headers = [(b"content-length", b"%d" % length)] if length else []
        await send({"type": "http.response.start", "status": 200 if length else 204, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(length)})

    async def _is_right(self) -> bool:
        self.wrong.release()
        return False

    async def connect(
        self, *, secure: bool = True, address: str = "127.0.0.2"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        named = {"ssl": self.tls} if secure else {}
        return await asyncio.open_connection(ADDRESS, self.port, local_addr=(address, 0), **named)

    async def is_served(self, address: str = "127.0.0.3") -> bool:
        reader, writer = await self.connect(address=address)
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.read(), LATE_S)
        writer.close()
        return answer.startswith(b"HTTP/1.1 204 ")


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    serving = asyncio.create_task(site.server.run_until_exit())
    yield site
    site.may.set()
    site.server.should_exit = True
    await asyncio.wait_for(serving, LATE_S)


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), LATE_S)
    return reader.at_eof() or reader.exception() is not None


@pytest.mark.parametrize(
    ("secure", "said"),
    [
        (False, b""),
        (False, b"\x16\x03\x01\x02\x00\x01"),
        (True, b""),
        (True, b"PUT / HTTP/1.1\r\nHost: man"),
        (True, b"PUT / HTTP/1.1\r\nHost: manager\r\nContent-Length: 9\r\n\r\nhalf"),
    ],
    ids=["silence", "half a handshake", "silence in TLS", "half a head", "half a body"],
)
async def test_x49_a_client_that_does_not_go_on_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch, secure: bool, said: bytes
) -> None:
    """CVE-2023-41378: without a handshake, or without a whole request, a connection ends; others are served
    meanwhile."""
    monkeypatch.setattr(manager_stub.web, "HANDSHAKE_S", SOON_S)
    monkeypatch.setattr(manager_stub.web, "REQUEST_S", SOON_S)
    silent = [await site.connect(secure=secure) for _ in range(20)]
    for _, writer in silent:
        writer.write(said)
    assert await site.is_served()
    for reader, writer in silent:
        assert await is_cut_off(reader)
        writer.close()


async def test_x49_a_request_that_comes_by_drops_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte on time is not enough: the whole request has a deadline, on a connection that was used
    before, too."""
    monkeypatch.setattr(manager_stub.web, "REQUEST_S", SOON_S)
    reader, writer = await site.connect()
    writer.write(REQUEST.replace(b"Connection: close\r\n", b""))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")

    async def drip() -> None:
        while True:
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(SOON_S / 10)

    dripping = asyncio.create_task(drip())
    assert await is_cut_off(reader)
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""], ids=["the last answer", "not the last"])
async def test_x49_a_client_that_does_not_take_the_answer_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch, last: bytes
) -> None:
    """It asks for much and reads nothing: its connection ends, whether it wanted to keep it or not; what it
    then reads is not the whole."""
    monkeypatch.setattr(manager_stub.web, "REQUEST_S", SOON_S)
    reader, writer = await site.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = REQUEST.replace(b"/", b"/large", 1).replace(b"Connection: close\r\n", last)
    writer.write(request)
    await site.asked.acquire()
    (connection,) = site.server.server_state.connections
    assert isinstance(connection, manager_stub.web._Connection)
    await asyncio.wait_for(connection.lost.wait(), LATE_S)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    taken = 0
    with suppress(ConnectionError):
        while chunk := await asyncio.wait_for(reader.read(LARGE), LATE_S):
            taken += len(chunk)
    assert taken < LARGE
    writer.close()


async def test_nobody_changes_to_another_protocol(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a library for it is there: its connections would not be known to have ended."""
    assert site.server.config.ws == "none"
    reader, writer = await site.connect()
    writer.write(REQUEST.replace(b"Connection: close", b"Connection: upgrade\r\nUpgrade: websocket"))
    assert (await asyncio.wait_for(reader.readline(), LATE_S)).startswith(b"HTTP/1.1 204 ")
    writer.close()


async def test_a_request_that_is_being_answered_has_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock runs for the client only, not for the answer."""
    monkeypatch.setattr(manager_stub.web, "REQUEST_S", SOON_S)
    reader, writer = await site.connect()
    writer.write(REQUEST.replace(b"/", b"/slow", 1))
    await site.asked.acquire()
    silent, other = await site.connect()
    assert await is_cut_off(silent)
    other.close()
    site.may.set()
    assert (await asyncio.wait_for(reader.read(), LATE_S)).startswith(b"HTTP/1.1 204 ")
    writer.close()


@pytest.mark.parametrize("secure", [False, True], ids=["before TLS", "in TLS"])
@pytest.mark.parametrize(
    ("limit", "victim"), [("MAX_FROM_ONE", "127.0.0.2"), ("MAX_CONNECTIONS", "127.0.0.3")]
)
async def test_x49_of_too_many_connections_the_oldest_silent_one_goes(
    site: Site, monkeypatch: pytest.MonkeyPatch, secure: bool, limit: str, victim: str
) -> None:
    """From one address or from all: the next one is served, and a request under way is not cut off."""
    monkeypatch.setattr(manager_stub.web, limit, 4)
    busy_reader, busy = await site.connect()
    busy.write(REQUEST.replace(b"/", b"/slow", 1))
    await site.asked.acquire()
    silent = [await site.connect(secure=secure) for _ in range(3)]
    assert await site.is_served(victim)
    assert await is_cut_off(silent[0][0])
    site.may.set()
    assert (await asyncio.wait_for(busy_reader.read(), LATE_S)).startswith(b"HTTP/1.1 204 ")
    for _, writer in (*silent, (busy_reader, busy)):
        writer.close()


async def test_x49_an_address_that_keeps_the_server_busy_is_refused_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests go on, its next connection does not; that of others does."""
    monkeypatch.setattr(manager_stub.web, "MAX_FROM_ONE", 2)
    busy = [await site.connect() for _ in range(2)]
    for _, writer in busy:
        writer.write(REQUEST.replace(b"/", b"/slow", 1))
    await site.asked.acquire()
    await site.asked.acquire()
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await site.connect()
    assert await site.is_served()
    site.may.set()
    for reader, writer in busy:
        assert (await asyncio.wait_for(reader.read(), LATE_S)).startswith(b"HTTP/1.1 204 ")
        writer.close()


async def test_x49_who_guesses_gives_way_to_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong guess is answered late, and meanwhile its connection is the first to go when there are too
    many; a request that is being worked on is not."""
    monkeypatch.setattr(manager_stub.web, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(manager_stub.throttle, "_FIRST_DELAY_S", LATE_S)
    monkeypatch.setattr(manager_stub.throttle, "_LONGEST_DELAY_S", LATE_S)
    site.server.config.timeout_graceful_shutdown = 1
    busy_reader, busy = await site.connect()
    busy.write(REQUEST.replace(b"/", b"/slow", 1))
    await site.asked.acquire()
    guesses = [await site.connect(address=f"127.0.0.{each}") for each in (4, 5)]
    for _, writer in guesses:
        writer.write(REQUEST.replace(b"/", b"/guess", 1))
        await site.wrong.acquire()
    assert await site.is_served()
    assert await is_cut_off(guesses[0][0])
    site.may.set()
    assert (await asyncio.wait_for(busy_reader.read(), LATE_S)).startswith(b"HTTP/1.1 204 ")
    for _, writer in (*guesses, (busy_reader, busy)):
        writer.close()
