"""Drafts: changes that are kept until they are published, all at once."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

DRAFT = f"{INFRA}/drafts/d"
GROUP = f"{DOMAIN}/groups/g"
PATH = "/infra/domains/default/groups/g"


def tree(*children: Any) -> dict[str, Any]:
    domain = {"resource_type": "ChildResourceReference", "target_type": "Domain", "id": "default"}
    return {"display_name": "next", "user_area": {"children": [domain | {"children": list(children)}]}}


def group(**fields: Any) -> dict[str, Any]:
    return {"resource_type": "ChildGroup", "Group": {"id": "g"} | fields}


async def test_a_draft_changes_nothing_until_it_is_published(manager: Manager) -> None:
    """It shows what it would change; published, that is so, and the draft is gone."""
    await manager.call("PUT", GROUP, {"description": "one"})
    await manager.call("PUT", DRAFT, tree(group(description="two")))
    assert (await manager.call("GET", GROUP))["description"] == "one"
    diff = await manager.call("GET", f"{DRAFT}/diff")
    one, two = {"description": "one"}, {"description": "two"}
    assert diff["results"] == [{"path": PATH, "before": one, "after": two}]
    assert [each["id"] for each in (await manager.call("GET", f"{INFRA}/drafts"))["results"]] == ["d"]
    await manager.call("POST", f"{DRAFT}?action=publish")
    assert (await manager.call("GET", GROUP))["description"] == "two"
    assert (await manager.answer("GET", DRAFT)).status_code == 404


@pytest.mark.parametrize("meanwhile", ["PATCH", "DELETE"])
async def test_a_draft_does_not_overwrite_what_somebody_changed_meanwhile(
    manager: Manager, meanwhile: str
) -> None:
    """409 with the object named, also when the draft was edited after it; nothing of it is published."""
    await manager.call("PUT", GROUP, {"description": "one"})
    await manager.call("PUT", DRAFT, tree(group(description="two")))
    await manager.call(meanwhile, GROUP, {"description": "theirs"})
    await manager.call("PUT", DRAFT, tree(group(description="two!")))
    before = manager.stored()
    answer = await manager.answer("POST", f"{DRAFT}?action=publish")
    assert answer.status_code == 409
    assert PATH in answer.json()["error_message"]
    assert manager.stored() == before


async def test_a_draft_may_be_unfinished_but_not_nonsense(manager: Manager) -> None:
    """What its rules name may still be missing: the diff says so, publishing is refused. A field nobody knows
    is refused at once."""
    rule = {"resource_type": "ChildRule", "Rule": {"id": "r", "action": "DROP", "source_groups": [PATH]}}
    section = {"resource_type": "ChildSecurityPolicy", "SecurityPolicy": {"id": "s", "children": [rule]}}
    await manager.call("PUT", DRAFT, tree(section))
    assert PATH in (await manager.call("GET", f"{DRAFT}/diff"))["refused"]
    assert (await manager.answer("POST", f"{DRAFT}?action=publish")).status_code == 400
    assert (await manager.answer("PUT", DRAFT, tree(group(surprise=1)))).status_code == 400
    await manager.call("PUT", DRAFT, tree(group(), section))
    await manager.call("POST", f"{DRAFT}?action=publish")
    assert (await manager.call("GET", f"{DOMAIN}/security-policies/s/rules/r"))["source_groups"] == [PATH]
