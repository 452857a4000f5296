"""/infra/rule-analysis: what is in the policy and does nothing, or more than it should. NSX's Policy API has
no such call; the words are those of its rule analysis, which is another product."""

from typing import Annotated, Final

from fastapi import APIRouter, Query

from manager_stub.api.aside import Aside
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.findings import Finding, Kind
from manager_stub.lint import DAYS, lint
from manager_stub.register import Register
from manager_stub.statistics import RuleStatistics
from manager_stub.unhit import hits
from manager_stub.world import World

MAX_DAYS: Final = 3650
MAX_OTHERS: Final = 100
"""Told of one finding: an empty group may stand in every rule."""


def router(register: Register, statistics: RuleStatistics, aside: Aside) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["RuleAnalysis"])

    @routes.get("/infra/rule-analysis")
    async def analysis(
        page: Page,
        kind: Annotated[Kind | None, Query()] = None,
        unhit_days: Annotated[int, Query(ge=0, le=MAX_DAYS)] = DAYS,
    ) -> Json:
        """Of the policy as it is now; `kind` asks for one kind of findings. A rule is never hit that was not
        in `unhit_days`, of 0 one that never was."""
        realised, known = register.realised, hits(register, statistics)
        # A large policy takes seconds.
        found = await aside.run(lambda check: lint(realised, known, unhit_days, check))
        wanted = [finding for finding in found if kind in (None, finding.kind)]
        return listed(wanted, page, lambda finding: _shown(realised.world, finding))

    return routes


def _shown(world: World, finding: Finding) -> Json:
    return {
        "kind": finding.kind,
        **_object(world, finding.path, finding.name),
        "why": finding.why,
        "others": [_object(world, path) for path in finding.others[:MAX_OTHERS]],
        "others_count": len(finding.others),
        "next_step": finding.next_step,
    }


def _object(world: World, path: str, name: str = "") -> Json:
    stored = world.get(path)
    return {"path": path, "display_name": stored.name if stored else name}
