"""Rules that nobody hits: told where hosts have said so all the time, and not where nobody knows."""

from datetime import UTC, datetime

import pytest

from manager_stub.register import now_ms
from manager_stub.unhit import DAY_MS
from tests.unit.manager.rest import INFRA, Manager
from tests.unit.manager.test_statistics import HOST, OTHER_HOST, SECTION, fleet, hear, number, says
from vsfwd.protocol.messages import Bindings, RuleCount

__all__ = ["fleet"]

pytestmark = pytest.mark.slow


class Clock:
    """The manager's, for statistics: days after the test began."""

    def __init__(self, manager: Manager) -> None:
        self._statistics = manager.parts.statistics
        self._begun_ms = manager.parts.statistics.now_ms()

    def day(self, day: float) -> None:
        self._statistics.now_ms = lambda: self._begun_ms + int(day * DAY_MS)


async def told(manager: Manager, days: int = 30, kind: str = "NEVER_HIT") -> dict[str, str]:
    """Why, by name."""
    answer = await manager.call("GET", f"{INFRA}/rule-analysis?kind={kind}&unhit_days={days}")
    return {each["display_name"]: each["why"] for each in answer["results"]}


def both_report(manager: Manager, at_ms: int = 1) -> None:
    for host in (HOST, OTHER_HOST):
        manager.parts.statistics.heard(host, says({}, at_ms))


@pytest.fixture
async def apart(fleet: Manager) -> Manager:
    """The same rules, each for something of its own, so that nothing but hits is to be said of them."""
    for name, port in (("web", "80"), ("no", "81"), ("seen", "82")):
        entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": [port]}
        await fleet.call("PATCH", f"{SECTION}/rules/{name}", {"service_entries": [entry]})
    await fleet.call("DELETE", f"{SECTION}less/rules/bare")
    return fleet


async def test_a_rule_that_was_never_hit_is_told_with_since_when(apart: Manager) -> None:
    """Dropping and monitored rules too; one that was hit is not, nor a predefined one, nor one that is
    disabled."""
    clock = Clock(apart)
    clock.day(1)
    both_report(apart)
    assert set(await told(apart, days=0)) == {"web", "no", "seen"}
    hear(apart, 5, at_ms=2)
    apart.parts.statistics.heard(OTHER_HOST, says({number(apart, "seen"): RuleCount(1, 60, 0)}, 2))
    assert set(await told(apart, days=0)) == {"no"}
    clock.day(40)
    both_report(apart, at_ms=3)
    found = await told(apart)
    assert set(found) == {"web", "no", "seen"}
    since = datetime.fromtimestamp(apart.parts.statistics.hosts[HOST].begun_ms / 1000, UTC)
    assert found["no"].startswith(f"no packet since {since:%Y-%m-%d %H:%M} UTC")
    assert found["no"].endswith("nor before as far as is known")
    assert found["web"].endswith("UTC")
    await apart.call("PATCH", f"{SECTION}/rules/seen", {"disabled": True})
    assert set(await told(apart)) == {"web", "no"}


async def test_a_rule_is_told_after_as_many_days_as_are_asked_for(apart: Manager) -> None:
    """A hit begins them anew, on whichever host."""
    clock = Clock(apart)
    clock.day(0.01)
    both_report(apart)
    clock.day(20)
    hear(apart, 1, at_ms=2, host=OTHER_HOST)
    both_report(apart, at_ms=3)
    assert set(await told(apart, days=10)) == {"no", "seen"}
    assert set(await told(apart, days=21)) == set()
    clock.day(31)
    both_report(apart, at_ms=4)
    assert set(await told(apart, days=10)) == {"web", "no", "seen"}


async def test_a_rule_that_is_newer_than_the_days_asked_for_is_not_told(apart: Manager) -> None:
    """However long its host has reported: there has not been time to hit it."""
    statistics = apart.parts.statistics
    statistics.now_ms = lambda: 1
    both_report(apart)
    statistics.now_ms = lambda: now_ms() + DAY_MS // 2
    both_report(apart, at_ms=2)
    assert await told(apart, days=1) == {}


async def test_what_nobody_reports_is_unknown_and_not_never_hit(apart: Manager) -> None:
    """Hosts of an older release, or away: nothing is said of their rules, and they are named; also beside a
    rule that another host says is not hit there."""
    clock = Clock(apart)
    clock.day(1)
    assert await told(apart, days=0) == {}
    assert set(await told(apart, kind="UNREPORTED_HOST")) == {"host1", "host2"}
    apart.parts.statistics.heard(HOST, says({}))
    found = await told(apart, days=0)
    assert found["no"].endswith("; not known of host2")
    assert set(await told(apart, kind="UNREPORTED_HOST")) == {"host2"}
    assert await told(apart, days=1) == {}
    clock.day(2)
    assert await told(apart, days=0) == {}
    assert "has not said since" in (await told(apart, kind="UNREPORTED_HOST"))["host1"]


async def test_a_host_that_began_to_report_later_is_named_as_unknown(apart: Manager) -> None:
    """Before that it may have hit what it likes."""
    clock = Clock(apart)
    clock.day(0.01)
    apart.parts.statistics.heard(HOST, says({}))
    clock.day(39)
    apart.parts.statistics.heard(OTHER_HOST, says({}))
    clock.day(40)
    both_report(apart, at_ms=2)
    assert (await told(apart))["no"].endswith("; not known of host2")


async def test_a_rule_that_no_host_has_is_none_of_these(apart: Manager) -> None:
    """Nor is one of which something above says why it is not hit."""
    both_report(apart)
    Clock(apart).day(0.01)
    await apart.call(
        "PATCH", SECTION, {"rules": [{"id": "hidden", "action": "REJECT", "sequence_number": 9}]}
    )
    await apart.call("PATCH", f"{SECTION}/rules/seen", {"monitored": False, "service_entries": []})
    assert set(await told(apart, kind="REDUNDANT")) | set(await told(apart, kind="SHADOWED")) >= {"hidden"}
    assert "hidden" not in await told(apart, days=0)
    apart.vnics.bound(HOST, Bindings(()))
    apart.vnics.bound(OTHER_HOST, Bindings(()))
    assert await told(apart, days=0) == {}
    assert await told(apart, kind="UNREPORTED_HOST") == {}


async def test_days_are_bounded(apart: Manager) -> None:
    """By name."""
    for days in ("-1", "3651", "x"):
        answer = await apart.answer("GET", f"{INFRA}/rule-analysis?unhit_days={days}")
        assert (answer.status_code, "unhit_days" in answer.json()["error_message"]) == (400, True)
