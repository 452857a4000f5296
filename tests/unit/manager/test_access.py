"""Roles: which call each may make, call by call."""

import re

import pytest

from manager_stub.access import Need, Role, may, need
from manager_stub.guard import OPEN
from tests.unit.manager.rest import Manager

PASSWORD = "a password of length"
ALL = "auditor security_op security_engineer enterprise_admin"
CHANGE_POLICY = "security_engineer enterprise_admin"
OPERATE = f"security_op {CHANGE_POLICY}"
SEE_USERS = "auditor enterprise_admin"
ADMIN = "enterprise_admin"

TABLE = [
    (r"GET /api/v1/vsfw/(users|audit-log|enrolment-tokens)\b", SEE_USERS),
    (r"GET \S+/dry-run$", OPERATE),
    (r"GET /", ALL),
    (r"\w+ /api/(session/|v1/vsfw/tokens|v1/vsfw/own-password)", ALL),
    (r"POST (/policy)?/api/v1/search/querypipeline$", ALL),
    (r"POST (/policy)?/api/v1/fabric/virtual-machines$", OPERATE),
    (r"POST /policy/api/v1/infra/realized-state/", OPERATE),
    (r"PUT /policy/api/v1/infra/tags/tag-operations/", OPERATE),
    (r"POST (/policy)?/api/v1/alarms/", OPERATE),
    (r"POST /api/v1/vsfw/(addresses|disputes)$", OPERATE),
    (r"POST /api/v1/vsfw/hosts/\{id\}$", OPERATE),
    (r"(POST|DELETE) /api/v1/vsfw/migrations\b", OPERATE),
    (r"POST /api/v1/vsfw/policy(/import)?/diff$", ALL),
    (r"(PUT|POST) /api/v1/vsfw/policy\b", CHANGE_POLICY),
    (r"(PUT|PATCH|POST|DELETE) (/policy/api/v1/infra|/api/v1)/traceflows\b", OPERATE),
    (r"(PUT|DELETE) /api/v1/vsfw/(vms|clusters|datacenters)/", CHANGE_POLICY),
    (r"(POST|DELETE) /api/v1/vsfw/(configurations|publish)\b", CHANGE_POLICY),
    (r"(POST|PUT|PATCH|DELETE) /policy/api/v1/infra\b", CHANGE_POLICY),
    (r"(POST|PUT|PATCH) /policy/api/v1/orgs\b", ADMIN),
    (r"(POST|DELETE) /api/v1/vsfw/(hosts|dead-letters|enrolment-tokens)\b", ADMIN),
    (r"(PUT|DELETE) /api/v1/vsfw/users/", ADMIN),
    (r"(POST|PUT) /api/v1/vsfw/(components/|controllers$)", ADMIN),
]
"""What is promised: calls, and the roles that may make them. The first line that fits counts."""


async def test_every_call_is_open_to_the_roles_that_the_table_says(manager: Manager) -> None:
    """All of the interface; a call that the table does not know fails the test."""
    paths = (await manager.call("GET", "/openapi.json"))["paths"]
    calls = [f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs if path not in OPEN]
    assert len(calls) > 60
    for call in calls:
        promised = next((roles for pattern, roles in TABLE if re.match(pattern, call)), None)
        assert promised is not None, f"no line for {call}"
        method, path = call.split()
        assert [str(role) for role in Role if may(role, method, path)] == promised.split(), call


async def test_the_door_asks_the_table(manager: Manager) -> None:
    """For each role a call it may not make: 403 with its name, and nothing changes; and one it may."""
    group, vm = "/policy/api/v1/infra/domains/default/groups/g", "/api/v1/vsfw/addresses?action=forget"
    draft = "/policy/api/v1/infra/drafts/d"
    await manager.call("PUT", draft, {})
    for role, refused, allowed in (
        ("auditor", ("POST", vm), ("GET", "/api/v1/vsfw/audit-log")),
        ("auditor", ("GET", f"{draft}/dry-run"), ("GET", f"{draft}/diff")),
        ("security_op", ("PUT", group), ("GET", group.rsplit("/", 1)[0])),
        ("security_engineer", ("GET", "/api/v1/vsfw/users"), ("PUT", group)),
    ):
        await manager.call(
            "PUT", "/api/v1/vsfw/users/someone", {"role": role, "password": "a password of length"}
        )
        admin, manager.rest.auth = manager.rest.auth, ("someone", "a password of length")
        answer = await manager.answer(*refused, {})
        assert (answer.status_code, answer.json()["error_code"]) == (403, 401)
        assert f"someone with the role {role} may not" in answer.json()["error_message"]
        assert (await manager.answer(*allowed, {})).status_code == 200
        manager.rest.auth = admin


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/no/such/thing"),
        ("POST", "/policy/api/v1/infraction"),
        ("TRACE", "/policy/api/v1/infra"),
        ("OPTIONS", "/"),
        ("POST", "/api/v1/vsfw"),
        ("DELETE", "/"),
    ],
)
def test_what_nobody_entered_is_the_enterprise_admins(method: str, path: str) -> None:
    """Unknown paths and methods, and names that only begin like a known one."""
    assert need(method, path) is Need.SYSTEM
