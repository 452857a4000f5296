"""The context agent: a directory of guests on one side, the bus on the other."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.unit.bus_host import Host, serving, until
from vsfwd.components import context_agent, member
from vsfwd.components.context_agent import Guests, run
from vsfwd.config import Config
from vsfwd.protocol.components import ComponentAnswer

WEB, DB = "bbbbbbbb-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
ALICE = {"name": "alice", "domain": "EXAMPLE", "session": "ssh", "since": 1795390000}


def write(directory: Path, vm: str, text: Any) -> None:
    """Beside it, and renamed."""
    beside = directory / f".{vm}"
    beside.write_text(text if isinstance(text, str) else json.dumps(text))
    beside.rename(directory / f"{vm}.json")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_agent, "LOOK_S", 0.01)
    monkeypatch.setattr(member, "AGAIN_S", 0.01)


@asynccontextmanager
async def agent(host: Host, directory: Path) -> AsyncIterator[None]:
    config = cast(Config, SimpleNamespace(socket=host.path, guests_dir=directory))
    running = asyncio.create_task(run(config))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_changed_is_told_once(tmp_path: Path) -> None:
    """A new guest, a changed one, one that is gone; what is written again as it was is no change."""
    guests = Guests(tmp_path)
    write(tmp_path, WEB, {"os_name": "Debian 12", "users": [ALICE]})
    assert list(guests.changes()) == [("vm", {"vm": WEB, "os_name": "Debian 12", "users": [ALICE]})]
    write(tmp_path, WEB, {"users": [ALICE], "os_name": "Debian 12"})
    assert list(guests.changes()) == []
    write(tmp_path, WEB, {"computer_name": "web01"})
    assert list(guests.changes()) == [("vm", {"vm": WEB, "computer_name": "web01"})]
    (tmp_path / f"{WEB}.json").unlink()
    assert list(guests.changes()) == [("gone", {"vm": WEB})]
    assert list(guests.changes()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"users": "alice"}',
        '{"users": [{"domain": "nameless"}]}',
        '{"os": "Debian"}',
        json.dumps({"os_name": "x" * 256}),
        json.dumps({"os_name": "a\x1b[2J"}),
        json.dumps({"users": [{"name": str(number)} for number in range(129)]}),
        " " * 16 * 1024 + "{}",
        "[" * 16000,
    ],
    ids=lambda text: text[:20],
)
def test_a_bad_file_stops_no_other_and_the_last_good_one_stays(tmp_path: Path, text: str) -> None:
    """Garbage, unknown fields, too many users, what would move a cursor, a file too long: nothing is told of
    that guest, and nothing taken back."""
    guests = Guests(tmp_path)
    write(tmp_path, WEB, {"os_name": "Debian 12"})
    assert len(list(guests.changes())) == 1
    write(tmp_path, WEB, text)
    write(tmp_path, DB, {"os_name": "Debian 13"})
    assert list(guests.changes()) == [("vm", {"vm": DB, "os_name": "Debian 13"})]
    assert guests.known[WEB] == {"vm": WEB, "os_name": "Debian 12"}


def test_other_files_are_nothing_to_it(tmp_path: Path) -> None:
    """Names that are no VM's, and a directory that is not there, which is no fault: that is
    logged, once; what somebody just writes is not."""
    for name in ("web.json", f".{WEB}.json", f"{WEB}.json.new", f"{WEB.upper()}.json"):
        (tmp_path / name).write_text("{}")
    nowhere = tmp_path / "nowhere"
    for directory, reasons in {
        tmp_path: [
            f"{tmp_path}/{WEB.upper()}.json: not the id of a VM",
            f"{tmp_path}/web.json: not the id of a VM",
        ],
        nowhere: [f"{nowhere} does not exist yet"],
    }.items():
        guests = Guests(directory)
        with capture_logs() as logs:
            assert list(guests.changes()) == []
            assert list(guests.changes()) == []
        assert [entry["reason"] for entry in logs] == reasons
        assert {entry["log_level"] for entry in logs} == {"info" if directory == nowhere else "error"}


async def test_it_begins_anew_and_tells_all_it_knows(tmp_path: Path) -> None:
    """What another agent told before it counts no more; changes follow."""
    write(tmp_path, WEB, {"os_name": "Debian 12"})
    async with serving(tmp_path / "vsfwd.sock") as host, agent(host, tmp_path):
        await until(lambda: len(host.said) == 2)
        write(tmp_path, WEB, {"os_name": "Debian 13"})
        await until(lambda: len(host.said) == 3)
        assert host.messages == [
            ("start", {}),
            ("vm", {"vm": WEB, "os_name": "Debian 12"}),
            ("vm", {"vm": WEB, "os_name": "Debian 13"}),
        ]


async def test_it_waits_for_vsfwd_and_for_the_broker(tmp_path: Path) -> None:
    """Nothing is lost while either is away: it is said when they are back."""
    write(tmp_path, WEB, {"os_name": "Debian 12"})
    host = Host(tmp_path / "vsfwd.sock")
    async with agent(host, tmp_path), serving(host.path) as host:
        host.away = True
        await until(lambda: not host.send("context-agent", "vm")[1].error)
        assert host.said == []
        host.away = False
        await until(lambda: len(host.said) == 2)


async def test_that_vsfwd_is_away_is_logged_once(tmp_path: Path) -> None:
    """However often it is tried, and whoever tries."""
    path = tmp_path / "vsfwd.sock"

    def away() -> int:
        return [entry["event"] for entry in logs].count("vsfwd is away")

    with capture_logs() as logs:
        async with agent(Host(path), tmp_path):
            await until(lambda: away() == 1)
            async with serving(path) as host:
                await until(lambda: not host.send("context-agent", "vm")[1].error)
                assert away() == 1


async def test_everything_is_told_again_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What got lost on the way is there again some time."""
    monkeypatch.setattr(context_agent, "REPEAT_S", 0.05)
    write(tmp_path, WEB, {"os_name": "Debian 12"})
    async with serving(tmp_path / "vsfwd.sock") as host, agent(host, tmp_path):
        await until(lambda: len(host.said) >= 4)
        assert host.messages[1:4] == [("vm", {"vm": WEB, "os_name": "Debian 12"})] * 3


async def test_the_manager_asks_it(tmp_path: Path) -> None:
    """Which guests, or one of them; of one it does not know it says so."""
    write(tmp_path, WEB, {"users": [ALICE]})
    async with serving(tmp_path / "vsfwd.sock") as host, agent(host, tmp_path):
        await until(lambda: len(host.said) == 2)
        await until(lambda: not host.send("context-agent", "vm")[1].error)
        asked = [host.send("context-agent", "vm", 10, **body)[0] for body in ({}, {"vm": WEB}, {"vm": DB})]
        await until(lambda: len(host.said) == 5)
        assert host.said[2:] == [
            ComponentAnswer(asked[0], {"vms": [WEB], "count": 1}),
            ComponentAnswer(asked[1], {"vm": WEB, "users": [ALICE]}),
            ComponentAnswer(asked[2], error=f"vm: nothing is known of {DB!r}"),
        ]


def test_it_has_an_end_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that somebody fills costs what a full one does."""
    monkeypatch.setattr(context_agent, "MAX_FILES", 2)
    for _ in range(5):
        write(tmp_path, str(uuid4()), {"os_name": "x"})
    assert len(list(Guests(tmp_path).changes())) == 2
