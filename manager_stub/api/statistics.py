"""What rules have counted, in the shape of NSX's Policy API: …/security-policies/{id}/statistics, and of one
rule. There is one enforcement point. `last_hit_time` and `unreported_hosts` are ours: when a rule was hit
last, and which hosts that are to have it say nothing of what it counted."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query

from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, existing
from manager_stub.model import Id, Rule
from manager_stub.register import Register
from manager_stub.statistics import RuleStatistics, Total
from manager_stub.world import Stored

POINT: Final = "/infra/sites/default/enforcement-points/default"
_SECTION: Final = "/infra/domains/default/security-policies/{section}"
_DAY_MS: Final = 24 * 3600 * 1000

Point = Annotated[str, Query(alias="enforcement_point_path")]


def router(register: Register, statistics: RuleStatistics) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["Statistics"])

    @routes.get(f"{_SECTION}/statistics")
    async def of_section(section: Id, point: Point = POINT) -> Json:
        stored = existing(register.world, _SECTION.format(section=section))
        rules = register.world.rules_of(stored.path)
        counts = _Shown(register, statistics)
        found = {
            "internal_section_id": stored.unique_id,
            "result_count": len(rules),
            "results": [counts(rule) for rule in rules],
        }
        return _at_point(point, found, statistics, rules)

    @routes.get(f"{_SECTION}/rules/{{id}}/statistics")
    async def of_rule(section: Id, id: Id, point: Point = POINT) -> Json:
        path = f"{_SECTION.format(section=section)}/rules/{id}"
        existing(register.world, path)
        rule = register.world.rules[path]
        return _at_point(point, _Shown(register, statistics)(rule), statistics, [rule])

    @routes.post("/infra/settings/firewall/stats", status_code=200)
    async def reset(
        action: Annotated[Literal["reset"], Query()],
        category: Annotated[Literal["DFW"], Query()],
        point: Point = POINT,
    ) -> None:
        """Of every rule; when it was hit last stays known."""
        _check(point)
        statistics.reset()

    return routes


class _Shown:
    """A rule's counts, beside those of all rules."""

    def __init__(self, register: Register, statistics: RuleStatistics) -> None:
        self._totals: Mapping[int, Total] = statistics.totals
        self._now_ms = statistics.now_ms()
        sessions = [self._of(rule).sessions for rule in register.world.rules.values()]
        self._all = {
            "max_popularity_index": max(map(self._popularity, register.world.rules.values())),
            "max_session_count": max(sessions),
            "total_session_count": sum(sessions),
        }

    def __call__(self, rule: Stored[Rule]) -> Json:
        total = self._of(rule)
        found: dict[str, Any] = {
            "rule": rule.path,
            "internal_rule_id": str(rule.number),
            "packet_count": total.packets,
            "byte_count": total.bytes,
            "session_count": total.sessions,
            "hit_count": total.hits,
            "popularity_index": self._popularity(rule),
            **self._all,
        }
        return found | ({"last_hit_time": total.last_hit_ms} if total.last_hit_ms else {})

    def _of(self, rule: Stored[Rule]) -> Total:
        return self._totals.get(rule.number, Total())

    def _popularity(self, rule: Stored[Rule]) -> int:
        """Sessions by age, as in NSX, which does not say in which unit: in days."""
        return self._of(rule).sessions // max((self._now_ms - rule.created_ms) // _DAY_MS, 1)


def _at_point(point: str, found: Json, statistics: RuleStatistics, rules: Sequence[Stored[Rule]]) -> Json:
    _check(point)
    unreported = statistics.unreported(rule.number for rule in rules)
    shown = {
        "enforcement_point": POINT,
        "statistics": found,
        "unreported_hosts": [{"id": host.id, "display_name": host.display_name} for host in unreported],
    }
    return {"results": [shown], "result_count": 1}


def _check(point: str) -> None:
    if point != POINT:
        raise Problem(404, f"there is no {point}, only {POINT}", "enforcement_point_path")
