"""What the manager is told of rule counters: what moved, now and then all of it, never more than fits."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, RuleCounters
from vsfwd.protocol.messages import MAX_COUNTS, STATISTICS_AGAIN_S, RuleCount, Statistics
from vsfwd.statistics import AT_ONCE, RuleStatistics, read_counters


class Host:
    """Its counters, and what it tells."""

    def __init__(self) -> None:
        self.counters: dict[int, RuleCounters] = {}
        self.turns: list[int] = []
        self.statistics = RuleStatistics(
            cast(Datapath, self), cast(ApplyThread, self._turn), lambda report: None, 60
        )

    def count(self, rule: int, packets: int, sessions: int = 0) -> None:
        self.counters[rule] = RuleCounters(packets, 100 * packets, sessions, 0)

    def tells(self, now_s: float) -> list[Statistics]:
        return list(self.statistics.reports(self.counters, now_s))

    async def _turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    def counted_rules(self) -> set[int]:
        return set(self.counters)

    def rule_counters(self, rules: list[int]) -> dict[int, RuleCounters]:
        self.turns.append(len(rules))
        return {rule: self.counters[rule] for rule in rules}


@pytest.fixture
def host() -> Host:
    return Host()


def test_all_is_told_at_first_and_then_what_moved(host: Host) -> None:
    """Rules that counted nothing are not told at all."""
    host.count(1001, 5, 1)
    host.count(1002, 0)
    (first,) = host.tells(10.0)
    assert first.rules == {"1001": RuleCount(5, 500, 1)}
    assert first.at_ms == 10_000
    assert host.tells(70.0) == []
    host.count(1002, 3)
    (second,) = host.tells(130.0)
    assert second.rules == {"1002": RuleCount(3, 300, 0, age_s=0)}
    assert (second.boot, second.at_ms) == (first.boot, 130_000)


def test_how_long_ago_a_rule_was_hit_is_told_once_somebody_looked(host: Host) -> None:
    """What was counted before the daemon started has no age; what moved meanwhile has."""
    host.count(1001, 5)
    host.count(1002, 5)
    host.tells(10.0)
    host.count(1001, 6)
    host.tells(70.0)
    host.statistics.start_over()
    (report,) = host.tells(130.0)
    assert {rule: count.age_s for rule, count in report.rules.items()} == {"1001": 60, "1002": -1}


def test_a_rule_that_left_is_told_to_be_back_at_zero(host: Host) -> None:
    """Its counters went with it; when it is back it counts from there, and has no older age."""
    host.count(1001, 50)
    host.tells(10.0)
    del host.counters[1001]
    (gone,) = host.tells(70.0)
    assert gone.rules == {"1001": RuleCount(0, 0, 0)}
    assert host.tells(130.0) == []
    host.count(1001, 60)
    (back,) = host.tells(190.0)
    assert back.rules == {"1001": RuleCount(60, 6000, 0, age_s=0)}


def test_all_is_told_again_at_the_start_of_a_session_and_every_hour(host: Host) -> None:
    """Also by a host whose rules have counted nothing, so that it is known to report."""
    (empty,) = host.tells(10.0)
    assert empty.rules == {}
    assert host.tells(11.0) == []
    host.statistics.start_over()
    assert [report.rules for report in host.tells(12.0)] == [{}]
    host.count(1001, 5)
    host.tells(20.0)
    assert host.tells(STATISTICS_AGAIN_S + 11.0) == []
    (again,) = host.tells(STATISTICS_AGAIN_S + 12.0)
    assert set(again.rules) == {"1001"}


def test_more_than_one_report_holds_is_told_in_several(host: Host) -> None:
    """Each rule once."""
    for rule in range(1, 2 * MAX_COUNTS + 2):
        host.count(rule, 1)
    reports = host.tells(10.0)
    assert [len(report.rules) for report in reports] == [MAX_COUNTS, MAX_COUNTS, 1]
    assert len({rule for report in reports for rule in report.rules}) == 2 * MAX_COUNTS + 1


async def test_policy_never_waits_for_more_than_a_few_counters(host: Host) -> None:
    """The thread that applies policy gets its turn between them."""
    for rule in range(1, 2 * AT_ONCE + 2):
        host.count(rule, 1)
    assert await read_counters(host._turn, cast(Datapath, host)) == host.counters
    assert host.turns == [AT_ONCE, AT_ONCE, 1]
