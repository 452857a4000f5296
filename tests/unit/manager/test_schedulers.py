"""Schedulers: from REST to the rules a host is sent."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager
from tests.unit.manager.serving import rules_sent
from vsfwd.policy.model import Schedule

SCHEDULER = f"{INFRA}/firewall-schedulers/hours"
SECTION = f"{DOMAIN}/security-policies/s"
WEEKEND = {"days": ["SATURDAY", "SUNDAY"]}
ONCE = {
    "recurring": False,
    "start_date": "11/22/2026",
    "start_time": "8:00",
    "end_date": "11/23/2026",
    "end_time": "17:45",
}


def sent(manager: Manager) -> dict[str, Schedule | None]:
    """The schedules of the host's rules, by the rule's name."""
    return {name: rule.schedule for name, rule in rules_sent(manager).items()}


def interval(first: str, last: str) -> dict[str, str]:
    return {"start_interval": first, "end_interval": last}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (WEEKEND, Schedule(days=(5, 6))),
        ({**WEEKEND, "timezone": "LOCAL"}, Schedule(days=(5, 6), utc=False)),
        (
            {"days": ["MONDAY"], "time_interval": [interval("08:00", "12:00"), interval("13:30", "24:00")]},
            Schedule(days=(0,), times=((480, 720), (810, 1440))),
        ),
        (
            {"start_date": "11/22/2026", "end_date": "12/31/2026"},
            Schedule("2026-11-22T00:00", "2027-01-01T00:00"),
        ),
        (ONCE, Schedule("2026-11-22T08:00", "2026-11-23T17:45")),
    ],
)
async def test_a_section_has_the_times_of_its_scheduler(
    serving: Manager, said: dict[str, Any], read: Schedule
) -> None:
    """All its rules and no others; and when the scheduler changes, they are sent again."""
    await serving.call("PUT", SCHEDULER, {"days": ["FRIDAY"]})
    path = SCHEDULER.removeprefix("/policy/api/v1")
    await serving.call("PUT", SECTION, {"scheduler_path": path, "rules": [{"id": "r", "action": "DROP"}]})
    assert sent(serving)["r"] == Schedule(days=(4,))
    await serving.call("PUT", SCHEDULER, {**said, "_revision": 0})
    assert sent(serving)["r"] == read
    assert sent(serving)["Default Layer3 Rule"] is None
    shown = await serving.call("GET", SCHEDULER)
    assert said.items() <= shown.items()


async def test_a_scheduler_in_use_cannot_be_deleted(serving: Manager) -> None:
    """A section would not know when; without it, it can."""
    await serving.call("PUT", SCHEDULER, WEEKEND)
    path = SCHEDULER.removeprefix("/policy/api/v1")
    await serving.call("PUT", SECTION, {"scheduler_path": path})
    refused = await serving.answer("DELETE", SCHEDULER)
    assert refused.status_code == 400
    assert "is used by /infra/domains/default/security-policies/s" in refused.text
    await serving.call("PUT", SECTION, {"_revision": 0})
    await serving.call("DELETE", SCHEDULER)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "days: one of days, start_date and end_date is needed"),
        ({"days": ["FUNDAY"]}, "days.0: "),
        ({**WEEKEND, "start_date": "2026-11-22"}, "start_date: '2026-11-22' is not a date as MM/DD/YYYY"),
        ({**WEEKEND, "start_date": "02/30/2026"}, "start_date: '02/30/2026' is not a day of the calendar"),
        ({**WEEKEND, "start_date": "11/22/2026", "end_date": "11/21/2026"}, "end_date: the schedule ends"),
        ({**WEEKEND, "start_time": "08:00"}, "start_time: not with recurring"),
        (
            {**WEEKEND, "time_interval": [interval("08:10", "09:00")]},
            "time_interval.0.start_interval: '08:10'",
        ),
        ({**WEEKEND, "time_interval": [interval("08:00", "24:30")]}, "time_interval.0.end_interval: '24:30'"),
        (
            {**WEEKEND, "time_interval": [interval("22:00", "06:00")]},
            "end_interval: not after start_interval",
        ),
        ({**WEEKEND, "timezone": "Mars"}, "timezone: "),
        ({**ONCE, "days": ["MONDAY"]}, "days: only with recurring"),
        ({**ONCE, "end_time": None}, "end_time: needed without recurring"),
        ({**ONCE, "end_time": "25:00"}, "end_time: '25:00' is not a time of day"),
        ({**ONCE, "end_date": "11/22/2026", "end_time": "08:00"}, "end_date: the schedule ends before"),
    ],
)
async def test_what_is_no_schedule_is_refused(manager: Manager, body: dict[str, Any], named: str) -> None:
    """With the field named, and nothing stored."""
    before = manager.stored()
    refused = await manager.answer("PUT", SCHEDULER, body)
    assert refused.status_code == 400
    assert named in refused.json()["error_message"]
    assert manager.stored() == before


async def test_a_section_names_a_scheduler_that_is_there(manager: Manager) -> None:
    """And not some other object."""
    for path in ("/infra/firewall-schedulers/no", "/infra/services/SSH"):
        refused = await manager.answer("PUT", SECTION, {"scheduler_path": path})
        assert refused.status_code == 400
        assert "scheduler_path: there is no" in refused.text
