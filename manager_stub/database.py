"""The database under the store: SQLite in WAL mode in the state directory, or PostgreSQL by URL, both with
the same tables, brought to the current schema by alembic."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite

_SCHEME: Final = "postgresql"
_DRIVER: Final = "postgresql+psycopg"
_TIMEOUT_S: Final = 10
"""That a server may take to accept a connection, to acknowledge what was sent, and for one statement: the
manager's one thread waits so long for it."""
_MIGRATING: Final = 0x76736677
"""Key of the advisory lock of whoever brings the schema up to date: "vsfw"."""


def parse(url: str) -> sa.URL:
    """Of a PostgreSQL database. Raises ValueError, which never has the URL's password."""
    try:
        parsed = sa.make_url(url.strip())
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("the database: not a URL") from None
    if parsed.drivername != _SCHEME or not parsed.database:
        raise ValueError(f"the database: {parsed} is not {_SCHEME}://USER:PASSWORD@HOST/DATABASE")
    return parsed.set(drivername=_DRIVER)


def sqlite_file(path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(path))


def engine(url: sa.URL, timeout_s: int = _TIMEOUT_S) -> sa.Engine:
    if url.drivername == _DRIVER:
        # libpq's names. A server that is not heard any more is given up, by the kernel for what waits for an
        # acknowledgement and by its probes for what waits for an answer (tcp(7), TCP_USER_TIMEOUT).
        # A client that stops in the middle of a transaction does not hold its locks for ever either.
        limits = ("statement_timeout", "idle_in_transaction_session_timeout")
        settings = {
            "connect_timeout": timeout_s,
            "tcp_user_timeout": 1000 * timeout_s,
            "keepalives_idle": 2,
            "keepalives_interval": 2,
            "options": " ".join(f"-c {name}={timeout_s}s" for name in limits),
        }
        return sa.create_engine(url, connect_args=settings)
    made = sa.create_engine(url)
    sa.event.listen(made, "connect", _configure_sqlite)
    return made


@cache
def upsert(dialect: str, table: sa.Table, key: tuple[str, ...]) -> "postgresql.Insert | sqlite.Insert":
    """Puts rows, or changes those with these keys. Made once for each table: making it takes longer than
    carrying it out."""
    statement = postgresql.insert(table) if dialect == _SCHEME else sqlite.insert(table)
    update = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=update)


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Bring the schema to that of this release, or to an earlier one's. Of two at once the second finds it
    done."""
    if connection.dialect.name == _SCHEME:
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def revisions() -> list[str]:
    """Of the schema, that this release knows; its own is the last."""
    known = ScriptDirectory.from_config(_alembic()).walk_revisions()
    return [each.revision for each in known][::-1]


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # FULL: a change that was answered with 200 survives a power cut. PostgreSQL does so by default.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
