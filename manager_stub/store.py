"""What the manager keeps, in the tables of a database (`database`) of the current schema.

Objects are JSON documents by path; what queries and the bus need stands in columns. Everything is read
once, at start: afterwards the register holds it in memory and the database is what survives. One writer,
the thread of the event loop.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from manager_stub import database
from manager_stub.lead import Lead, Lost
from manager_stub.schema import (
    changes,
    claims,
    component_messages,
    configurations,
    controllers,
    credentials,
    drafts,
    enrolment_tokens,
    guests,
    host_statistics,
    hosts,
    moves,
    numbers,
    objects,
    outbox,
    rule_statistics,
    tenures,
    tokens,
    users,
    windows,
)
from manager_stub.transaction import HostRow, OutboxRow, Row, Transaction

_QUERY_CANCELED = "57014"
"""PostgreSQL's SQLSTATE: over `statement_timeout` (its manual, appendix A)."""


class TooMuch(Exception):
    """Is asked for: the database would take longer than it may for one statement."""


class Store:
    def __init__(self, url: sa.URL, lead: Lead | None = None) -> None:
        """`lead` where others may have the same database; everything raises Lost then."""
        self._engine = database.engine(url)
        self._lead = lead
        with self._transaction() as connection:
            database.migrate(connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        with self._transaction() as connection:
            yield Transaction(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._as_long_as_it_leads(), self._engine.begin() as connection:
            if self._lead is not None:
                self._lead.check(connection)
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Raises TooMuch."""
        with self._as_long_as_it_leads(), self._engine.connect() as connection, _in_time():
            yield connection

    @contextmanager
    def _as_long_as_it_leads(self) -> Iterator[None]:
        """A database that went away may have carried out the last word or not: what is in memory may not be
        what is stored, so it has to be read again."""
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            if self._lead is None:
                raise
            self._lead.end(f"the database: {error.orig}")
            raise Lost(f"the database: {error.orig}") from None

    def objects(self) -> list[Row]:
        """In the order in which they were made; of those that one change made, by their numbers."""
        rows = self._read(objects, objects.c.created_ms, objects.c.number)
        return [row | {"document": json.loads(row["document"])} for row in rows]

    def numbers(self) -> dict[str, int]:
        return {row["kind"]: row["last"] for row in self._read(numbers)}

    def hosts(self) -> list[HostRow]:
        return [HostRow(**row) for row in self._read(hosts)]

    def outbox(self) -> list[OutboxRow]:
        return [OutboxRow(**row) for row in self._read(outbox)]

    def claims(self) -> list[Row]:
        return self._read(claims)

    def tenures(self) -> list[Row]:
        return self._read(tenures)

    def host_statistics(self) -> list[Row]:
        return self._read(host_statistics)

    def rule_statistics(self) -> list[Row]:
        return self._read(rule_statistics)

    def users(self) -> list[Row]:
        return self._read(users)

    def tokens(self) -> list[Row]:
        return self._read(tokens)

    def enrolment_tokens(self) -> list[Row]:
        return self._read(enrolment_tokens)

    def credentials(self) -> list[Row]:
        return self._read(credentials)

    def changes(self, *, before: int, limit: int, user: str | None = None, path: str = "") -> list[Row]:
        """The newest first, with a lower id than `before`; of a user; of a path and what is below it. For any
        thread."""
        query = sa.select(changes).where(_older(changes, before)).order_by(changes.c.id.desc()).limit(limit)
        if user is not None:
            query = query.where(changes.c.user == user)
        if path:
            query = query.where(
                (changes.c.path == path) | changes.c.path.startswith(f"{path}/", autoescape=True)
            )
        with self._reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def moves(self) -> list[Row]:
        """The oldest first."""
        return self._read(moves, moves.c.begun_ms)

    def controllers(self) -> str | None:
        return next((str(row["document"]) for row in self._read(controllers)), None)

    def guests(self) -> list[Row]:
        return self._read(guests)

    def said(
        self, component: str, *, before: int, limit: int, host: str | None = None, topic: str | None = None
    ) -> list[Row]:
        """By a component, the newest first, with a lower id than `before`; of a host; on a topic."""
        table = component_messages
        query = sa.select(table).where((table.c.component == component) & _older(table, before))
        for column, wanted in ((table.c.host, host), (table.c.topic, topic)):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).mappings()
            return [dict(row) for row in rows]

    def speakers(self) -> list[Row]:
        """Which component of which host has said something: how much of it is kept, and when it was last."""
        table = component_messages
        of = (table.c.component, table.c.host)
        counted = (sa.func.count().label("messages"), sa.func.max(table.c.time_ms).label("time_ms"))
        with self._reading() as connection:
            rows = connection.execute(sa.select(*of, *counted).group_by(*of).order_by(*of)).mappings()
            return [dict(row) for row in rows]

    def messages_known(self, messages: list[str]) -> set[tuple[str, str]]:
        """Those of components that are kept already, as host and message."""
        table = component_messages
        query = sa.select(table.c.host, table.c.message).where(table.c.message.in_(messages))
        with self._reading() as connection:
            return {(host, message) for host, message in connection.execute(query)}

    def makers(self, above: str) -> dict[str, str]:
        """By path, of what is or was below a path: who made it, the last time."""
        below = changes.c.path.startswith(f"{above}/", autoescape=True)
        query = sa.select(changes.c.path, changes.c.user).where(below, changes.c.before.is_(None))
        with self._reading() as connection:
            return {path: user for path, user in connection.execute(query.order_by(changes.c.id))}

    def changes_since(self, change: int) -> list[Row]:
        """The oldest first."""
        query = sa.select(changes).where(changes.c.id > change).order_by(changes.c.id)
        with self._reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def configurations(self) -> list[Row]:
        """The oldest first."""
        return sorted(self._read(configurations), key=lambda row: int(row["id"]))

    def drafts(self) -> dict[str, Row]:
        return {row["id"]: row for row in self._read(drafts)}

    def window(self) -> Row | None:
        return next(iter(self._read(windows)), None)

    def _read(self, table: sa.Table, *order: sa.Column[int]) -> list[Row]:
        """Last by their keys: a database has no order of its own."""
        query = sa.select(table).order_by(*order, *table.primary_key)
        with self._reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


@contextmanager
def _in_time() -> Iterator[None]:
    """A read that took too long is the matter of who asked: the database answers, and the lead goes on."""
    try:
        yield
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", "") == _QUERY_CANCELED:
            raise TooMuch("the database takes too long for this, ask for less") from None
        raise


def _older(table: sa.Table, before: int) -> sa.ColumnElement[bool]:
    """`before` may be more than an id can."""
    return table.c.id < sa.literal(before, sa.BigInteger)
