"""`vsfwctl bus`: a component at the shell, over the real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from tests.unit.bus_host import Host, serving, until
from vsfwd.ctl import main
from vsfwd.protocol.components import ComponentAnswer, ComponentMessage


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    with capture_logs():  # vsfwd's, which would come between what vsfwctl prints
        async with serving(tmp_path / "vsfwd.sock") as host:
            yield host


def bus(host: Host, *arguments: str) -> "asyncio.Task[Result]":
    argv = ["--socket", str(host.path), "bus", *arguments]
    return asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, argv))


async def test_publish_ends_when_the_broker_has_it(host: Host) -> None:
    """0 and not a word."""
    done = await bus(host, "publish", "--as", "agent", "users", '{"n": 1}')
    assert (done.exit_code, done.output) == (0, "")
    (said,) = host.said
    assert isinstance(said, ComponentMessage)
    assert (said.component, said.topic, said.body) == ("agent", "users", {"n": 1})


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], 'field  value\nn      1\ntext   "a\\u001b"'),
        (["--json"], json.dumps({"n": 1, "text": "a\x1b"}, indent=2)),
    ],
    ids=["table", "json"],
)
async def test_call_prints_the_answer(host: Host, options: list[str], shown: str) -> None:
    """For people, with nothing that moves the cursor, or for scripts."""
    calling = bus(host, "call", *options, "--as", "agent", "users")
    await until(lambda: len(host.said) == 1)
    host.relay.answered(ComponentAnswer(host.said[0].id, {"n": 1, "text": "a\x1b"}))
    done = await calling
    assert done.exit_code == 0
    assert [line.rstrip() for line in done.output.splitlines()] == shown.splitlines()


async def test_subscribe_prints_what_comes_and_answers_calls(host: Host) -> None:
    """A line each; after as many as were asked for it ends."""
    listening = bus(host, "subscribe", "--as", "agent", "--count", "2", "--reply", '{"ok": true}', "users")
    await until(lambda: not host.send("agent", "users", n=1)[1].error)
    id, _ = host.send("agent", "users", 10, n=2)
    done = await listening
    assert (done.exit_code, done.stdout) == (0, 'users  {"n": 1}\nusers  {"n": 2}  (call)\n')
    assert host.said == [ComponentAnswer(id, {"ok": True})]


async def test_subscribe_speaks_json_too(host: Host) -> None:
    """One object a line."""
    listening = bus(host, "subscribe", "--json", "--as", "agent", "--count", "1", "users")
    await until(lambda: not host.send("agent", "users", n=1)[1].error)
    line = json.loads((await listening).stdout)
    assert line == {"topic": "users", "body": {"n": 1}, "call": None}


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["publish", "--as", "nobody", "users"], 1, "component 'nobody' is not in vsfwd's configuration"),
        (["publish", "--as", "agent", "news"], 1, "topic 'news' is none of those"),
        (["call", "--as", "agent", "--timeout", "1", "users"], 3, "did not answer within 1 s"),
        (["publish", "--as", "agent", "users", "{"], 2, "not JSON"),
        (["publish", "--as", "agent", "users", "[]"], 2, "not a JSON object"),
        (
            ["publish", "--as", "agent", "users", '{"x": "' + "x" * 20_000 + '"}'],
            2,
            "over the limit of 16384",
        ),
        (["publish", "--as", "Agent", "users"], 2, "--as"),
        (["subscribe", "--as", "agent", "Users"], 2, "topic: 'Users' is not words of small letters"),
        (["publish", "users"], 2, "--as"),
        (["subscribe", "--as", "agent"], 2, "TOPICS"),
    ],
)
async def test_the_exit_status_says_what_is_wrong(
    host: Host, arguments: list[str], status: int, why: str
) -> None:
    """1 refused, 2 wrong usage, 3 nobody answers; and the reason is in the words."""
    done = await bus(host, *arguments)
    assert done.exit_code == status
    assert why in done.stderr


async def test_without_a_broker_it_says_so(host: Host) -> None:
    """3, and the reason that vsfwd has."""
    host.away = True
    done = await bus(host, "publish", "--as", "agent", "users")
    assert (done.exit_code, done.stderr) == (3, "vsfwctl: no broker\n")
