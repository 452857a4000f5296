"""Alarms: when they open, when they end, and that they are said once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from tests.harness.waiting import eventually
from vsfwd.alarms import CLOSED_SAMPLES, QUIET_SAMPLES, Alarms
from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, TableUse
from vsfwd.incidents import Cause, Incidents

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HIGH = Cause("dfw_session_count_high", "HIGH", "web")
REFUSED = Cause("dfw_session_refused", "CRITICAL", "web")


@pytest.fixture
def alarms() -> Alarms:
    return Alarms(cast(Datapath, None), cast(ApplyThread, None), dict)


def test_a_table_nearly_full_is_an_alarm(alarms: Alarms) -> None:
    """Above nine tenths, and not at them."""
    alarms.sample({"web": TableUse(0.9, 0), "db": TableUse(0.2, 0)}, {}, NOON)
    assert alarms.open == {}
    alarms.sample({"web": TableUse(0.95, 0), "db": TableUse(0.2, 0)}, {}, NOON)
    assert list(alarms.open) == [HIGH]
    assert "95%" in alarms.open[HIGH].description


def test_a_table_that_refuses_flows_is_an_alarm(alarms: Alarms) -> None:
    """What it refused since the sample before; what it refused before anybody looked is history."""
    alarms.sample({"web": TableUse(0.5, 7)}, {}, NOON)
    assert alarms.open == {}
    alarms.sample({"web": TableUse(0.5, 10)}, {}, NOON)
    assert list(alarms.open) == [REFUSED]
    assert "3 packets" in alarms.open[REFUSED].description


def test_an_alarm_is_said_once_and_ends_after_a_minute_without_cause(alarms: Alarms) -> None:
    """One line when it opens, none while it lasts, one when it is resolved."""
    with capture_logs() as lines:
        for seconds in range(3):
            alarms.sample({"web": TableUse(0.95, 0)}, {}, NOON + timedelta(seconds=seconds))
        assert alarms.open[HIGH].since == NOON
        for _ in range(QUIET_SAMPLES - 1):
            alarms.sample({"web": TableUse(0.5, 0)}, {}, NOON)
        assert list(alarms.open) == [HIGH]
        alarms.sample({"web": TableUse(0.5, 0)}, {}, NOON)
    assert alarms.open == {}
    assert [line["event"] for line in lines] == ["alarm", "alarm is resolved"]


def test_a_cause_that_comes_back_keeps_the_alarm(alarms: Alarms) -> None:
    """The minute begins again."""
    for held in (0.95, 0.5, 0.5, 0.95, *(QUIET_SAMPLES - 1) * [0.5]):
        alarms.sample({"web": TableUse(held, 0)}, {}, NOON)
    assert list(alarms.open) == [HIGH]


def test_the_alarm_of_a_vnic_ends_with_it(alarms: Alarms) -> None:
    """What is not plugged any more has no table."""
    alarms.sample({"web": TableUse(0.95, 0)}, {}, NOON)
    alarms.sample({}, {}, NOON)
    assert alarms.open == {}


def test_x33_a_vnic_seen_with_anothers_address_is_an_alarm(alarms: Alarms) -> None:
    """It says whose, and ends when the address is forgotten."""
    taken = {"web": "it was seen with 10.0.0.1 of db"}
    alarms.sample({"web": TableUse(0.1, 0)}, taken, NOON)
    (cause,) = alarms.open
    assert cause == Cause("duplicate_ip_address", "HIGH", "web")
    assert alarms.open[cause].description == taken["web"]
    for _ in range(QUIET_SAMPLES):
        alarms.sample({"web": TableUse(0.1, 0)}, {}, NOON)
    assert alarms.open == {}


def test_o8_a_vnic_that_stays_without_a_policy_is_an_alarm(alarms: Alarms) -> None:
    """After a minute in a row, until it has one; one that had to wait less is none."""
    tables = {"web": TableUse(0.0, 0), "db": TableUse(0.0, 0)}
    for _ in range(CLOSED_SAMPLES):
        alarms.sample(tables, {}, NOON, closed={"web", "db"})
    assert alarms.open == {}
    for _ in range(CLOSED_SAMPLES):
        alarms.sample(tables, {}, NOON, closed={"web"})
        assert list(alarms.open) == [Cause("dfw_vnic_without_policy", "HIGH", "web")]
    for _ in range(QUIET_SAMPLES):
        alarms.sample(tables, {}, NOON)
    assert alarms.open == {}


async def test_o8_the_kernel_is_asked_who_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each sample, on the thread that applies policy."""
    monkeypatch.setattr("vsfwd.alarms.PERIOD_S", 0)
    samples = 0

    def closed() -> set[str]:
        nonlocal samples
        samples += 1
        if samples > CLOSED_SAMPLES + 1:
            raise InterruptedError
        return {"web"}

    datapath = Mock(slots={"web": 0}, table_use=lambda _: TableUse(0.0, 0), closed=closed)
    apply_thread = ApplyThread()
    alarms = Alarms(datapath, apply_thread, dict)
    with pytest.raises(InterruptedError):
        await alarms.watch()
    apply_thread.finish(lambda: None)
    assert [cause.event_type for cause in alarms.open] == ["dfw_vnic_without_policy"]


async def test_policy_waits_for_one_flow_table_at_most() -> None:
    """Whatever number there is of them; who asks how full they are is answered from that look. One that went
    meanwhile has none."""
    asked: list[str] = []

    def table_use(id: str) -> TableUse | None:
        asked.append(id)
        return None if id == "gone" else TableUse(0.5, 0)

    datapath = Mock(slots={"web": 0, "gone": 1, "db": 2}, table_use=table_use, closed=set)
    apply_thread = ApplyThread()
    alarms = Alarms(datapath, apply_thread, dict)
    watching = asyncio.create_task(alarms.watch())
    await asyncio.sleep(0)
    await apply_thread(asked.append, "policy")
    await eventually(lambda: bool(alarms.tables), "the tables have been looked at", 20)
    watching.cancel()
    apply_thread.finish(lambda: None)
    assert asked == ["web", "policy", "gone", "db"]
    assert alarms.tables == {"web": TableUse(0.5, 0), "db": TableUse(0.5, 0)}


def test_an_incident_is_an_alarm_for_a_minute(alarms: Alarms) -> None:
    """Though what it was about is mended, or gone; what happens once is told once."""
    incidents = Incidents()
    alarms = Alarms(cast(Datapath, None), cast(ApplyThread, None), dict, dict, incidents)
    changed = Cause("dfw_port_guard_changed", "CRITICAL", "host")
    incidents.note(changed, "somebody has changed it")
    for _ in range(QUIET_SAMPLES):
        alarms.sample({}, {}, NOON)
        assert list(alarms.open) == [changed]
    alarms.sample({}, {}, NOON)
    assert alarms.open == {}
