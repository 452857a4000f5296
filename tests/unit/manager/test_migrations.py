"""Databases of earlier releases: opened by this one with everything that was in them."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import manager_stub
from manager_stub.database import sqlite_file
from manager_stub.enrolment.credentials import Credentials
from manager_stub.store import Store


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
