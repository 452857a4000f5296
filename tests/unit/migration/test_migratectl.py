"""`vsfwctl migrate`: the steps of a move at the shell, over the real socket."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from tests.harness.documents import ROOT, by_shell, commands
from vsfwd.ctl import main
from vsfwd.ipc.server import Client, IpcServer
from vsfwd.migration.answers import Migration
from vsfwd.migration.move import MoveStatus
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import Move, MoveAborted, MoveDone, MoveOffer, Step

ID, VM, VNIC = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
OFFER = MoveOffer(ID, VM, "a", "b", b"key of a", b"key of b", (Binding(VNIC, VM, "", "tap0"),), 1, 9)
WHOLE = os.urandom(100_000)


class Moves:
    """What vsfwd does of it, in words; `refuse` is why it does not."""

    host = "a"

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.said: list[Move] = []
        self.refuse = ""
        self.by_manager = ""

    def _do(self, *what: Any) -> None:
        if self.refuse:
            raise Refused(self.refuse)
        self.done.append(what)

    async def prepare(self, offer: MoveOffer, *, hooked: bool) -> None:
        self._do("prepare", offer, hooked)

    async def freeze(self, vm: str) -> MoveDone:
        self._do("freeze", vm)
        return MoveDone(ID, vm, Step.FREEZE)

    def follow_up(self, frozen: MoveDone) -> None:
        self.said.append(frozen)

    async def export_whole(self, vm: str) -> bytes:
        self._do("export", vm)
        return WHOLE

    async def take_whole(self, vm: str, whole: bytes) -> MoveDone:
        self._do("import", vm, whole)
        return MoveDone(ID, vm, Step.IMPORT, 3, 10_000, True)

    async def activate(self, vm: str) -> MoveDone:
        self._do("activate", vm)
        return MoveDone(ID, vm, Step.ACTIVATE)

    async def finish(self, vm: str) -> None:
        self._do("finish", vm)

    async def abort(self, vm: str) -> None:
        self._do("abort", vm)

    def of_manager(self, vm: str) -> str:
        return self.by_manager

    def key(self) -> bytes:
        return b"key of a"

    def status(self) -> list[MoveStatus]:
        return [MoveStatus(ID, VM, "source", "freeze", 2, 10_000, {VNIC: "frozen"}, 7)]

    async def say(self, said: Move) -> None:
        self.said.append(said)


class Host:
    def __init__(self, path: Path) -> None:
        self.path, self.moves, self.uid = path, Moves(), 0

    def interfaces(self, client: Client) -> tuple[Migration]:
        return (Migration(self.uid, self.moves),)  # type: ignore[arg-type]

    async def __call__(self, *arguments: str, given: bytes = b"") -> Result:
        argv = ["--socket", str(self.path), "migrate", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, main, argv, input=given)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    with capture_logs():
        host = Host(tmp_path / "vsfwd.sock")
        task = asyncio.create_task(IpcServer(host.path, "1.0", host.interfaces).serve())
        yield host
        task.cancel()


async def test_an_offer_is_read_from_a_file(host: Host, tmp_path: Path) -> None:
    """As JSON, with keys in base64; the manager does not hear of it."""
    (tmp_path / "offer.json").write_bytes(msgspec.json.encode(OFFER))
    assert (await host("prepare", str(tmp_path / "offer.json"))).exit_code == 0
    assert host.moves.done == [("prepare", OFFER, True)]
    spoilt = json.loads(msgspec.json.encode(OFFER)) | {"vnics": []}
    result = await host("prepare", "-", given=json.dumps(spoilt).encode())
    assert (result.exit_code, "vnics" in result.stderr) == (1, True)
    assert (await host("prepare", "-", given=b"junk")).exit_code == 2


async def test_what_is_exported_can_be_imported(host: Host) -> None:
    """Through a pipe, whole, however many messages that takes."""
    exported = await host("export", VM)
    assert exported.stdout_bytes == WHOLE
    imported = await host("import", VM, given=exported.stdout_bytes)
    assert imported.stdout == "round 3, the last one: 10000 flows are here\n"
    assert host.moves.done[-1] == ("import", VM, WHOLE)


@pytest.mark.slow
async def test_the_shown_commands_are_the_steps_of_a_move(host: Host, tmp_path: Path) -> None:
    """For a hook that the manager helps, and for one that does it all; here both hosts are one."""
    (tmp_path / "offer.json").write_bytes(msgspec.json.encode(OFFER))
    programs = {"vsfwctl": [sys.executable, "-m", "vsfwd.ctl", "--socket", str(host.path)]}
    done: list[list[str]] = []
    for script in commands("vsfwd/migration/README.md", "Live migration: io.vsfwd.Migration"):
        here = script.replace("ssh TARGET ", "").replace(" VM", f" {VM}")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = await asyncio.to_thread(by_shell, here, programs, cwd=tmp_path, env=environment)
        assert (ran.returncode, ran.stderr) == (0, ""), script
        done.append([step for step, *_ in host.moves.done])
        host.moves.done.clear()
    round = ["export", "import"]
    assert done == [["freeze"], ["prepare", *round, "freeze", *round, "finish"]]


async def test_states_of_two_vms_that_come_at_once_are_kept_apart() -> None:
    """A hook may import both on one connection, part by part."""
    moves, other = Moves(), VM[:-1] + "9"
    answers = Migration(0, moves)  # type: ignore[arg-type]
    for vm, part, more in ((VM, b"on", True), (other, b"tw", True), (VM, b"e", False), (other, b"o", False)):
        await answers.Import(vm=vm, part=base64.b64encode(part).decode(), more=more)
    assert moves.done == [("import", VM, b"one"), ("import", other, b"two")]


async def test_a_freeze_of_the_managers_move_is_followed_up(host: Host) -> None:
    """A hook says one word, the rest goes by itself; of a move of its own it says the others too."""
    await host("freeze", VM)
    assert host.moves.said == []
    host.moves.by_manager = ID
    await host("freeze", VM)
    assert host.moves.said == [MoveDone(ID, VM, Step.FREEZE)]


async def test_the_manager_hears_what_a_hook_does_to_its_move(host: Host) -> None:
    """That the VM runs, or does not move."""
    host.moves.by_manager = ID
    for step in ("activate", "abort"):
        assert (await host(step, VM)).exit_code == 0
    activated, aborted = host.moves.said
    assert activated == MoveDone(ID, VM, Step.ACTIVATE)
    assert isinstance(aborted, MoveAborted)


@pytest.mark.parametrize("step", ["freeze", "export", "import", "activate", "finish", "abort"])
async def test_what_is_refused_says_why(host: Host, step: str) -> None:
    """Exit status 1."""
    host.moves.refuse = f"vm: {VM} is not about to leave this host"
    result = await host(step, VM, given=b"state")
    assert (result.exit_code, result.stderr) == (1, f"vsfwctl: {host.moves.refuse}\n")
    host.moves.refuse = ""
    assert (await host(step, VM, given=b"state")).exit_code == 0


@pytest.mark.parametrize("step", ["freeze", "export", "import", "activate", "finish", "abort", "status"])
async def test_only_root_moves_vms(host: Host, step: str) -> None:
    """Whoever may connect beside."""
    host.uid = 1000
    result = await host(step, *([] if step == "status" else [VM]))
    assert (result.exit_code, "only root" in result.stderr) == (1, True)
    assert host.moves.done == []


async def test_status_says_what_an_offer_needs(host: Host) -> None:
    """Id and key of the host, and the moves it takes part in."""
    found = json.loads((await host("status", "--json")).stdout)
    assert base64.b64decode(found["key"]) == b"key of a"
    assert (found["host_id"], found["migrations"][0]["held"]) == ("a", {VNIC: "frozen"})
    shown = (await host("status")).stdout
    assert "frozen" in shown
    assert VM in shown


async def test_a_state_without_end_is_cut_off(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fill the memory of the daemon."""
    monkeypatch.setattr("vsfwd.migration.answers.MAX_PARTS", 0)
    result = await host("import", VM, given=WHOLE)
    assert (result.exit_code, "more than 0 bytes" in result.stderr) == (1, True)
