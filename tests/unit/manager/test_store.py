"""The database, SQLite or PostgreSQL: its schema is what the code says, a transaction is all or nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from manager_stub.schema import metadata
from manager_stub.store import Store
from manager_stub.transaction import OutboxRow


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def dialect(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


@pytest.fixture
def url(give_database: Callable[[Path], sa.URL], tmp_path: Path) -> sa.URL:
    return give_database(tmp_path)


@pytest.fixture
def store(url: sa.URL) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def test_the_migrations_lead_to_the_schema_of_the_code(store: Store, url: sa.URL) -> None:
    """Whoever changes a table without a migration hears of it."""
    engine = sa.create_engine(url)
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


def test_a_store_opened_again_has_what_was_written(store: Store, url: sa.URL) -> None:
    """And the migrations run a second time without harm."""
    with store.begin() as transaction:
        transaction.put_user("admin", "hash", "auditor")
        transaction.put_numbers({"rules": 1007})
    store.close()
    again = Store(url)
    admin = {"name": "admin", "password_hash": "hash", "role": "auditor"}
    assert (again.users(), again.numbers()) == ([admin], {"rules": 1007})
    again.close()
