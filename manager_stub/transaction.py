"""What is written to the database, and the rows that it is written as. Each of these statements is part of a
transaction, which the store begins and ends."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from manager_stub import database
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

Row = dict[str, Any]


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
