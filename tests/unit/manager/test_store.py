"""The database: its schema is what the code says, and a transaction is all or nothing."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from manager_stub.schema import metadata
from manager_stub.store import OutboxRow, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "manager.db")


def test_the_migrations_lead_to_the_schema_of_the_code(store: Store, tmp_path: Path) -> None:
    """Whoever changes a table without a migration hears of it."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/manager.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    """What was written before the failure is not there."""
    with pytest.raises(IntegrityError):
        write_a_user_and_an_orphan(store)
    assert store.users() == []


def write_a_user_and_an_orphan(store: Store) -> None:
    orphan = OutboxRow("no-such-host", 1, 1, "", "snapshot", 1, "", b"", b"", b"")
    with store.begin() as transaction:
        transaction.put_user("admin", "hash", "auditor")
        transaction.put_outbox([orphan])


def test_a_store_opened_again_has_what_was_written(store: Store, tmp_path: Path) -> None:
    """And the migrations run a second time without harm."""
    with store.begin() as transaction:
        transaction.put_user("admin", "hash", "auditor")
        transaction.put_numbers({"rules": 1007})
    store.close()
    again = Store(tmp_path / "manager.db")
    admin = {"name": "admin", "password_hash": "hash", "role": "auditor"}
    assert (again.users(), again.numbers()) == ([admin], {"rules": 1007})
