"""Databases of earlier releases: opened by this one with everything that was in them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import manager_stub
from manager_stub import audit
from manager_stub.database import sqlite_file
from manager_stub.enrolment.credentials import Credentials
from manager_stub.schema import component_messages
from manager_stub.store import Store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def dialect(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


def old_database(url: sa.URL, revision: str) -> sa.Engine:
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(manager_stub.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_who_could_do_everything_still_can(tmp_path: Path) -> None:
    """Before there were roles there was an admin; the password stays."""
    engine = old_database(sqlite_file(tmp_path / "manager.db"), "0002")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO users VALUES ('admin', 'hash')"))
        connection.execute(sa.text("INSERT INTO numbers VALUES ('rules', 1007)"))
    engine.dispose()
    store = Store(sqlite_file(tmp_path / "manager.db"))
    assert store.users() == [{"name": "admin", "password_hash": "hash", "role": "enterprise_admin"}]
    assert store.numbers() == {"rules": 1007}


def test_x33_leases_of_unknown_servers_stay(tmp_path: Path) -> None:
    """Before servers were told, nobody knew them; the addresses are known still."""
    engine = old_database(sqlite_file(tmp_path / "manager.db"), "0005")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO claims VALUES ('v', '10.0.0.1', 'dhcp', 9, 'h', 5, true)"))
    engine.dispose()
    (claim,) = Store(sqlite_file(tmp_path / "manager.db")).claims()
    assert (claim["address"], claim["expires"], claim["approved"], claim["server"]) == (
        "10.0.0.1",
        9,
        True,
        "",
    )


def test_hosts_of_before_keep_their_login(tmp_path: Path) -> None:
    """Before there were tokens nobody kept certificates: a login is the id, and no key is known."""
    engine = old_database(sqlite_file(tmp_path / "manager.db"), "0008")
    with engine.begin() as connection:
        values = "'h', 'old', 1, 1, '', 0, '', 0, 0, '', '[]', '[]', '', 0, '[]'"
        connection.execute(sa.text(f"INSERT INTO hosts VALUES ({values})"))
    engine.dispose()
    store = Store(sqlite_file(tmp_path / "manager.db"))
    assert [host.display_name for host in store.hosts()] == ["old"]
    credentials = Credentials(store)
    assert credentials.logins("h") == ("h",)
    assert credentials.public_key("h") is None


def test_ids_go_on_beyond_what_they_were(
    give_database: Callable[[Path], sa.URL], dialect: str, tmp_path: Path
) -> None:
    """Hosts cause a line in the audit log each time they tell something new: 2^31 of them are used up one
    day. The lines of before stay, the next ones follow, and what names a line can name these."""
    url, last = give_database(tmp_path), 2**31 - 1
    engine = old_database(url, "0013")
    with engine.begin() as connection:
        values = "'h', 'old', 1, 1, '', 0, '', 0, 0, '', '[]', '[]', '', 0, '[]'"
        connection.execute(sa.text(f"INSERT INTO hosts VALUES ({values})"))
        connection.execute(sa.text(f"INSERT INTO changes VALUES ({last}, 1, 'u', '/p', NULL, NULL)"))
        said = f"{last}, 'h', 'c', 't', 'm', 1, '{{}}'"
        connection.execute(sa.text(f"INSERT INTO component_messages VALUES ({said})"))
        if dialect == "postgresql":
            for table in ("changes", "component_messages"):
                connection.execute(sa.text(f"SELECT setval('{table}_id_seq', {last})"))
    engine.dispose()
    store = Store(url)
    with store.begin() as transaction:
        transaction.add_changes([audit.change("/p", None, {"a": 1}, 2)])
        transaction.add_configuration(audit.configuration("", 2, automatic=False))
        assert transaction.open_window("u", 3)["change"] == last + 1
        row = {"host": "h", "component": "c", "topic": "t", "message": "n", "time_ms": 2, "body": "{}"}
        transaction._connection.execute(component_messages.insert(), row)
    assert [row["id"] for row in store.changes(before=2**53, limit=9)] == [last + 1, last]
    assert [row["change"] for row in store.configurations()] == [last + 1]
    assert [row["id"] for row in store.said("c", before=2**53, limit=9)] == [last + 1, last]
    store.close()
