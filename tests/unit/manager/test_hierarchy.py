"""The hierarchical API: trees of objects, changed all or nothing."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

RULE = {"resource_type": "ChildRule", "Rule": {"id": "r", "action": "DROP"}}


def child(kind: str, **fields: Any) -> dict[str, Any]:
    return {"resource_type": f"Child{kind}", kind: fields}


def domain(*children: Any) -> dict[str, Any]:
    reference = {"resource_type": "ChildResourceReference", "target_type": "Domain", "id": "default"}
    return {"resource_type": "Infra", "children": [reference | {"children": list(children)}]}


async def test_a_tree_that_was_read_can_be_written_back(manager: Manager) -> None:
    """GET with a filter, PATCH of exactly that: the same objects, one revision on."""
    tree = domain(child("Group", id="g"), child("SecurityPolicy", id="s", children=[RULE]))
    await manager.call("PATCH", INFRA, tree)
    read = await manager.call("GET", f"{INFRA}?filter=Type-Group|SecurityPolicy|Rule")
    await manager.call("PATCH", INFRA, read)
    again = await manager.call("GET", f"{INFRA}?filter=Type-Group|SecurityPolicy|Rule")
    assert [without(each) for each in nodes(read)] == [without(each) for each in nodes(again)]
    assert {"g", "s", "r"} <= {each["id"] for each in nodes(again)}


def nodes(tree: Any) -> list[Any]:
    found = []
    for wrapped in tree.get("children", []):
        node = wrapped[wrapped["resource_type"].removeprefix("Child")]
        found += [node, *nodes(node)]
    return found


def without(node: Any) -> Any:
    return {key: node[key] for key in node if key not in ("_revision", "_last_modified_time", "children")}


async def test_what_is_marked_for_delete_goes_with_what_is_below_it(manager: Manager) -> None:
    """A section and the group its rule names, in one change; what is not there is no error."""
    rule = child("Rule", id="r", action="DROP", source_groups=["/infra/domains/default/groups/g"])
    await manager.call(
        "PATCH", INFRA, domain(child("Group", id="g"), child("SecurityPolicy", id="s", children=[rule]))
    )
    gone = [child(kind, id=id) | {"marked_for_delete": True} for kind, id in (("Group", "g"), ("Group", "x"))]
    refused = await manager.answer("PATCH", INFRA, domain(*gone))
    assert (refused.status_code, refused.json()["error_code"]) == (400, 500030)
    section = child("SecurityPolicy", id="s") | {"marked_for_delete": True}
    await manager.call("PATCH", INFRA, domain(section, *gone))
    assert (await manager.answer("GET", f"{DOMAIN}/groups/g")).status_code == 404
    assert (await manager.answer("GET", f"{DOMAIN}/security-policies/s/rules/r")).status_code == 404


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"children": {}}, "children"),
        ({"children": ["x"]}, "children.0.resource_type"),
        ({"children": [child("Tier0", id="t")]}, "children.0.resource_type"),
        ({"children": [{"resource_type": "ChildService"}]}, "children.0.Service"),
        ({"children": [child("Service", id="a/b")]}, "children.0.id"),
        ({"children": [child("Domain", id="other")]}, "children.0.Domain.id"),
        ({"surprise": 1}, "surprise"),
        (domain(child("Group", id="g", surprise=1)), "children.0.Domain.children.0.Group: surprise"),
        (domain(child("Group", id="g"), child("Group", id="g")), "children.0.Domain.children.1.Group"),
        (domain(child("SecurityPolicy", id="s", children=[RULE, RULE])), "children.1.Rule"),
        (domain(child("SecurityPolicy", id="s", _revision=7)), "_revision"),
    ],
)
async def test_a_tree_with_one_fault_changes_nothing(manager: Manager, tree: Any, named: str) -> None:
    """What is no tree, no type, no id, there twice or of another revision: refused whole, with its place."""
    before = manager.stored()
    if isinstance(tree.get("children"), list):
        tree = {"children": [*domain(child("Group", id="good"))["children"], *tree["children"]]}
        named = named.replace("children.0", "children.1", 1)
    answer = await manager.answer("PATCH", INFRA, tree)
    assert answer.status_code in (400, 412)
    assert named in answer.json()["error_message"]
    assert manager.stored() == before
