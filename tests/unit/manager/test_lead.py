"""Of two managers on one database one leads, and no other can write (O18). The processes themselves are
asked in `integration/test_two_managers.py`."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from manager_stub import lead
from manager_stub.components.courier import Courier
from manager_stub.lead import Lead, Lost
from manager_stub.state_dir import StateDir
from manager_stub.store import Store
from tests.harness.manager import alone
from tests.harness.postgres import Postgres
from tests.unit.manager.rest import DOMAIN, Manager
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

HOST = "33333333-0000-4000-8000-000000000001"
Managers = Callable[[str], Lead]


@pytest.fixture
def dialect() -> str:
    return "postgresql"


@pytest.fixture
def manager_at(give_database: Callable[[Path], sa.URL], tmp_path: Path) -> Iterator[Managers]:
    """Makes managers of one database, by where they listen."""
    url = give_database(tmp_path)
    made: list[Lead] = []

    def make(listen: str) -> Lead:
        made.append(Lead(url, listen))
        return made[-1]

    yield make
    for each in made:
        each.give_back()
        each.close()


def nobody() -> None:
    pass


def takes(each: Lead) -> bool:
    return each.take(nobody)


def test_o18_one_leads_and_the_other_knows_who(manager_at: Managers) -> None:
    """The second takes the lead at once when it is given back, under a higher epoch."""
    first, second = manager_at("a:1"), manager_at("b:1")
    assert (takes(first), takes(second)) == (True, False)
    assert (second.leader, second.is_mine) == ("a:1", False)
    first.give_back()
    assert takes(second)
    assert second.epoch == first.epoch + 1


def test_o18_a_manager_that_was_started_again_need_not_wait_for_itself(manager_at: Managers) -> None:
    """The process before it was killed and gave nothing back."""
    assert takes(manager_at("a:1"))
    assert takes(manager_at("a:1"))


def test_o18_a_lead_that_is_not_renewed_is_lost_and_writes_nothing(
    manager_at: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what it begins afterwards, nor with a clock that says it leads."""
    monkeypatch.setattr(lead, "RENEW_S", 60.0)
    monkeypatch.setattr(lead, "LEASE_S", 1.0)
    ended = Event()
    first, second = manager_at("a:1"), manager_at("b:1")
    assert first.take(ended.set)
    store = Store(first._engine.url, first)
    wait_until(lambda: takes(second), "the other takes the lead", 30.0)
    assert not first.is_mine
    first._until = lead._now_s() + 60
    with pytest.raises(Lost, match="another manager leads"), store.begin() as transaction:
        transaction.put_user("admin", "hash", "auditor")
    assert ended.is_set()
    assert store.users() == []
    store.close()


def test_o18_a_lead_is_kept_by_its_renewals(manager_at: Managers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another looks as often as it likes."""
    monkeypatch.setattr(lead, "RENEW_S", 0.1)
    monkeypatch.setattr(lead, "LEASE_S", 3.0)
    first, second = manager_at("a:1"), manager_at("b:1")
    assert takes(first)
    begun = lead._now_s()
    wait_until(lambda: takes(second) or lead._now_s() > begun + 4.0, "more than a lease", 30.0)
    assert (first.is_mine, second.is_mine) == (True, False)


def test_o18_nobody_takes_the_lead_in_the_middle_of_a_transaction(
    manager_at: Managers, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored before the other leads, or not at all: the other reads everything there is."""
    monkeypatch.setattr(lead, "LEASE_S", 0.0)
    first, second = manager_at("a:1"), manager_at("b:1")
    assert takes(first)
    store = Store(first._engine.url, first)
    found: list[object] = []

    def take_over() -> None:
        takes(second)
        found.extend(user["name"] for user in Store(second._engine.url, second).users())

    with store.begin() as transaction:
        transaction.put_user("admin", "hash", "auditor")
        other = Thread(target=take_over)
        other.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: bool(postgres.sql(waiting)), "the other waits", 30.0)
        assert not second.is_mine
    other.join()
    store.close()
    assert found == ["admin"]


def test_o18_of_two_that_take_the_lead_one_has_it(
    manager_at: Managers, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw the same lease end, and waited for the same transaction of the leader's."""
    monkeypatch.setattr(lead, "LEASE_S", 0.0)
    first, *others = manager_at("a:1"), manager_at("b:1"), manager_at("c:1")
    assert takes(first)
    store = Store(first._engine.url, first)
    taken: list[bool] = []
    threads = [Thread(target=lambda each=each: taken.append(takes(each))) for each in others]
    with store.begin():
        for each in threads:
            each.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' HAVING count(*) = 2"
        wait_until(lambda: bool(postgres.sql(waiting)), "both wait", 30.0)
    for each in threads:
        each.join()
    store.close()
    assert sorted(taken) == [False, True]


async def test_a_database_that_is_gone_ends_the_lead(manager: Manager, postgres: Postgres) -> None:
    """The call is answered 503 and nothing of it is believed: only who reads the database knows."""
    held = Lead(manager.directory.database_url(), "a:1")
    over = asyncio.Event()
    assert held.take(over.set)
    leading = Manager(manager.directory, manager.admin[1], held)
    assert (await leading.answer("GET", f"{DOMAIN}/groups/g")).status_code == 404
    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '' "
        f"AND datname = '{held._engine.url.database}'"
    )
    answer = await leading.answer("PUT", f"{DOMAIN}/groups/g", {})
    assert answer.status_code == 503
    assert over.is_set()
    assert not held.is_mine
    await leading.close()
    held.close()


def test_a_password_is_not_reset_while_another_manager_leads(
    give_database: Callable[[Path], sa.URL], tmp_path: Path
) -> None:
    """On another machine, so that nothing answers at this one's address. Once that one has ended it is, and
    whoever serves next takes the lead at once."""
    url = give_database(tmp_path)
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    state = StateDir(alone(tmp_path / "state"))
    lost = state.create(text)
    other = Lead(url, "b:1")
    try:
        assert takes(other)
        with pytest.raises(ValueError, match="b:1 leads"):
            state.reset_password("admin")
        other.give_back()
        assert state.reset_password("admin") != lost
        assert takes(other)
        other.give_back()
    finally:
        other.close()


async def test_a_search_of_the_audit_log_that_takes_too_long_ends_no_lead(
    manager: Manager, postgres: Postgres
) -> None:
    """Others are served while the database looks, and who asked is told to ask for less: 503."""
    with leading(manager) as (leader, held):
        looking = (
            "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            f" AND datname = '{held._engine.url.database}'"
        )
        with held._engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE changes"))
            asked = asyncio.create_task(leader.answer("GET", "/api/v1/vsfw/audit-log?user=eve"))
            async with asyncio.timeout(8):
                while not await asyncio.to_thread(postgres.sql, f"SELECT pid {looking}"):
                    assert (await leader.answer("GET", f"{DOMAIN}/groups")).status_code == 200
            postgres.sql(f"SELECT pg_cancel_backend(pid) {looking}")
            refused = await asked
        assert (refused.status_code, "ask for less" in refused.text) == (503, True)
        assert held.is_mine
        assert (await leader.answer("GET", "/api/v1/vsfw/audit-log?user=eve")).status_code == 200
        await leader.close()


async def test_no_read_that_takes_too_long_ends_a_lead(manager: Manager, postgres: Postgres) -> None:
    """What components have said, say: 503. What they say meanwhile is with the broker again."""
    with leading(manager) as (leader, held):
        leader.register.add_host(HOST, "host")
        courier = Courier(leader.register, leader.parts.broker, leader.parts.switchboard)
        said = Said()
        with held._engine.begin() as connection, quick(leader):
            connection.execute(sa.text("LOCK TABLE component_messages"))
            answers = [
                await leader.answer("GET", f"/api/v1/vsfw/components{path}")
                for path in ("", "/agent/messages")
            ]
            await courier._take([said])  # type: ignore[list-item]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert (said.fate, held.is_mine) == ("requeued", True)
        await courier._take([said])  # type: ignore[list-item]
        assert said.fate == "stored"
        await leader.close()


async def test_a_publish_that_takes_too_long_to_undo_is_undone_later(manager: Manager) -> None:
    """Nobody has confirmed it; the window stays."""
    with leading(manager) as (leader, held):
        publishing = leader.parts.publishing
        publishing.open_window(0)
        with held._engine.begin() as connection, quick(leader):
            connection.execute(sa.text("LOCK TABLE changes"))
            publishing.expire()
        assert publishing.window is not None
        assert held.is_mine
        await leader.close()


@contextmanager
def leading(manager: Manager) -> Iterator[tuple[Manager, Lead]]:
    """A manager of that one's database that leads."""
    held = Lead(manager.directory.database_url(), "a:1")
    over = Event()
    assert held.take(over.set)
    try:
        yield Manager(manager.directory, manager.admin[1], held), held
        assert not over.is_set()
    finally:
        held.close()


@contextmanager
def quick(manager: Manager) -> Iterator[None]:
    """The database may take a tenth of a second, not ten."""

    engine = manager.parts.store._engine
    engine.dispose()
    sa.event.listen(engine, "connect", _hurry)
    try:
        yield
    finally:
        sa.event.remove(engine, "connect", _hurry)
        engine.dispose()


def _hurry(connection: Any, _: object) -> None:
    connection.execute("SET statement_timeout = 100")
    connection.commit()


class Said:
    """What a component says, as the broker delivers it, and what became of it."""

    routing_key, user_id = f"host.{HOST}.component", HOST
    body = b'{"id":"00000000-0000-4000-8000-000000000001","component":"agent","topic":"t","body":{}}'
    fate = ""

    async def ack(self) -> None:
        self.fate = "stored"

    async def reject(self, requeue: bool = False) -> None:
        self.fate = "requeued" if requeue else "refused"
