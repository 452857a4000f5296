"""How much of what has a limit is used: /api/v1/capacity/dashboard/usage, in NSX's shape."""

from fastapi import APIRouter

from manager_stub.api.objects import Json
from manager_stub.levels import rule_lines
from manager_stub.publish import Publishing
from manager_stub.register import Register
from manager_stub.transaction import MAX_SAVED
from vsfwd.policy.model import MAX_RULES


def router(register: Register, publishing: Publishing) -> APIRouter:
    routes = APIRouter(tags=["Capacity"])

    @routes.get("/api/v1/capacity/dashboard/usage")
    @routes.get("/policy/api/v1/capacity/dashboard/usage")
    async def usage() -> Json:
        wanted = [host.level.wanted.objects["rules"].values() for host in register.hosts.values()]
        fullest = max((sum(map(rule_lines, rules)) for rules in wanted), default=0)
        return {
            "capacity_usage": [
                _usage("RULES_ON_A_HOST", "Rules on the host that has most", fullest, MAX_RULES),
                _usage(
                    "SAVED_CONFIGURATIONS", "Saved configurations", len(publishing.all_saved()), MAX_SAVED
                ),
            ]
        }

    return routes


def _usage(kind: str, name: str, count: int, limit: int) -> Json:
    return {
        "usage_type": kind,
        "display_name": name,
        "current_usage_count": count,
        "max_supported_count": limit,
        "current_usage_percentage": round(100 * count / limit, 1),
    }
