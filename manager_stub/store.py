"""What the manager keeps, in the tables of a database (`database`) of the current schema.

Objects are JSON documents by path; what queries and the bus need stands in columns. Everything is read
once, at start: afterwards the register holds it in memory and the database is what survives. One writer,
the thread of the event loop.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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

MAX_SAVED = 100
"""Configurations that are kept, as in NSX. For a new one the oldest automatic one goes."""

_QUERY_CANCELED = "57014"
"""PostgreSQL's SQLSTATE: over `statement_timeout` (its manual, appendix A)."""

Row = dict[str, Any]


class TooMuch(Exception):
    """Is asked for: the database would take longer than it may for one statement."""


@dataclass(frozen=True)
class HostRow:
    id: str
    display_name: str
    epoch: int
    generation: int
    digest: str
    sent_generation: int
    sent_digest: str
    applied_epoch: int
    applied_generation: int
    applied_digest: str
    refusals: str
    bindings: str
    vsfwd: str
    last_seen_ms: int
    disputed: str


@dataclass(frozen=True)
class OutboxRow:
    host: str
    epoch: int
    generation: int
    digest: str
    kind: str
    base: int
    base_digest: str
    header: bytes
    signature: bytes
    body: bytes


class Transaction:
    """Writes that happen together or not at all."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def put_objects(self, rows: list[Row]) -> None:
        self._upsert(objects, rows, "path")

    def delete_objects(self, paths: list[str]) -> None:
        if paths:
            statement = objects.delete().where(objects.c.path == sa.bindparam("gone"))
            self._connection.execute(statement, [{"gone": path} for path in paths])

    def put_numbers(self, last: dict[str, int]) -> None:
        self._upsert(numbers, [{"kind": kind, "last": number} for kind, number in last.items()], "kind")

    def put_hosts(self, rows: list[HostRow]) -> None:
        self._upsert(hosts, [vars(row) for row in rows], "id")

    def delete_host(self, host: str) -> None:
        self._connection.execute(hosts.delete().where(hosts.c.id == host))

    def put_outbox(self, rows: list[OutboxRow]) -> None:
        self._upsert(outbox, [vars(row) for row in rows], "host")

    def clear_outbox(self, hosts: list[str]) -> None:
        if hosts:
            statement = outbox.delete().where(outbox.c.host == sa.bindparam("gone"))
            self._connection.execute(statement, [{"gone": host} for host in hosts])

    def replace_claims(self, vnics: Collection[str], rows: list[Row]) -> None:
        """All that is claimed at some vNICs."""
        statement = claims.delete().where(claims.c.vnic == sa.bindparam("at"))
        self._connection.execute(statement, [{"at": vnic} for vnic in vnics])
        if rows:
            self._connection.execute(claims.insert(), rows)

    def put_tenures(self, rows: list[Row]) -> None:
        self._upsert(tenures, rows, "what")

    def delete_tenures(self, of: list[str]) -> None:
        if of:
            statement = tenures.delete().where(tenures.c.what == sa.bindparam("gone"))
            self._connection.execute(statement, [{"gone": each} for each in of])

    def put_host_statistics(self, rows: list[Row]) -> None:
        self._upsert(host_statistics, rows, "host")

    def put_rule_statistics(self, rows: list[Row]) -> None:
        self._upsert(rule_statistics, rows, "host", "rule")

    def delete_rule_statistics(self, of: list[int]) -> None:
        if of:
            statement = rule_statistics.delete().where(rule_statistics.c.rule == sa.bindparam("gone"))
            self._connection.execute(statement, [{"gone": rule} for rule in of])

    def put_user(self, name: str, password_hash: str, role: str) -> None:
        self._upsert(users, [{"name": name, "password_hash": password_hash, "role": role}], "name")

    def delete_user(self, name: str) -> None:
        """And the user's tokens."""
        self._connection.execute(users.delete().where(users.c.name == name))

    def put_token(self, row: Row) -> None:
        self._upsert(tokens, [row], "id")

    def delete_token(self, id: str) -> None:
        self._connection.execute(tokens.delete().where(tokens.c.id == id))

    def put_enrolment_token(self, row: Row) -> None:
        self._upsert(enrolment_tokens, [row], "id")

    def delete_enrolment_token(self, id: str) -> None:
        self._connection.execute(enrolment_tokens.delete().where(enrolment_tokens.c.id == id))

    def put_credential(self, row: Row) -> None:
        self._upsert(credentials, [row], "host")

    def put_move(self, row: Row) -> None:
        self._upsert(moves, [row], "id")

    def delete_moves(self, ids: list[str]) -> None:
        self._connection.execute(moves.delete().where(moves.c.id.in_(ids)))

    def put_controllers(self, document: str) -> None:
        self._upsert(controllers, [{"id": 1, "document": document}], "id")

    def put_guest(self, row: Row) -> None:
        self._upsert(guests, [row], "host", "vm")

    def delete_guests(self, host: str, vm: str | None = None) -> None:
        """Those of a host, or one."""
        of = guests.c.host == host
        self._connection.execute(guests.delete().where(of if vm is None else of & (guests.c.vm == vm)))

    def add_said(self, rows: list[Row], most: int) -> None:
        """By components; of each of them, the newest are kept."""
        if not rows:
            return
        table = component_messages
        self._connection.execute(table.insert(), rows)
        for host, component in {(row["host"], row["component"]) for row in rows}:
            of_it = (table.c.host == host) & (table.c.component == component)
            last = sa.select(table.c.id).where(of_it).order_by(table.c.id.desc()).offset(most).limit(1)
            self._connection.execute(table.delete().where(of_it & (table.c.id <= last.scalar_subquery())))

    def add_changes(self, rows: list[Row]) -> None:
        if rows:
            self._connection.execute(changes.insert(), rows)

    def add_configuration(self, row: Row) -> None:
        """The policy as it is after the last change so far."""
        self._connection.execute(configurations.insert(), row | {"change": self._last_change()})
        newest = sa.select(configurations.c.id).order_by(
            configurations.c.automatic, configurations.c.id.desc()
        )
        self._connection.execute(
            configurations.delete().where(configurations.c.id.not_in(newest.limit(MAX_SAVED)))
        )

    def delete_configuration(self, id: int) -> None:
        self._connection.execute(configurations.delete().where(configurations.c.id == id))

    def put_draft(self, row: Row) -> None:
        self._upsert(drafts, [row], "id")

    def delete_draft(self, id: str) -> None:
        self._connection.execute(drafts.delete().where(drafts.c.id == id))

    def open_window(self, user: str, deadline_ms: int) -> Row:
        row = {"id": 1, "user": user, "deadline_ms": deadline_ms, "change": self._last_change()}
        self._connection.execute(windows.insert(), row)
        return row

    def close_window(self) -> None:
        self._connection.execute(windows.delete())

    def _last_change(self) -> int:
        return self._connection.execute(sa.select(sa.func.max(changes.c.id))).scalar() or 0

    def _upsert(self, table: sa.Table, rows: list[Row], *key: str) -> None:
        if rows:
            statement = database.upsert(self._connection.dialect.name, table, key)
            self._connection.execute(statement, rows)


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
