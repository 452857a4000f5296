"""Backups of the manager: from either database into either, all of it or nothing."""

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from manager_stub import audit, backup, database
from manager_stub.__main__ import main
from manager_stub.backup import sealed
from manager_stub.clock import now_ms
from manager_stub.schema import metadata
from manager_stub.state_dir import SECRETS, StateDir
from manager_stub.transaction import HostRow
from tests.harness.documents import by_shell, commands
from tests.harness.manager import COMMAND, alone, command
from tests.harness.postgres import Postgres
from vsfwd.protocol.control_plane import Controller, Controllers

PASSPHRASE = "correct horse battery"
HOST = "11111111-0000-4000-8000-00000000000a"
SQLITE, POSTGRES = "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)


@pytest.fixture
def url_of(request: pytest.FixtureRequest) -> Callable[[str], str | None]:
    """Of an empty database of that dialect; none where it is the directory's."""

    def url(dialect: str) -> str | None:
        if dialect == "sqlite":
            return None
        server: Postgres = request.getfixturevalue("postgres")
        return server.make_database()

    return url


def made(path: Path, url: str | None = None) -> StateDir:
    """A manager with a host that has applied what it was sent, and an object that is changed once."""
    directory = StateDir(alone(path))
    directory.create(url or "")
    store = directory.open_store()
    with store.begin() as transaction:
        transaction.put_hosts([host_row()])
        transaction.add_changes([audit.change("/infra/x", None, {"display_name": "ü"}, 1)])
    store.close()
    return directory


def host_row() -> HostRow:
    return HostRow(HOST, "node-1", 3, 17, "d", 17, "d", 3, 17, "d", "[]", "[]", "0.1.0", 5, "[]")


def kept(directory: StateDir) -> dict[str, list[Any]]:
    """What is in the tables that a backup has, but for what a restore changes."""
    engine = database.engine(directory.database_url())
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
            for name, table in metadata.tables.items()
            if name not in ("hosts", "leaders", "outbox", "enrolment_tokens", "controllers")
        }
    engine.dispose()
    found["changes"] = [row for row in found["changes"] if row[3] != "/vsfw/backup"]
    return found


def run(directory: StateDir, *argv: object, said: str = PASSPHRASE) -> Result:
    """By the command, with the passphrase on standard input."""
    arguments = command(directory.config, *map(str, argv), "--passphrase-file", "-")
    return CliRunner().invoke(main, arguments[len(COMMAND) :], input=f"{said}\n")


def no_matter(done: int, of: int) -> None:
    """Progress."""


@pytest.mark.parametrize("to", [SQLITE, POSTGRES])
@pytest.mark.parametrize("of", [SQLITE, POSTGRES])
def test_everything_comes_back_with_an_epoch_that_is_newer(
    tmp_path: Path, url_of: Callable[[str], str | None], of: str, to: str
) -> None:
    """Rows, keys, passwords; ids go on after those there were; certificates are of the same authority."""
    there = made(tmp_path / "a", url_of(of))
    head = backup.write(there, tmp_path / "file", PASSPHRASE, no_matter)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    again = StateDir(alone(tmp_path / "b"))
    assert backup.restore(again, tmp_path / "file", PASSPHRASE, url_of(to), no_matter) == head
    assert kept(again) == kept(there)
    assert again.secrets() == there.secrets()
    assert {file.name for file in again.path.iterdir()} - {"database-url", "manager.db"} == {
        *SECRETS,
        *(f"{name}.{part}" for name in ("server", "broker", "amqp") for part in ("crt", "key")),
    }
    store = again.open_store()
    (host,) = store.hosts()
    assert (host.epoch, host.generation, host.sent_generation) == (4, 1, 0)
    assert (host.applied_epoch, host.applied_generation) == (3, 17)
    with store.begin() as transaction:
        transaction.add_changes([audit.change("/infra/y", None, {"n": 1}, 2)])
    newest, restored = store.changes(before=1000, limit=2)
    assert (newest["path"], restored["path"], restored["user"]) == ("/infra/y", "/vsfw/backup", "system")
    store.close()


@pytest.mark.parametrize("to", [SQLITE, POSTGRES])
@pytest.mark.parametrize("listed", [(), (Controller("one", "192.0.2.1"),)], ids=["none", "one"])
def test_the_list_of_controllers_is_newer_than_any_since_the_backup(
    tmp_path: Path, url_of: Callable[[str], str | None], to: str, listed: tuple[Controller, ...]
) -> None:
    """Agents refuse an older one, and would keep what was entered since, whatever they are sent."""
    there = made(tmp_path / "a")
    store = there.open_store()
    with store.begin() as transaction:
        if listed:
            transaction.put_controllers(msgspec.json.encode(Controllers(1, listed)).decode())
    backup.write(there, tmp_path / "file", PASSPHRASE, no_matter)
    since = now_ms()
    again = StateDir(alone(tmp_path / "b"))
    backup.restore(again, tmp_path / "file", PASSPHRASE, url_of(to), no_matter)
    restored = again.open_store()
    found = msgspec.json.decode(restored.controllers() or "", type=Controllers)
    assert (found.controllers, found.generation >= since) == (listed, True)
    for each in (store, restored):
        each.close()


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES])
def test_a_backup_is_of_one_moment(tmp_path: Path, url_of: Callable[[str], str | None], dialect: str) -> None:
    """Somebody writes after it has begun, and waits for nobody: nothing of that is in it."""
    there = made(tmp_path / "a", url_of(dialect))
    store = there.open_store()
    with store.begin() as transaction:
        transaction.add_changes([audit.change(f"/infra/{n}", None, {"n": 1}, n) for n in range(2000)])
    before = kept(there)

    def write_meanwhile(done: int, of: int) -> None:
        with store.begin() as transaction:
            transaction.add_changes([audit.change("/infra/late", None, {"n": 1}, done)])
            transaction.put_user(f"late{done}", "hash", "auditor")

    backup.write(there, tmp_path / "file", PASSPHRASE, write_meanwhile)
    store.close()
    assert kept(there) != before
    again = StateDir(alone(tmp_path / "b"))
    backup.restore(again, tmp_path / "file", PASSPHRASE, None, no_matter)
    assert kept(again) == before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    backup.write(made(tmp_path / "a"), tmp_path / "file", PASSPHRASE, no_matter)
    return tmp_path / "file"


def refused(file: Path, passphrase: str = PASSPHRASE) -> str:
    """Why it is; nothing is there afterwards."""
    to = file.with_name("b")
    with pytest.raises(ValueError, match=r"\w") as error:
        backup.restore(StateDir(alone(to)), file, passphrase, None, no_matter)
    assert [each.name for each in file.parent.iterdir() if each.name.startswith("b")] == []
    return str(error.value)


def test_a_file_that_is_spoilt_is_refused_wherever(file: Path) -> None:
    """Cut off, or with one bit that is another: before the passphrase is asked for anything."""
    whole = file.read_bytes()
    for length in (0, 5, 20, 200, len(whole) - 33, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert str(file) in refused(file), length
    for at in (3, 40, 400, len(whole) - 40, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert str(file) in refused(file), at


def test_a_wrong_passphrase_is_told_from_a_spoilt_file(file: Path) -> None:
    """And a short one makes no backup at all."""
    assert refused(file, "another passphrase") == f"{file}: another passphrase than that of the backup"
    with pytest.raises(ValueError, match="12 characters"):
        backup.write(StateDir(alone(file.with_name("a"))), file.with_name("c"), "short", no_matter)
    assert not file.with_name("c").exists()


def test_who_has_not_the_passphrase_changes_nothing_in_it(file: Path) -> None:
    """Not the head, and no frame is left out, though the checksum fits."""
    whole = file.read_bytes()[:-32]
    magic, head, frames = whole.split(b"\n", 2)
    other = msgspec.json.encode(msgspec.structs.replace(sealed.check(file), rows=1))
    for forged in (b"\n".join((magic, other, frames)), b"\n".join((magic, head, frames[:50]))):
        file.write_bytes(forged + hashlib.sha256(forged).digest())
        assert "another passphrase" in refused(file)


def test_it_has_no_secret_in_the_clear(file: Path) -> None:
    """Of what could be recognised: PEM, and names in the tables."""
    for secret in (b"PRIVATE KEY", b"argon2", b"node-1", PASSPHRASE.encode()):
        assert secret not in file.read_bytes()


def test_a_newer_schema_is_refused_and_an_older_one_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """By name; of 0010 there are neither leaders nor moves, and what there was is there."""
    monkeypatch.setattr(database, "revisions", lambda: ["0001"])
    assert "this release knows those up to 0001" in refused(file)
    monkeypatch.undo()
    old = StateDir(alone(tmp_path / "old"))
    old.create()
    (old.path / "manager.db").unlink()
    engine = sa.create_engine(old.database_url())
    with engine.begin() as connection:
        database.migrate(connection, "0010")
        connection.exec_driver_sql("INSERT INTO users VALUES ('root', 'hash', 'auditor')")
    assert backup.write(old, tmp_path / "of-old", PASSPHRASE, no_matter).schema == "0010"
    new = StateDir(alone(tmp_path / "new"))
    backup.restore(new, tmp_path / "of-old", PASSPHRASE, None, no_matter)
    store = new.open_store()
    assert [user["name"] for user in store.users()] == ["root"]
    assert store.moves() == []
    store.close()


def test_nothing_is_written_over(file: Path, tmp_path: Path) -> None:
    """Not a file, not a manager, not a database that somebody has."""
    there = StateDir(alone(tmp_path / "a"))
    before = kept(there)
    assert run(there, "backup", file).output == f"Error: {file}: there is such a file already\n"
    said = run(there, "restore", file)
    assert (said.exit_code, said.output.partition(";")[0]) == (
        1,
        f"Error: {there.path}: there is a manager here already",
    )
    assert kept(there) == before


def test_a_directory_that_is_not_empty_stays_as_it_is(file: Path, tmp_path: Path) -> None:
    """Of no manager, too: that is found before anything is in a database, where it would stay."""
    to = StateDir(alone(tmp_path / "b"))
    to.path.mkdir()
    (to.path / "notes").touch()
    (tmp_path / "url").write_text("postgresql://nobody@127.0.0.1:1/none")
    said = run(to, "restore", file, "--database", tmp_path / "url")
    why = "the directory is not empty; put aside what is in it"
    assert (said.exit_code, said.output) == (1, f"Error: {to.path}: {why}\n")
    assert [*to.path.iterdir()] == [to.path / "notes"]


@pytest.mark.slow
def test_a_database_that_is_not_empty_stays_as_it_is(file: Path, tmp_path: Path, postgres: Postgres) -> None:
    """Whosever it is; the directory is not made either."""
    url = postgres.make_database()
    other = made(tmp_path / "other", url)
    before = kept(other)
    to = StateDir(alone(tmp_path / "b"))
    (tmp_path / "url").write_text(url)
    said = run(to, "restore", file, "--database", tmp_path / "url")
    assert (said.exit_code, "the database is not empty" in said.output) == (1, True), said.output
    assert url.partition("@")[0] not in said.output
    assert (kept(other), to.path.exists()) == (before, False)


def test_there_is_no_restore_beside_a_manager_that_serves(file: Path, tmp_path: Path) -> None:
    """Though its directory was put aside."""
    with socket.create_server(("127.0.0.1", 0)) as serving:
        port = serving.getsockname()[1]
        to = StateDir(alone(tmp_path / "b", port))
        said = run(to, "restore", file)
    assert (said.exit_code, said.output) == (
        1,
        f"Error: the manager serves at 127.0.0.1:{port}: end it first\n",
    )


def test_both_commands_say_what_is_in_the_file(tmp_path: Path) -> None:
    """The same, as JSON; where a backup cannot be written, in a line why."""
    there, to = made(tmp_path / "a"), StateDir(alone(tmp_path / "b"))
    told = json.loads(run(there, "backup", tmp_path / "f").stdout)
    assert told == json.loads(run(to, "restore", tmp_path / "f").stdout)
    assert (told["schema"], told["ca_hash"]) == (database.revisions()[-1], to.authority().key_hash)
    said = run(there, "backup", tmp_path / "no" / "f")
    assert (said.exit_code, said.output.count("\n")) == (1, 1), said.output
    assert run(there, "restore", tmp_path / "none").exit_code == 1
    empty = run(there, "backup", tmp_path / "g", said="")
    assert empty.output == "Error: the passphrase has less than 12 characters\n"


def test_a_restore_that_was_interrupted_is_begun_again(file: Path, tmp_path: Path) -> None:
    """What it left behind is no manager."""
    to = StateDir(alone(tmp_path / "b"))
    to.staged().path.mkdir()
    (to.staged().path / "ca.key").write_text("half")
    backup.restore(to, file, PASSPHRASE, None, no_matter)
    assert kept(to) == kept(StateDir(alone(tmp_path / "a")))
    assert not to.staged().path.exists()


def test_the_shown_commands_do_what_is_said_of_them(tmp_path: Path) -> None:
    """By a shell, in directories of this test: a backup, the manager put aside, the manager restored. Its
    services have a part in `test_installation.py`."""
    shown = "\n".join(commands("manager_stub/OPERATE.md", "Backup and restore")).splitlines()
    of_services = ("systemctl ", "install -o rabbitmq ")
    script = "\n".join(line for line in shown if not line.startswith(of_services))
    script = script.replace("/DAY ", "/$(date +%F) ")
    assert "vsfw-manager backup" in script
    assert "vsfw-manager restore" in script
    there = made(tmp_path / "var/lib/vsfw-manager")
    before = kept(there)
    (tmp_path / "root").mkdir()
    for path in ("/root/", "/var/lib/", "/var/backups/"):
        script = script.replace(f" {path}", f" {tmp_path}{path}")
    done = by_shell(script, {"vsfw-manager": command(there.config)})
    assert (done.returncode, done.stderr) == (0, "")
    assert kept(there) == before
    assert (tmp_path / "var/lib/vsfw-manager.old").exists()
