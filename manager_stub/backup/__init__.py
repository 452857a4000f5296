"""Backup and restore: what an installation cannot go on without, in one file under a passphrase.

In it, as in an NSX backup: the database, the authority's key and the signing key (hosts know the manager by
them), the broker's password. Not in it: what is made anew (certificates of servers), what is this machine's
(manager.toml, the database's URL), and what must not come back (`tables`). The database is written as rows,
so a backup of SQLite can be restored into PostgreSQL and the other way round.

    sealed   the file: its head, frames under the passphrase, a checksum
    tables   the database as rows, at one moment; and rows as a database
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from manager_stub import audit, database
from manager_stub.backup import sealed, tables
from manager_stub.backup.sealed import Head
from manager_stub.clock import now_ms
from manager_stub.schema import changes
from manager_stub.state_dir import StateDir

Progress = Callable[[int, int], object]
"""Called with the rows that are done, and those there are."""


class Secret(msgspec.Struct, tag="file"):
    name: str
    content: bytes


class Rows(msgspec.Struct, tag="rows"):
    table: str
    rows: list[dict[str, Any]]


def write(directory: StateDir, file: Path, passphrase: str, progress: Progress) -> Head:
    """A backup, while the manager serves or not. Raises ValueError, OSError, OperationalError."""
    if file.exists():
        raise FileExistsError(f"{file}: there is such a file already")
    engine = database.engine(directory.database_url())
    with tables.reading(engine) as (schema, there, count):
        head = sealed.head(schema, directory.authority().key_hash, count)

        def records() -> Iterator[bytes]:
            done = 0
            for name, content in directory.secrets().items():
                yield msgspec.json.encode(Secret(name, content))
            for table, rows in there:
                yield msgspec.json.encode(Rows(table, rows))
                done += len(rows)
                progress(done, count)

        sealed.write(file, head, passphrase, records())
    return head


def restore(directory: StateDir, file: Path, passphrase: str, url: str | None, progress: Progress) -> Head:
    """A manager where there is none, as it was at the backup, with an epoch that is newer to every host. All
    of it, or nothing. Raises ValueError, OSError, OperationalError."""
    if url is not None:
        database.parse(url)
    head = sealed.check(file)
    tables.check_known(head.schema, head.release)
    directory.check_nobody_serves()
    directory.check_is_empty()
    staged = directory.staged()
    shutil.rmtree(staged.path, ignore_errors=True)  # of a restore that was interrupted
    staged.path.mkdir(mode=0o700, parents=True)
    try:
        if url is not None:
            staged.save_database_url(url)
        engine = database.engine(staged.made_database_url())
        with engine.begin() as connection:
            tables.lift_limits(connection)
            _load(connection, staged, sealed.records(file, head, passphrase), head, progress)
        engine.dispose()
        directory.adopt(staged)
    finally:
        shutil.rmtree(staged.path, ignore_errors=True)
    return head


def _load(
    connection: sa.Connection, to: StateDir, records: Iterator[bytes], head: Head, progress: Progress
) -> None:
    there, secrets, done = tables.make(connection, head.schema), dict[str, bytes](), 0
    for raw in records:
        record = msgspec.json.decode(raw, type=Secret | Rows)
        if isinstance(record, Secret):
            secrets[record.name] = record.content
        else:
            connection.execute(there[record.table].insert(), record.rows)
            done += len(record.rows)
            progress(done, head.rows)
    to.take(secrets)
    tables.count_on(connection, there.values())
    database.migrate(connection)
    tables.begin_epoch(connection)
    told = {"made_ms": head.made_ms, "release": head.release, "schema": head.schema}
    connection.execute(changes.insert(), audit.change("/vsfw/backup", None, told, now_ms()))
