"""A PostgreSQL database by URL: where the URL comes from, where it is kept, what is refused."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manager_stub.__main__ import main
from manager_stub.state_dir import StateDir
from tests.harness.manager import COMMAND, alone, command
from tests.harness.postgres import Postgres
from tests.unit.manager.rest import DOMAIN, Manager


def init(state: Path, database: str) -> Result:
    """With the URL on standard input."""
    argv = command(alone(state), "init", "--database", "-")
    return CliRunner().invoke(main, argv[len(COMMAND) :], input=database)


@pytest.mark.slow
async def test_a_manager_keeps_everything_in_the_database_of_its_url(
    postgres: Postgres, tmp_path: Path
) -> None:
    """The URL has a password and is the owner's alone to read; a restart finds there what was written."""
    made = init(tmp_path / "state", f"{postgres.make_database()}\n")
    assert made.exit_code == 0, made.output
    directory = StateDir(alone(tmp_path / "state"))
    assert stat.S_IMODE((directory.path / "database-url").stat().st_mode) == 0o600
    assert not (directory.path / "manager.db").exists()
    for number in range(2):
        manager = Manager(directory, json.loads(made.stdout)["password"])
        await manager.call("PATCH", f"{DOMAIN}/groups/web", {"description": f"kept {number}"})
        group = await manager.call("GET", f"{DOMAIN}/groups/web")
        await manager.close()
    assert group["_revision"] == 1


@pytest.mark.slow
def test_a_database_of_another_manager_is_refused(postgres: Postgres, tmp_path: Path) -> None:
    """Its admin keeps the password, and the directory can be tried again with another database."""
    taken = postgres.make_database()
    assert init(tmp_path / "first", taken).exit_code == 0
    second = init(tmp_path / "second", taken)
    assert second.exit_code == 1
    assert "the database is a manager's already" in second.output
    assert postgres.password not in second.output
    assert init(tmp_path / "second", postgres.make_database()).exit_code == 0


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql://u:secret@h", "u:secret@h", "//"])
def test_what_is_no_url_of_postgresql_is_refused(tmp_path: Path, url: str) -> None:
    """Nothing is made, and the message has no password."""
    refused = init(tmp_path / "state", url)
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: the database: ")
    assert "secret" not in refused.output
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    refused = init(tmp_path / "state", f"postgresql://u:secret@/d?host={tmp_path}")
    assert refused.exit_code == 1
    assert str(tmp_path) in refused.output
    assert "secret" not in refused.output
