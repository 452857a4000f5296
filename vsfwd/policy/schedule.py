"""Rules that are in force at some times only. Pure: what time it is comes in.

A schedule is asked for a moment, by the clock on the wall; nothing is counted on from one moment to the next.
So a clock that jumps, a daemon that was not there, or an hour that comes twice need no care."""

from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import Rule, Schedule


class Now(NamedTuple):
    """One moment, by UTC and by the clock of the host; both without a zone."""

    utc: datetime
    local: datetime


def is_open(schedule: Schedule, now: Now) -> bool:
    at = now.utc if schedule.utc else now.local
    minute = at.hour * 60 + at.minute
    text = at.isoformat(timespec="minutes")
    return (
        (not schedule.begins or schedule.begins <= text)
        and (not schedule.ends or text < schedule.ends)
        and (not schedule.days or at.weekday() in schedule.days)
        and (not schedule.times or any(first <= minute < end for first, end in schedule.times))
    )


def closed(rules: Mapping[int, Rule], now: Now) -> frozenset[int]:
    """The rules that are not in force now."""
    return frozenset(id for id, rule in rules.items() if rule.schedule and not is_open(rule.schedule, now))


def without(state: DesiredState, closed: Set[int]) -> DesiredState:
    """The state as if these rules were not there."""
    if not closed:
        return state
    return replace(state, rules={id: rule for id, rule in state.rules.items() if id not in closed})
