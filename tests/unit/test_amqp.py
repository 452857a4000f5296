"""Sessions one after the other, without a broker. With one: tests/integration."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from aio_pika.exceptions import ProbableAuthenticationError
from aiormq.connection import SSLContextProvider
from yarl import URL

import vsfwd.amqp
from tests.harness.pki import Pki
from vsfwd.amqp import Link, Session, SessionOver, _close, _Transport
from vsfwd.broker import BrokerLink


class Resting(Link):
    """It has no session; what is asked is how long it waits for the next."""

    def __init__(self, brokers: int) -> None:
        super().__init__(
            "test", [f"amqps://b{number}" for number in range(brokers)], ssl.create_default_context
        )

    async def begin(self, session: Session) -> None:
        raise AssertionError


def test_o10_a_broker_may_be_away_for_days() -> None:
    """Each pause is twice the one before, up to the longest, and no count of failures is too many."""
    pauses = [Resting(1).pause_after_s(failures) for failures in (0, 1, 2, 3, 4, 5, 10**6)]
    assert pauses == [1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_o10_every_broker_of_a_cluster_is_tried_before_a_pause() -> None:
    """Of three that are away: one after the other, a pause, again, and twice the pause."""
    pauses = [Resting(3).pause_after_s(failures) for failures in range(8)]
    assert pauses == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0]


def test_o10_hosts_are_back_5_s_after_a_cluster_of_three_however_long_it_was_away() -> None:
    """The longest pause, by the largest random factor, leaves a second for the session and the policy."""
    assert 1.5 * Resting(3).pause_after_s(3 * 10**5) <= 4.0


class Failing(Link):
    """Its first session fails while it is cancelled."""

    def __init__(self) -> None:
        super().__init__("test", ["amqps://nowhere"], ssl.create_default_context)
        self.begun = asyncio.Event()

    async def begin(self, session: Session) -> None:
        first = not self.begun.is_set()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if first:
                raise SessionOver("the broker has gone")


async def test_a_session_that_fails_while_it_is_cancelled_is_the_last() -> None:
    """The broker goes at the moment the process is told to end: it ends, and looks for no other session."""
    link = Failing()
    running = asyncio.create_task(link.run())
    await link.begun.wait()
    running.cancel()
    await asyncio.wait([running], timeout=5)
    assert running.cancelled()


@pytest.mark.parametrize(("error", "goes_on"), [(Exception(), True), (ValueError("a mistake"), False)])
async def test_an_error_that_says_nothing_ends_the_session_and_a_mistake_ends_the_link(
    monkeypatch: pytest.MonkeyPatch, error: Exception, goes_on: bool
) -> None:
    """aiormq fails with a bare Exception what waits on a connection that is cut; anything else is ours."""
    monkeypatch.setattr(vsfwd.amqp, "PAUSE_S", (0.001, 0.001))
    begun: list[Session] = []

    class Cut(Link):
        async def begin(self, session: Session) -> None:
            begun.append(session)
            if len(begun) == 3:
                raise ValueError("enough")

            async def fail() -> None:
                raise error

            session.tasks.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await Cut("test", ["amqps://nowhere"], lambda: None).run()  # type: ignore[arg-type,return-value]
    assert len(begun) == (3 if goes_on else 1)


async def test_a_host_that_is_not_let_in_is_told_that_it_may_have_been_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker only says that the login was refused; what to do stands beside that."""
    monkeypatch.setattr(vsfwd.amqp, "PAUSE_S", (0.001, 0.001))
    begun: list[Session] = []

    class Removed(Link):
        login_refused = BrokerLink.login_refused

        async def begin(self, session: Session) -> None:
            begun.append(session)
            if len(begun) == 2:
                raise ValueError("enough")
            raise ProbableAuthenticationError("ACCESS_REFUSED - Login was refused")

    link = Removed("test", ["amqps://nowhere"], lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ExceptionGroup):
        await link.run()
    assert "ACCESS_REFUSED" in link.last_error
    assert "the manager may have removed this host" in link.last_error
    assert "vsfwctl enroll --again" in link.last_error


@pytest.mark.parametrize("answers", [True, False])
async def test_o11_a_broker_that_is_silent_is_not_waited_for_at_the_end_of_a_session(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """aiormq would, for half a minute, cancelled or not: what is under it is taken away."""
    monkeypatch.setattr(vsfwd.amqp, "CLOSE_TIMEOUT_S", 0.01)
    closed = asyncio.Event()
    connection, transport = Mock(close=closed.wait), Mock(abort=Mock(side_effect=closed.set))
    if answers:
        closed.set()
    async with asyncio.timeout(10):
        await _close(connection, transport)
    assert transport.abort.called is not answers


@pytest.mark.parametrize("closed", [0, 1, 2])
async def test_o11_a_connection_is_taken_away_however_often_it_was_closed(
    tmp_path: Path, closed: int
) -> None:
    """The broker never says goodbye, and aiormq closes a second time what it waits for."""
    pki = Pki(tmp_path)
    tls = pki.server("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)

    def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context)
    ours = ssl.create_default_context(cafile=str(pki.ca))
    transport = _Transport()
    url = URL(f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    provider = SSLContextProvider(ssl_context=ours, ssl_certs=None, loop=asyncio.get_running_loop())
    _, writer = await transport.create(url, ssl_context_provider=provider)
    for _ in range(closed):
        writer.close()
    transport.abort()
    async with asyncio.timeout(5):
        with suppress(OSError):
            await writer.wait_closed()
    server.close()
