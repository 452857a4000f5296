"""Locked sections: who locked one changes it, and nobody else."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, VSFW, Manager

pytestmark = pytest.mark.slow

SECTION = f"{DOMAIN}/security-policies/s"
RULE = f"{SECTION}/rules/r"
PASSWORD = "a password of length"


@pytest.fixture
async def locked(manager: Manager) -> Manager:
    """Ann has made a section and locked it."""
    for name in ("ann", "bob"):
        user = {"role": "security_engineer", "password": PASSWORD}
        await manager.call("PUT", f"{VSFW}/users/{name}", user)
    manager.rest.auth = ("ann", PASSWORD)
    rules = [{"id": "r", "action": "ALLOW"}]
    await manager.call("PUT", SECTION, {"locked": True, "comments": "moving", "rules": rules})
    return manager


CHANGES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("PATCH", SECTION, {"locked": False}),
    ("PATCH", SECTION, {"description": "mine"}),
    ("PATCH", SECTION, {"rules": [{"id": "new", "action": "DROP"}]}),
    ("PUT", SECTION, {"_revision": 0, "lock_modified_by": "bob"}),
    ("PUT", f"{SECTION}/rules/new", {"action": "DROP"}),
    ("PATCH", RULE, {"action": "DROP"}),
    ("DELETE", RULE, None),
    ("DELETE", SECTION, None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_others_are_refused(
    locked: Manager, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """The section, its rules, and the lock: by name, with the comment, and nothing changes."""
    locked.rest.auth = ("bob", PASSWORD)
    before = locked.stored()
    refused = await locked.answer(method, path, body)
    assert refused.status_code == 400
    assert "locked: /infra/domains/default/security-policies/s is locked by ann since 20" in refused.text
    assert "moving" in refused.text
    assert locked.stored() == before


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_who_locked_it_goes_on(
    locked: Manager, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """As if there were no lock."""
    await locked.call(method, path, body)


async def test_what_is_not_locked_is_everybodys(locked: Manager) -> None:
    """Another section; this one, once Ann lets it go; and it says who did."""
    shown = await locked.call("GET", SECTION)
    assert (shown["locked"], shown["lock_modified_by"], shown["comments"]) == (True, "ann", "moving")
    locked.rest.auth = ("bob", PASSWORD)
    await locked.call("PUT", f"{DOMAIN}/security-policies/other", {"rules": [{"id": "r", "action": "DROP"}]})
    locked.rest.auth = ("ann", PASSWORD)
    await locked.call("PATCH", SECTION, {"locked": False})
    locked.rest.auth = ("bob", PASSWORD)
    await locked.call("PATCH", RULE, {"action": "DROP"})
    await locked.call("PATCH", SECTION, {"locked": True, "lock_modified_by": "ann"})
    assert (await locked.call("GET", SECTION))["lock_modified_by"] == "bob"


async def test_an_enterprise_admin_is_not_locked_out(locked: Manager) -> None:
    """Changes and unlocks."""
    await locked.call("GET", SECTION)
    locked.rest.auth = ("bob", PASSWORD)
    assert (await locked.answer("PATCH", RULE, {"action": "DROP"})).status_code == 400
    locked.rest.auth = locked.admin
    await locked.call("PATCH", RULE, {"action": "DROP"})
    await locked.call("PATCH", SECTION, {"locked": False})
    assert (await locked.call("GET", SECTION))["lock_modified_by"] == "admin"


async def test_a_default_section_can_be_locked(locked: Manager) -> None:
    """Its default rule then is Ann's."""
    default = f"{DOMAIN}/security-policies/default-layer3-section"
    await locked.call("PATCH", default, {"locked": True})
    locked.rest.auth = ("bob", PASSWORD)
    refused = await locked.answer("PATCH", f"{default}/rules/default-layer3-rule", {"action": "DROP"})
    assert refused.status_code == 400
    assert "is locked by ann" in refused.text
