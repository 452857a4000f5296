"""Every released schema, with all that its release could keep, opened by this one: nothing is lost.

What was kept is made by the manager itself, over REST and by reports of hosts; of each table and column an
older schema has those it knows. So a migration that is added is asked here without a line of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

import manager_stub
from manager_stub.enrolment.credentials import Credential
from manager_stub.moves.move import Move, State, move_row
from manager_stub.schema import metadata
from manager_stub.state_dir import StateDir
from manager_stub.store import Store
from manager_stub.transaction import Row
from tests.harness.manager import alone
from tests.unit.manager.expressions import named, vm
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from tests.unit.manager.test_migrations import old_database
from vsfwd.protocol.messages import (
    Addresses,
    Applied,
    Binding,
    Bindings,
    Claim,
    Guest,
    Hello,
    Refusal,
    RuleCount,
    Source,
    Statistics,
    digest_text,
)

pytestmark = pytest.mark.slow

REVISIONS = sorted(
    script.revision
    for script in ScriptDirectory(str(Path(manager_stub.__file__).parent / "migrations")).walk_revisions()
)
HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
MAC = "02:00:00:00:00:01"
HERE = Binding(VNIC, VM, MAC, "veth0", Guest("web-01"), "blue")

Content = dict[str, list[Row]]
"""Rows by table."""


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


@pytest.fixture
async def lived_in(manager: Manager) -> Manager:
    """Something of everything that a manager keeps."""
    register = manager.register
    for host in (HOST, OTHER_HOST):
        register.add_host(host, "host")
        register.reported({host: Hello(0, 0, digest_text(0), "0.1")})
    await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7})
    manager.vnics.bound(HOST, Bindings((HERE,)))
    manager.vnics.bound(OTHER_HOST, Bindings((HERE,)))
    manager.vnics.claimed(HOST, Addresses({VNIC: (Claim("10.0.0.1", Source.DHCP, 2**40, MAC),)}))
    tags = {"external_id": VM, "tags": [{"scope": "tier", "tag": "web"}]}
    await manager.call("POST", "/api/v1/fabric/virtual-machines?action=add_tags", tags)
    await manager.call("PUT", f"{VSFW}/clusters/c", {"hosts": [HOST]})
    await manager.call("PUT", f"{VSFW}/datacenters/dc", {"clusters": ["c"]})
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Tag", "EQUALS", "tier|web")]})
    entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["8443"]}
    await manager.call("PUT", f"{INFRA}/services/own", {"service_entries": [entry | {"id": "e"}]})
    rule = {"id": "r", "source_groups": [named("web")], "services": ["/infra/services/own"], "action": "DROP"}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    await manager.call("POST", f"{VSFW}/configurations", {"display_name": "kept"})
    await manager.call("PUT", f"{VSFW}/users/eve", {"role": "auditor", "password": "a password of length"})
    await manager.call("POST", f"{VSFW}/tokens", {"display_name": "ci", "lifetime_s": 2**20})
    await manager.call("PUT", f"{INFRA}/drafts/d", {"display_name": "next", "user_area": {"children": []}})
    await manager.call("POST", f"{VSFW}/publish?action=begin&confirm_within=600")
    refusal = Refusal("rules", "1001", "a reason")
    counted = {id: RuleCount(5, 500, 1) for id in register.hosts[HOST].level.wanted.objects["rules"]}
    manager.parts.statistics.heard(HOST, Statistics(HOST, 1, counted))
    manager.parts.statistics.save()
    await manager.call("POST", f"{VSFW}/enrolment-tokens", {})
    said = {"host": HOST, "component": "c", "topic": "t", "message": "m", "time_ms": 1, "body": "{}"}
    with manager.parts.store.begin() as transaction:
        transaction.put_credential(vars(Credential(HOST, 1, "certificate")))
        transaction.add_said([said], 1)
        transaction.put_controllers('{"generation": 1, "controllers": []}')
        transaction.put_guest({"host": HOST, "vm": VM, "time_ms": 1, "guest": "{}"})
        transaction.put_move(move_row(Move("m", VM, OTHER_HOST, HOST, (HERE,), "admin", 1, 2, State.ABORTED)))
    register.reported({OTHER_HOST: Applied(1, 1, digest_text(0), refusals=(refusal,))})
    return manager


async def shown(manager: Manager) -> dict[str, Any]:
    """What an operator sees of all that every release has kept."""
    urls = [f"{INFRA}?filter=Type-Group|Service|Segment|SecurityPolicy|Rule", f"{DOMAIN}/groups"]
    urls += [f"{VSFW}/{kind}" for kind in ("vms", "clusters", "datacenters")]
    return {url: await manager.call("GET", url) for url in urls}


def content(url: sa.URL, metadata: sa.MetaData) -> Content:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


def as_it_was(url: sa.URL, revision: str, everything: Content) -> Content:
    """Makes a database of this schema with all of `everything` that fits; and that."""
    engine = old_database(url, revision)
    old = sa.MetaData()
    old.reflect(engine)
    kept: Content = {}
    with engine.begin() as connection:
        for table in old.sorted_tables:
            if table.name != "alembic_version":
                columns = table.c.keys()
                rows = [{column: row[column] for column in columns} for row in everything[table.name]]
                connection.execute(table.delete())  # what the migration has made itself
                connection.execute(table.insert(), rows)
                kept[table.name] = rows
                if url.drivername != "sqlite" and "id" in columns and isinstance(table.c.id.type, sa.Integer):
                    # Whoever inserted these rows at the time had their ids from the table's sequence.
                    newest = f"setval(pg_get_serial_sequence('{table.name}', 'id'), max(id))"
                    connection.execute(sa.text(f"SELECT {newest} FROM {table.name}"))
    engine.dispose()
    return kept


@pytest.fixture
def beside(lived_in: Manager, give_database: Callable[[Path], sa.URL]) -> StateDir:
    """The keys and settings of that manager, with an empty database."""
    directory = lived_in.directory
    other = StateDir(alone(directory.path / "upgraded"))
    other.path.mkdir()
    for file in directory.path.iterdir():
        if file.is_file() and not file.name.startswith("manager.db"):
            (other.path / file.name).write_bytes(file.read_bytes())
    give_database(other.path)
    return other


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_upgrade_loses_nothing(lived_in: Manager, beside: StateDir, revision: str) -> None:
    """Every row of every table, in every column there was; the manager starts with it, shows what was shown,
    and wants of hosts what it wanted."""
    everything = content(lived_in.directory.database_url(), metadata)
    assert [table for table, rows in everything.items() if not rows] == []
    database = beside.database_url()
    kept = as_it_was(database, revision, everything)
    Store(database).close()
    upgraded = content(database, metadata)
    for table, rows in kept.items():
        columns = rows[0].keys()
        there = [{column: row[column] for column in columns} for row in upgraded[table]]
        assert [row for row in rows if row not in there] == [], table

    again = Manager(beside, lived_in.admin[1])
    try:
        assert await shown(again) == await shown(lived_in)
        for id, then in lived_in.register.hosts.items():
            now = again.register.hosts[id]
            assert (now.bindings, now.refusals, now.vsfwd) == (then.bindings, then.refusals, then.vsfwd)
            assert now.level.outgoing == then.level.outgoing
            # What a host is sent has its vNICs' addresses, which the first release did not keep.
            assert now.level.wanted_position == then.level.wanted_position or "claims" not in kept
    finally:
        await again.close()


async def test_of_two_hosts_that_had_a_vnic_the_first_keeps_it(lived_in: Manager, beside: StateDir) -> None:
    """Before there were disputes both had it; the other one disputes it now."""
    everything = content(lived_in.directory.database_url(), metadata)
    for row in everything["hosts"]:
        row["bindings"] = everything["hosts"][0]["bindings"]
    as_it_was(beside.database_url(), "0004", everything)
    again = Manager(beside, lived_in.admin[1])
    first, other = again.register.hosts.values()
    await again.close()
    assert (first.bindings, first.disputed) == ((HERE,), ())
    assert (other.bindings, other.disputed) == ((), (HERE,))
