"""The link to the manager without a broker: what it makes of a message. With one: tests/integration."""

import asyncio
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import aio_pika
import aiormq
import msgspec
import pamqp.frame
import pytest
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.abc import DeliveredMessage
from aiormq.tools import Countdown
from msgspec import structs
from pamqp.commands import Basic, Connection
from structlog.testing import capture_logs

import vsfwd.amqp
import vsfwd.broker
from tests.harness.pki import Pki
from tests.harness.waiting import eventually
from tests.unit.policy_messages import APP, HOST, WEB, Manager
from vsfwd.amqp import Link, Session
from vsfwd.broker import HELD_AT_MOST_S, BrokerLink
from vsfwd.protocol import migration, topology
from vsfwd.protocol.components import ComponentAnswer, ComponentMessage
from vsfwd.protocol.envelope import HEADER, REPORT_AFTER, SIGNATURE, Message
from vsfwd.protocol.messages import Applied, Bindings, Event, Refusal, Reply, Request, digest_text
from vsfwd.protocol.order import seal_order
from vsfwd.relay import NotConnected

FORGET = Request("r1", "forget", WEB, "192.0.2.10")


MANAGER = Manager()


class Asked(BrokerLink):
    """A host's link, what it was asked to do and what it replied; there is no broker."""

    def __init__(self) -> None:
        config = SimpleNamespace(host_id=HOST, broker_urls=(), public_key=MANAGER.key.public_key)
        nobody = cast(Any, None)
        super().__init__(cast(Any, config), nobody, self._note, nobody, nobody)
        self.asked: list[Request] = []
        self.replies: list[Event] = []

    async def _note(self, request: Request) -> None:
        self.asked.append(request)

    def send(self, event: Event) -> None:
        self.replies.append(event)

    async def take(self, message: Message) -> bool:
        headers = {HEADER: message.header, SIGNATURE: message.signature}
        given = SimpleNamespace(body=message.body, headers=headers, redelivered=False)
        return await self._take_request(cast(Any, given))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"id":"\xff","method":"report"}', b'{"x":' + b"[" * 100_000],
    ids=["empty", "no request", "no text", "depth"],
)
async def test_a_request_that_cannot_be_read_goes_to_the_dead_letters(body: bytes) -> None:
    """It would come again for ever if it ended the session or the daemon. The manager itself signed it."""
    link = Asked()
    order = seal_order(
        MANAGER.key, host=HOST, id="r", kind="request", expires=int(time.time()) + 60, json=body
    )
    assert await link.take(order) is False
    assert link.asked == []


@pytest.mark.parametrize("kind", ["", "Request", "nonsense"])
async def test_an_order_of_an_unknown_kind_goes_to_the_dead_letters(kind: str) -> None:
    """Whatever its body can be read as."""
    link = Asked()
    order = seal_order(
        MANAGER.key,
        host=HOST,
        id="r",
        kind=kind,
        expires=int(time.time()) + 60,
        json=msgspec.json.encode(FORGET),
    )
    assert await link.take(order) is False
    assert (link.asked, link.replies) == ([], [])


async def test_only_the_manager_asks() -> None:
    """Whoever else can write to the queue, up to the broker's admin, gets nothing done: no signature,
    another's, one for another host."""
    link = Asked()
    body = msgspec.json.encode(FORGET)
    stranger, neighbour = Manager(), Manager(APP)
    neighbour.key = MANAGER.key
    for message in (Message(b"", b"", body), stranger.request(FORGET), neighbour.request(FORGET)):
        assert await link.take(message) is False
    assert link.asked == []
    assert await link.take(MANAGER.request(FORGET)) is True
    assert link.asked == [FORGET]


async def test_a_request_that_comes_twice_is_done_once() -> None:
    """The broker gives again what was not acknowledged, and somebody may keep a copy: it is taken, and
    nothing happens."""
    link = Asked()
    message = MANAGER.request(FORGET)
    assert [await link.take(message) for _ in range(3)] == [True] * 3
    assert link.asked == [FORGET]


@pytest.mark.parametrize("kind", ["move", "component"])
async def test_what_comes_twice_is_given_once_to_whoever_it_is_for(kind: str) -> None:
    """A step of a move, a message for a component."""
    link, given = Asked(), list[object]()

    async def take(said: migration.Move) -> None:
        given.append(said)

    link.move = take
    link._component = given.append  # type: ignore[assignment]
    said = {
        "move": (topology.MOVE, migration.encode(migration.MoveAborted(WEB, APP, "by hand"))),
        "component": ("component", msgspec.json.encode(ComponentMessage(WEB, "hello", "hello", {}))),
    }
    of_kind, body = said[kind]
    order = seal_order(MANAGER.key, host=HOST, id="m", kind=of_kind, expires=int(time.time()) + 60, json=body)
    assert [await link.take(order) for _ in range(2)] == [True, True]
    assert len(given) == 1


async def test_a_request_that_was_not_finished_is_done_when_it_comes_again() -> None:
    """The session ended in the middle of it."""
    link = Asked()
    message = MANAGER.request(FORGET)
    link._request = AsyncMock(side_effect=asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        await link.take(message)
    link._request = link._note
    assert await link.take(message) is True
    assert link.asked == [FORGET]


async def test_o41_a_request_that_fails_as_nobody_expected_is_refused() -> None:
    """The manager is told, the session goes on, and the next request is carried out."""
    link = Asked()
    link._request = AsyncMock(side_effect=KeyError("no such port"))
    with capture_logs() as lines:
        assert await link.take(MANAGER.request(FORGET)) is False
    assert link.replies == [Reply(FORGET.id, "internal error: KeyError('no such port')")]
    assert [line["log_level"] for line in lines] == ["error"]
    link._request = link._note
    again = structs.replace(FORGET, id="r2")
    assert await link.take(MANAGER.request(again)) is True
    assert link.asked == [again]


async def test_a_request_that_was_kept_back_is_refused() -> None:
    """And the manager is told why: it may be that a clock is wrong."""
    link = Asked()
    assert await link.take(MANAGER.request(FORGET, expires=int(time.time()) - 3600)) is False
    assert link.asked == []
    [reply] = link.replies
    assert isinstance(reply, Reply)
    assert (reply.id, "by the clock of this host" in reply.error) == (FORGET.id, True)


async def test_what_is_plugged_is_said_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the clock is set back, so that the manager knows which word is the last."""
    nobody, said = cast(Any, None), []

    async def publish(message: aio_pika.Message, *_: Any, **__: Any) -> None:
        said.append(msgspec.json.decode(message.body, type=Bindings).said_ns)

    link = BrokerLink(
        cast(Any, SimpleNamespace(host_id="host", broker_urls=())), nobody, nobody, nobody, nobody
    )
    for now in (1000, 1000, 10):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        assert await link._published(cast(Any, SimpleNamespace(publish=publish)), Bindings(()))
    assert said == [1000, 1001, 1002]


@pytest.mark.parametrize("task", ["events", "consumers"])
async def test_a_session_that_is_over_when_an_answer_comes_is_over(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Its tasks end with it, at that very moment too: there would be no other session ever."""
    monkeypatch.setattr(vsfwd.broker, "CHECK_S", 0.0)
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    async def ask(*_: Any, **more: Any) -> Any:
        asked.set()
        return await Countdown(more.get("timeout"))(answer)  # as aiormq does

    link = Asked()
    link._outgoing.append(Bindings(()))
    broker = cast(Any, SimpleNamespace(publish=ask, declare_queue=ask))
    running = asyncio.create_task(link._publish(broker) if task == "events" else link._watch(broker, "queue"))
    await asked.wait()
    await asyncio.sleep(0)
    answer.set_result(SimpleNamespace(declaration_result=SimpleNamespace(consumer_count=1, message_count=0)))
    running.cancel()
    await asyncio.wait([running], timeout=10)
    assert running.cancelled()


async def test_o12_a_report_that_a_queue_cannot_keep_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leader has gone and the next is not there yet; what finds no queue at all is said and left."""
    monkeypatch.setattr(vsfwd.broker, "PAUSE_S", (0.0, 0.0))
    nobody = cast(Any, None)
    link = BrokerLink(
        cast(Any, SimpleNamespace(host_id="host", broker_urls=())), nobody, nobody, nobody, nobody
    )
    message = DeliveredMessage(Basic.Return(), cast(Any, None), b"", cast(Any, None))
    done = {
        DeliveryError(message, Basic.Nack()): False,
        PublishError(message, Basic.Return()): True,
        None: True,
    }
    for error, said in done.items():
        exchange = SimpleNamespace(publish=AsyncMock(side_effect=error))
        assert await link._published(cast(Any, exchange), Bindings(())) is said


class _Busy(BrokerLink):
    """A host's link in a session; what it has to say stays there."""

    def __init__(self) -> None:
        nobody, config = cast(Any, None), SimpleNamespace(host_id=HOST, broker_urls=())
        super().__init__(cast(Any, config), AsyncMock(), nobody, nobody, lambda: ())
        self.connected_to = "amqps://broker"

    async def take(self, report_after: object) -> None:
        headers = {HEADER: b"", SIGNATURE: b"", REPORT_AFTER: report_after}
        await self._take_policy(cast(Any, SimpleNamespace(body=b"", headers=headers)))

    def said(self) -> list[Event]:
        return [*self._outgoing]


def applied(generation: int, **more: Any) -> Applied:
    return Applied(1, generation, digest_text(0), **more)


async def test_that_policy_is_in_force_is_said_when_the_manager_has_sent_the_others_theirs() -> None:
    """A thousand hosts' reports would otherwise compete with a thousand hosts' policy."""
    link = _Busy()
    await link.take(20)
    link.report(applied(1))
    assert link.said() == []
    await eventually(lambda: link.said() == [applied(1)], "the report", 5)


@pytest.mark.parametrize("report_after", [0, -1, None, "20", b"\0", 1.5], ids=repr)
async def test_without_a_pause_a_report_is_said_at_once(report_after: object) -> None:
    """Nobody has signed the pause: what is none is none."""
    link = _Busy()
    await link.take(report_after)
    link.report(applied(1))
    assert link.said() == [applied(1)]


async def test_no_message_holds_a_report_for_ever() -> None:
    """Whatever the broker, or who is in its place, makes of it."""
    link, now = _Busy(), asyncio.get_running_loop().time()
    await link.take(1 << 62)
    link.report(applied(1))
    assert link._held is not None
    assert link._held.when() <= now + HELD_AT_MOST_S + 1


@pytest.mark.parametrize(
    "failed",
    [applied(1, resync=True), applied(1, refusals=(Refusal("message", "2", "its signature is wrong"),))],
    ids=["resync", "refusal"],
)
async def test_what_fails_is_reported_at_once(failed: Applied) -> None:
    link = _Busy()
    await link.take(1 << 62)
    link.report(failed)
    assert link.said() == [failed]


async def test_of_what_is_held_back_only_the_newest_is_said() -> None:
    """Also when the host says where it stands meanwhile: the manager never hears an older word after it."""
    link = _Busy()
    await link.take(1)
    for generation in (1, 2):
        link.report(applied(generation))
    await eventually(lambda: link.said() == [applied(2)], "the newest", 5)
    link.report(applied(3))
    link.send(applied(4))
    assert link.said() == [applied(2), applied(4)]
    assert link._held is None


async def test_what_is_held_back_ends_with_its_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next one begins by saying where the host stands, and nothing older comes after that."""
    monkeypatch.setattr(vsfwd.broker.identity, "load_certificate", lambda _: None)
    monkeypatch.setattr(vsfwd.broker.identity, "login_of", lambda _: HOST)
    link = _Busy()
    link._config = cast(Any, SimpleNamespace(certificate=tmp_path / "host.crt"))
    (tmp_path / "host.crt").touch()
    await link.take(1 << 62)
    link.report(applied(1))
    tasks = SimpleNamespace(create_task=lambda work, name: work.close())
    session = SimpleNamespace(outlet=AsyncMock(), intake=AsyncMock(), tasks=tasks)
    await link.begin(cast(Session, session))
    assert link._held is None


async def test_what_is_said_on_a_connection_that_goes_is_not_said() -> None:
    """aiormq ends a wait on it as if somebody had cancelled it; only who was cancelled ends with that."""
    link, answer = Asked(), ComponentAnswer(WEB)
    link.connected_to, link._exchange = "amqps://b", AsyncMock()
    link._exchange.publish.side_effect = asyncio.CancelledError
    with pytest.raises(NotConnected, match="has gone"):
        await link.tell(answer)

    async def wait(*_: object) -> None:
        await asyncio.Event().wait()

    link._exchange.publish.side_effect = wait
    telling = asyncio.create_task(link.tell(answer))
    await asyncio.sleep(0)
    telling.cancel()
    await asyncio.wait([telling], timeout=5)
    assert telling.cancelled()


class _Hopeful(Link):
    async def begin(self, session: Session) -> None:
        await session.outlet("events")


_LETS_IN = b"".join(
    pamqp.frame.marshal(frame, 0)
    for frame in (
        Connection.Start(
            mechanisms="EXTERNAL", server_properties={"capabilities": {"publisher_confirms": True}}
        ),
        Connection.Tune(),
        Connection.OpenOk(),
    )
)
"""All that a broker says until a client may open a channel."""


@pytest.mark.parametrize(
    ("secure", "last_words"),
    [(False, b""), (True, b""), (True, _LETS_IN)],
    ids=["before TLS", "in TLS", "before there is a channel"],
)
async def test_x49_a_broker_that_says_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool, last_words: bytes
) -> None:
    """It takes the connection and does not go on: after a while the next broker of the list has its turn."""
    monkeypatch.setattr(vsfwd.amqp, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(vsfwd.amqp, "HEARTBEAT_S", 1)
    monkeypatch.setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.5)
    monkeypatch.setattr(vsfwd.amqp, "PAUSE_S", (0.01, 0.01))
    pki = Pki(tmp_path)
    tls = pki.server("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(last_words)
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
