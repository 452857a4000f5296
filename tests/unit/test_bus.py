"""io.vsfwd.Bus: components of a host, over the real socket, with a list in place of the broker."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.harness.documents import blocks
from tests.unit.bus_host import AGENT, COMPONENTS, DEADLINE_S, OTHER, STRANGER, Host, serving, until
from vsfwd import relay
from vsfwd.config import Component
from vsfwd.ipc import server
from vsfwd.protocol.components import ComponentAnswer, ComponentMessage

OK: dict[str, Any] = {}
"""The reply of a method that has nothing to say."""


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def say(self, method: str, more: bool = False, **parameters: Any) -> None:
        call = {"method": f"io.vsfwd.Bus.{method}", "parameters": parameters, "more": more}
        self.writer.write(json.dumps(call).encode() + b"\0")

    async def hear(self) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return json.loads((await self._reader.readuntil(b"\0"))[:-1])

    async def ended(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionError:
                pass
            return True


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with serving(tmp_path / "vsfwd.sock") as host:
        yield host


@asynccontextmanager
async def connected(host: Host, uid: int = AGENT) -> AsyncIterator[Connection]:
    host.uid = uid
    reader, writer = await asyncio.open_unix_connection(host.path)
    yield Connection(reader, writer)
    writer.close()


async def ask(host: Host, method: str, uid: int = AGENT, **parameters: Any) -> Any:
    async with connected(host, uid) as connection:
        connection.say(method, **parameters)
        return await connection.hear()


@asynccontextmanager
async def subscribed(
    host: Host, *topics: str, component: str = "agent", uid: int = AGENT
) -> AsyncIterator[Connection]:
    async with connected(host, uid) as connection:
        connection.say("Subscribe", more=True, component=component, topics=list(topics))
        assert (await connection.hear())["parameters"].get("message") is None
        yield connection


async def test_what_a_component_publishes_is_with_the_broker_when_it_is_told_so(host: Host) -> None:
    """With its name and topic, and an id of its own."""
    assert await ask(host, "Publish", component="agent", topic="facts.vm", body={"a": [1, "ü", None]}) == OK
    (said,) = host.said
    assert isinstance(said, ComponentMessage)
    assert (said.component, said.topic, said.body) == ("agent", "facts.vm", {"a": [1, "ü", None]})
    assert said.answer_within_s == 0


async def test_without_a_broker_a_component_is_told_and_nothing_is_kept(host: Host) -> None:
    """It says it again when it likes: what vsfwd would keep for it would be gone with vsfwd."""
    host.away = True
    answer = await ask(host, "Publish", component="agent", topic="users", body={})
    assert answer == {"error": "io.vsfwd.Bus.NotConnected", "parameters": {"reason": "no broker"}}
    host.away = False
    assert await ask(host, "Publish", component="agent", topic="users", body={"n": 2}) == OK
    assert [event.body for event in host.said] == [{"n": 2}]


async def test_a_message_comes_to_those_who_subscribed_to_its_topic(host: Host) -> None:
    """All of them, in order; the manager is told that it was given."""
    async with subscribed(host, "users") as one, subscribed(host, "users", "facts.vm") as two:
        for number in range(3):
            id, answer = host.send("agent", "users", n=number)
            assert answer == ComponentAnswer(id)
        for connection in (one, two):
            heard = [(await connection.hear())["parameters"]["message"] for _ in range(3)]
            assert [message["body"]["n"] for message in heard] == [0, 1, 2]
            assert {message["topic"] for message in heard} == {"users"}
            assert not any(message.get("call") for message in heard)


async def test_what_nobody_listens_to_is_refused(host: Host) -> None:
    """Another topic, another component, or none: at once, and nothing is kept for later."""
    async with subscribed(host, "users"):
        for component, topic in (("agent", "facts.vm"), ("other", "users"), ("nobody", "users")):
            reason = f"component {component}: nobody there listens to topic {topic}"
            assert host.send(component, topic)[1].error == reason
    await until(lambda: "nobody there listens" in host.send("agent", "users")[1].error)


async def test_a_component_answers_a_call_of_the_manager(host: Host) -> None:
    """Once, under the id it was called with; the one that subscribed first has it."""
    async with subscribed(host, "users") as serving, subscribed(host, "users") as idle:
        id, answer = host.send("agent", "users", 10, who="?")
        assert answer is None
        assert (await serving.hear())["parameters"]["message"]["call"] == id
        replied = await ask(host, "Reply", component="agent", call=id, body={"who": "root"})
        assert replied == OK
        assert host.said == [ComponentAnswer(id, {"who": "root"})]
        again = await ask(host, "Reply", component="agent", call=id, body={})
        assert again["error"] == "io.vsfwd.Bus.NobodyWaits"
        host.send("agent", "users", n=1)
        assert (await idle.hear())["parameters"]["message"]["body"] == {"n": 1}  # and not the call


async def test_a_component_cannot_answer_for_another(host: Host) -> None:
    """Though it has guessed the id of the call."""
    async with subscribed(host, "users") as serving:
        id, _ = host.send("agent", "users", 10)
        await serving.hear()
        stolen = await ask(host, "Reply", OTHER, component="other", call=id, body={"who": "me"})
        assert stolen["error"] == "io.vsfwd.Bus.NobodyWaits"
        assert host.said == []


async def test_x48_a_stranger_cannot_answer_for_a_component(host: Host) -> None:
    """Though it says its name and has guessed the id of the call."""
    async with subscribed(host, "users") as serving:
        id, _ = host.send("agent", "users", 10)
        await serving.hear()
        for component, uid in (("agent", STRANGER), ("agent", OTHER)):
            refused = await ask(host, "Reply", uid, component=component, call=id, body={})
            assert refused["error"] == "io.vsfwd.Bus.NotAllowed"
        assert host.said == []


async def test_a_component_that_leaves_leaves_no_call_open(host: Host) -> None:
    """The manager is told at once that nobody will answer."""
    async with subscribed(host, "users") as serving:
        id, _ = host.send("agent", "users", 60)
        await serving.hear()
    await until(lambda: len(host.said) == 1)
    assert host.said == [ComponentAnswer(id, error="the component left without an answer")]


async def test_a_component_asks_the_manager(host: Host) -> None:
    """The answer that has the id of its question."""
    async with connected(host) as connection:
        connection.say("Call", component="agent", topic="users", body={"q": 1})
        await until(lambda: len(host.said) == 1)
        (asked,) = host.said
        assert isinstance(asked, ComponentMessage)
        assert asked.answer_within_s == relay.PATIENCE_S
        host.relay.answered(ComponentAnswer(str(uuid4()), {"a": 0}))
        host.relay.answered(ComponentAnswer(asked.id, {"a": 1}))
        assert await connection.hear() == {"parameters": {"body": {"a": 1}}}


async def test_a_question_has_an_end(host: Host) -> None:
    """An error of the manager's, or no answer in time: each has its name."""
    async with connected(host) as connection:
        connection.say("Call", component="agent", topic="users", body={})
        await until(lambda: len(host.said) == 1)
        host.relay.answered(ComponentAnswer(host.said[0].id, error="no such thing"))
        assert await connection.hear() == {
            "error": "io.vsfwd.Bus.Failed",
            "parameters": {"reason": "no such thing"},
        }
        connection.say("Call", component="agent", topic="users", body={}, timeout_s=1)
        assert (await connection.hear())["error"] == "io.vsfwd.Bus.NoAnswer"


@pytest.mark.parametrize(
    ("uid", "component", "topic", "reason"),
    [
        (AGENT, "agent", "news", "topic 'news' is none of those of component 'agent'"),
        (AGENT, "agent", "facts", "topic 'facts' is none"),
        (AGENT, "other", "news", "uid 1101 is none of the users of component 'other'"),
        (STRANGER, "agent", "users", "uid 1103 is none of the users"),
        (
            AGENT,
            "vsfwd",
            "users",
            "component 'vsfwd' is not in vsfwd's configuration; there: agent,",
        ),
        (0, "vsfwd", "users", "is not in vsfwd's configuration"),
    ],
)
async def test_x48_who_may_speak_of_what_is_configuration(
    host: Host, uid: int, component: str, topic: str, reason: str
) -> None:
    """By the uid that the kernel vouches for; whatever else is refused by name, to speak and to listen."""
    named = {"component": component, "topic": topic}
    async with connected(host, uid) as listener:
        listener.say("Subscribe", more=True, component=component, topics=[topic])
        refused = [await listener.hear()]
    refused += [await ask(host, method, uid, **named, body={}) for method in ("Publish", "Call")]
    assert [answer["error"] for answer in refused] == ["io.vsfwd.Bus.NotAllowed"] * 3
    assert all(reason in answer["parameters"]["reason"] for answer in refused)
    assert host.said == []


async def test_x48_rights_that_are_taken_away_are_gone_for_who_is_connected(host: Host) -> None:
    """It hears nothing more, and says nothing more, by the connection that it has."""
    async with connected(host) as speaker, subscribed(host, "users") as listener:
        host.rights.grant({**COMPONENTS, "agent": Component(users=(OTHER,), topics=("users",))})
        host.send("agent", "users", n=1)
        assert (await listener.hear())["error"] == "io.vsfwd.Bus.NotAllowed"
        speaker.say("Publish", component="agent", topic="users", body={})
        assert (await speaker.hear())["error"] == "io.vsfwd.Bus.NotAllowed"
    assert host.said == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], "body: not a JSON object"),
        ("text", "body: not a JSON object"),
        ({"n": float("nan")}, "body: nan is not a number"),
        ({"n": 2**64}, "body: an integer of more than 64 bits"),
        ({"s": "\ud800"}, "body: not Unicode"),
        ({"\ud800": 1}, "body: not Unicode"),
        ({"deep": json.loads("[" * 16 + "]" * 16)}, "body: nested deeper than 16"),
        ({"long": "x" * 16 * 1024}, "bytes are over the limit of 16384"),
    ],
)
async def test_a_body_that_cannot_be_sent_is_refused_with_the_reason(
    host: Host, body: Any, reason: str
) -> None:
    """And the next one is taken, on the same connection."""
    async with connected(host) as connection:
        connection.say("Publish", component="agent", topic="users", body=body)
        answer = await connection.hear()
        assert answer["error"] == "io.vsfwd.Bus.Invalid"
        assert reason in answer["parameters"]["reason"]
        connection.say("Publish", component="agent", topic="users", body={})
        assert await connection.hear() == OK
    assert len(host.said) == 1


async def test_o38_a_client_that_does_not_read_is_cut_off(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left unread is bounded; the manager is told, and others go on as if it were not there."""
    monkeypatch.setattr(relay, "MAX_UNTAKEN", 4)
    async with (
        subscribed(host, "users") as blocked,
        subscribed(host, "news", component="other", uid=OTHER) as other,
    ):
        text = "x" * 10_000
        async with asyncio.timeout(DEADLINE_S):
            while not (refused := host.send("agent", "users", text=text)[1]).error:
                await asyncio.sleep(0)
                assert not host.send("other", "news")[1].error
                assert (await other.hear())["parameters"]["message"]["topic"] == "news"
        assert "does not read" in refused.error
        assert await blocked.ended()
        assert not host.send("other", "news")[1].error
        assert (await other.hear())["parameters"]["message"]["topic"] == "news"


async def test_o38_one_message_left_unread_for_long_is_enough(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hangs is found by the next message, however few there are."""
    monkeypatch.setattr(relay, "SLOW_S", -1.0)
    async with subscribed(host, "users") as hanging:
        assert not host.send("agent", "users", n=1)[1].error
        assert "does not read" in host.send("agent", "users", n=2)[1].error
        assert await hanging.ended()


async def test_o38_a_component_that_floods_is_slowed_down_and_others_are_not(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the answer to one message too many is held back, another component is answered."""
    monkeypatch.setattr(relay, "BURST", 3)
    monkeypatch.setattr(relay, "RATE", 0.001)
    async with connected(host) as flooding:
        for _ in range(10):
            flooding.say("Publish", component="agent", topic="users", body={})
        for _ in range(3):
            assert await flooding.hear() == OK
        assert await ask(host, "Publish", OTHER, component="other", topic="news", body={}) == OK
        assert [event.component for event in host.said if isinstance(event, ComponentMessage)] == [
            *["agent"] * 3,
            "other",
        ]


async def test_o38_calls_that_are_not_answered_do_not_pile_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is refused; once there is room again, the next is taken."""
    monkeypatch.setattr(relay, "MAX_UNANSWERED", 2)
    async with subscribed(host, "users"):
        first, *_ = [host.send("agent", "users", 60)[0] for _ in range(2)]
        assert "2 calls wait" in host.send("agent", "users", 60)[1].error
        await ask(host, "Reply", component="agent", call=first, body={})
        assert host.send("agent", "users", 60)[1] is None


@pytest.mark.parametrize("last_words", [b"", b"garbage\0", b"half a mess", b'{"method": "x"}\0'])
async def test_x49_a_subscriber_that_hangs_up_or_talks_is_gone(host: Host, last_words: bytes) -> None:
    """Though nothing is sent to it any more, which would find out."""
    async with subscribed(host, "users") as connection:
        connection.writer.write(last_words)
        connection.writer.write_eof()
        assert await connection.ended()
    await until(lambda: bool(host.send("agent", "users")[1].error))


async def test_x49_of_too_many_clients_those_of_the_user_with_most_go(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is another's subscription, and stays."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 8)
    async with subscribed(host, "news", component="other", uid=OTHER) as other:
        host.uid = AGENT
        flood = [await asyncio.open_unix_connection(host.path) for _ in range(50)]
        assert await ask(host, "Publish", component="agent", topic="users", body={}) == OK
        assert not host.send("other", "news")[1].error
        assert (await other.hear())["parameters"]["message"]["topic"] == "news"
        for _, writer in flood:
            writer.close()


async def test_the_client_in_the_readme_works(host: Host, tmp_path: Path) -> None:
    """As it stands there: it says hello, and answers what it is asked."""
    (source,) = (block.text for block in blocks("vsfwd/ipc/README.md") if block.kind == "python")
    assert source.count("\n") <= 32
    script = tmp_path / "hello.py"
    script.write_text(source)
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", script, host.path)
    try:
        await until(lambda: not host.send("hello", "hello")[1].error)
        assert [event.body for event in host.said] == [{"text": "here I am"}]
        id, answer = host.send("hello", "hello", 10, text="who?")
        assert answer is None
        await until(lambda: len(host.said) == 2)
        assert host.said[1] == ComponentAnswer(id, {"you said": {"text": "who?"}})
    finally:
        process.kill()
        await process.wait()
