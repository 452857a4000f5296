"""The database as rows, all of one moment, and rows as a database, of the schema that they are of."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from manager_stub import database
from manager_stub.clock import now_ms
from manager_stub.schema import controllers, hosts
from vsfwd.protocol.control_plane import Controllers

LEFT_OUT: Final = frozenset({"alembic_version", "leaders", "outbox", "enrolment_tokens"})
"""Who leads is found anew, what was to be sent is of an older epoch, and who could enrol may have done so."""
BATCH: Final = 500

Batches = Iterator[tuple[str, list[dict[str, Any]]]]


@contextmanager
def reading(engine: sa.Engine) -> Iterator[tuple[str, Batches, int]]:
    """The schema's revision, the rows by tables, those first that others refer to, and how many there are: of
    one moment, however much is written meanwhile, and nobody who writes waits."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("BEGIN")  # Python's sqlite3 begins none for a SELECT
        lift_limits(connection)
        there = _tables(connection)
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        count = sum(
            connection.execute(sa.select(sa.func.count()).select_from(each)).scalar_one() for each in there
        )
        yield str(revision), _batches(connection, there), count
    engine.dispose()


def check_known(schema: str, release: str) -> None:
    """Raises ValueError."""
    if schema not in (known := database.revisions()):
        raise ValueError(
            f"the backup is of release {release}, with schema {schema}; this release knows those up to "
            f"{known[-1]}: restore with a release that is not older"
        )


def make(connection: sa.Connection, schema: str) -> dict[str, sa.Table]:
    """Tables of that schema, by name, where there are none. Raises FileExistsError."""
    if sa.inspect(connection).get_table_names():
        raise FileExistsError(f"{connection.engine.url}: the database is not empty")
    database.migrate(connection, schema)
    return {each.name: each for each in _tables(connection)}


def count_on(connection: sa.Connection, there: Iterable[sa.Table]) -> None:
    """What PostgreSQL numbers by itself goes on after the rows; SQLite does so anyway."""
    if connection.dialect.name != "postgresql":
        return
    for table in there:
        for column in table.primary_key:
            serial = sa.func.pg_get_serial_sequence(table.name, column.name)
            if connection.execute(sa.select(serial)).scalar_one():
                connection.execute(sa.select(sa.func.setval(serial, sa.func.max(column))))


def begin_epoch(connection: sa.Connection) -> None:
    """Whatever a host was sent since the backup is older than what it is sent now, and that waits until the
    host has said where it stands. So is whichever list of controllers."""
    newer = {"epoch": hosts.c.epoch + 1, "generation": 1, "sent_generation": 0, "sent_digest": ""}
    connection.execute(hosts.update().values(newer))
    kept = connection.execute(sa.select(controllers.c.document)).scalar()
    before = msgspec.json.decode(kept, type=Controllers) if kept else Controllers(0, ())
    after = msgspec.structs.replace(before, generation=max(now_ms(), before.generation + 1))
    put = database.upsert(connection.dialect.name, controllers, ("id",))
    connection.execute(put, [{"id": 1, "document": msgspec.json.encode(after).decode()}])


def lift_limits(connection: sa.Connection) -> None:
    """Of what the manager's one thread may wait for: here nobody waits."""
    if connection.dialect.name == "postgresql":
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")


def _tables(connection: sa.Connection) -> list[sa.Table]:
    found = sa.MetaData()
    found.reflect(connection)
    return [each for each in found.sorted_tables if each.name not in LEFT_OUT]


def _batches(connection: sa.Connection, there: list[sa.Table]) -> Batches:
    for table in there:
        query = sa.select(table).order_by(*table.primary_key)
        found = connection.execute(query, execution_options={"yield_per": BATCH}).mappings()
        for rows in found.partitions():
            # Plain names: SQLAlchemy's know whether they are to be quoted, which no encoder does.
            yield str(table.name), [{str(name): value for name, value in row.items()} for row in rows]
