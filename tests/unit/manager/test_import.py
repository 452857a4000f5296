"""What an NSX manager exported: taken as it means, and every thing that is not is in the report."""

import asyncio
import copy
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from manager_stub.api import policy_file
from manager_stub.api.declared import change
from manager_stub.api.errors import Problem
from manager_stub.api.imported import Import
from manager_stub.api.imported import imported as imported_in_time
from manager_stub.world import World
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

IMPORT = f"{VSFW}/policy/import"
SECTION = "/infra/domains/default/security-policies/web"
DEFAULTS = "/infra/domains/default/security-policies/default-layer3-section"
GROUPS = "/infra/domains/default/groups"

GROUP = "Domain:default/Group:web"
POLICY = "Domain:default/SecurityPolicy:web"
RULE = f"{POLICY}/Rule:in"
DEFAULT = "Domain:default/SecurityPolicy:default-layer3-section"
"""Places in an export, see `below`."""


def imported(world: World, tree: Any) -> Import:
    return imported_in_time(world, tree, lambda: None)


def nsx(kind: str, id: str, **fields: Any) -> dict[str, Any]:
    """A child as an NSX manager exports it, with what it says of every object."""
    said = {
        "resource_type": kind,
        "id": id,
        "display_name": id,
        "path": f"/somewhere/{id}",
        "relative_path": id,
        "parent_path": "/somewhere",
        "remote_path": "",
        "unique_id": "5a59778c-47d4-4444-a529-3f0652f3d422",
        "realization_id": "5a59778c-47d4-4444-a529-3f0652f3d422",
        "owner_id": "9d96be5a-afca-498c-8c04-8ca4514f7b40",
        "origin_site_id": "9d96be5a-afca-498c-8c04-8ca4514f7b40",
        "marked_for_delete": False,
        "overridden": False,
        "_create_time": 1688751880285,
        "_create_user": "admin",
        "_last_modified_time": 1689007787614,
        "_last_modified_user": "admin",
        "_system_owned": False,
        "_protection": "NOT_PROTECTED",
        "_revision": 7,
    }
    return {"resource_type": f"Child{kind}", "marked_for_delete": False, kind: said | fields}


def rule(id: str, **fields: Any) -> dict[str, Any]:
    said = {
        "action": "ALLOW",
        "source_groups": ["ANY"],
        "destination_groups": [f"{GROUPS}/web"],
        "services": ["/infra/services/HTTPS"],
        "profiles": ["ANY"],
        "scope": ["ANY"],
        "logged": False,
        "disabled": False,
        "sources_excluded": False,
        "destinations_excluded": False,
        "direction": "IN_OUT",
        "ip_protocol": "IPV4_IPV6",
        "is_default": False,
        "rule_id": 1011,
        "sequence_number": 10,
    }
    return nsx("Rule", id, **said | fields)


def condition(**fields: Any) -> dict[str, Any]:
    said = {"member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS", "value": "tier|web"}
    return {"resource_type": "Condition", "id": "c", "_protection": "NOT_PROTECTED"} | said | fields


def export() -> Any:
    """One of each kind that has a counterpart."""
    section = {
        "category": "Application",
        "sequence_number": 5,
        "stateful": True,
        "tcp_strict": False,
        "locked": False,
        "lock_modified_time": 0,
        "internal_section_id": "x",
        "rule_count": 2,
        "connectivity_preference": "NONE",
        "logging_enabled": False,
        "scheduler_path": "/infra/firewall-schedulers/week",
    }
    entry = {"l4_protocol": "TCP", "source_ports": [], "destination_ports": ["8080"]}
    or_ = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR", "marked_for_delete": False}
    nested = {"resource_type": "NestedExpression", "expressions": [condition()]}
    addresses = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/24", "fd00::1"]}
    below = [
        nsx(
            "Group",
            "web",
            expression=[condition(), or_, nested, or_, addresses],
            tags=[{"scope": "a", "tag": "b"}],
            extended_expression=[],
            reference=False,
        ),
        nsx(
            "SecurityPolicy",
            "web",
            **section,
            children=[
                rule("in"),
                rule("out", direction="OUT", services=["/infra/services/alt"], sequence_number=20),
            ],
        ),
        nsx(
            "SecurityPolicy",
            "default-layer3-section",
            is_default=True,
            category="Application",
            display_name="Default Layer3 Section",
            sequence_number=999999,
            children=[
                rule("default_rule_NDP", is_default=True, sequence_number=25000, destination_groups=["ANY"]),
                rule(
                    "default-layer3-rule",
                    is_default=True,
                    action="DROP",
                    logged=True,
                    services=["ANY"],
                    destination_groups=["ANY"],
                    sequence_number=2147483647,
                ),
            ],
        ),
    ]
    ports = nsx("ServiceEntry", "alt-8080", **entry)
    ports["ServiceEntry"]["resource_type"] = "L4PortSetServiceEntry"
    return {
        "resource_type": "Infra",
        "id": "infra",
        "display_name": "infra",
        "path": "/infra",
        "_revision": 1,
        "children": [
            nsx("Domain", "default", children=below),
            nsx("Service", "alt", service_type="NON_ETHER", is_default=False, children=[ports]),
            nsx("Service", "HTTPS", is_default=True, _system_owned=True, service_entries=[{"x": 1}]),
            nsx(
                "PolicyFirewallScheduler",
                "week",
                days=["MONDAY"],
                time_interval=[],
                recurring=True,
                start_date="01/01/2026",
                timezone="UTC",
            ),
            nsx("Segment", "blue", overlay_id=71, vlan_ids=[]),
            nsx("PolicyExcludeList", "exclude-list", members=[f"{GROUPS}/web"]),
        ],
    }


def below(tree: Any, where: str) -> Any:
    """The object at a place, as in "Domain:default/Group:web"; the root where that is empty."""
    for step in filter(None, where.split("/")):
        kind, id = step.split(":")
        tree = next(child[kind] for child in tree["children"] if child.get(kind, {}).get("id") == id)
    return tree


async def test_what_has_a_counterpart_is_taken_and_nothing_is_left_out(manager: Manager) -> None:
    """Groups, services with entries below them, schedules, segments, sections, rules, what is predefined; the
    same export again changes nothing."""
    answer = await manager.call("POST", IMPORT, export())
    assert answer["left_out"] == []
    assert answer["metadata"]["unique_id"] == 13
    assert answer["metadata"]["profiles"] == 4
    assert answer["metadata"]["Service predefined here too"] == 1
    section = await manager.call("GET", f"{DOMAIN}/security-policies/web")
    assert [each["id"] for each in section["rules"]] == ["in", "out"]
    assert section["tcp_strict"] is False
    group = await manager.call("GET", f"{DOMAIN}/groups/web")
    assert len(group["expression"]) == 5
    service = await manager.call("GET", f"{INFRA}/services/alt")
    assert service["service_entries"][0]["destination_ports"] == ["8080"]
    default = await manager.call("GET", f"/policy/api/v1{DEFAULTS}/rules/default-layer3-rule")
    assert (default["action"], default["logged"]) == ("DROP", True)
    stored = manager.stored()
    assert (await manager.call("POST", IMPORT, export()))["results"] == []
    assert manager.stored() == stored


async def test_what_is_here_already_stays(manager: Manager) -> None:
    """Where the export does not have it."""
    await manager.call("PUT", f"{DOMAIN}/groups/mine", {})
    await manager.call("POST", IMPORT, export())
    await manager.call("GET", f"{DOMAIN}/groups/mine")


FAULTS: list[tuple[str, dict[str, Any], str, str, str]] = [
    # below which object, what is put there, path, what and why of the report; "-" where the object is taken
    ("", {"children+": nsx("Tier1", "t1")}, "/somewhere/t1", "Tier1", "has no counterpart here"),
    (
        "Domain:default",
        {"children+": nsx("GatewayPolicy", "g")},
        "/somewhere/g",
        "GatewayPolicy",
        "no counterpart",
    ),
    ("", {"children+": nsx("Domain", "cgw")}, "/somewhere/cgw", "Domain", "no counterpart"),
    (GROUP, {"children+": nsx("GroupMonitoring", "m")}, "/somewhere/m", "GroupMonitoring", "-"),
    (RULE, {"profiles": ["/infra/context-profiles/SSL"]}, f"{SECTION}/rules/in", "profiles", "may say"),
    (RULE, {"tag": "for the log"}, f"{SECTION}/rules/in", "tag: for the log", "-"),
    (RULE, {"action": "REDIRECT"}, f"{SECTION}/rules/in", "action: REDIRECT", "Input should be"),
    (RULE, {"scope": ["/infra/segments/blue"]}, f"{SECTION}/rules/in", "scope.0", "not here"),
    (RULE, {"services": ["/infra/services/own"]}, f"{SECTION}/rules/in", "services.0", "not here"),
    (RULE, {"marked_for_delete": True}, f"{SECTION}/rules/in", "marked_for_delete", "deletes nothing"),
    (POLICY, {"application_connectivity_strategy": [{}]}, SECTION, "application_", "may say"),
    (POLICY, {"category": "SharedPreRules"}, SECTION, "category: SharedPreRules", "Input should be"),
    (POLICY, {"logging_enabled": True}, SECTION, "logging_enabled: True", "-"),
    (GROUP, {"children": {}}, f"{GROUPS}/web/children", "children", "-"),
    (POLICY, {"children+": "x"}, f"{SECTION}/children.2", "None", "-"),
    (POLICY, {"children+": rule("in")}, f"{SECTION}/rules/in", "Rule", "-"),
    (GROUP, {"expression": [condition(member_type="IPSet")]}, f"{GROUPS}/web", "expression.0.member", "left"),
    (GROUP, {"expression": [condition(new=1)]}, f"{GROUPS}/web", "expression.0.new: 1", "unknown field"),
    (GROUP, {"expression": [condition(description="d")]}, f"{GROUPS}/web", "expression.0.desc", "-"),
    (GROUP, {"expression": [{"resource_type": "IdentityGroupExpression"}]}, f"{GROUPS}/web", "expr", "left"),
    (GROUP, {"extended_expression": [{"x": 1}]}, f"{GROUPS}/web", "extended_expression", "left out"),
    (
        "Service:alt",
        {"service_entries": [{"resource_type": "ALGTypeServiceEntry", "alg": "SUN_RPC_TCP"}]},
        "/infra/services/alt",
        "service_entries.0.alg: SUN_RPC_TCP",
        "left out",
    ),
    (
        "Service:alt",
        {"children+": nsx("ServiceEntry", "odd")},
        "/infra/services/alt",
        "service_entries.1",
        "left out",
    ),
    (
        "Service:HTTPS",
        {"_system_owned": False, "is_default": False},
        "/infra/services/HTTPS",
        "service_entries",
        "left",
    ),
    ("Segment:blue", {"transport_zone_path": "/z"}, "/infra/segments/blue", "transport_zone_path: /z", "-"),
    ("Segment:blue", {"vlan_ids": ["0-4094"]}, "/infra/segments/blue", "vlan_ids.0: 0-4094", "left out"),
    (DEFAULT, {"children+": rule("own")}, f"{DEFAULTS}/rules/own", "Rule", "no further rules"),
    (
        f"{DEFAULT}/Rule:default_rule_NDP",
        {"is_default": False, "disabled": True},
        f"{DEFAULTS}/rules/default-ndp",
        "disabled",
        "-",
    ),
]


def faulty(where: str, put: dict[str, Any]) -> Any:
    tree = export()
    node = below(tree, where)
    for key, value in put.items():
        if key == "children+":
            node.setdefault("children", []).append(value)
        else:
            node[key] = value
    return tree


async def test_each_thing_without_a_counterpart_is_in_the_report(manager: Manager) -> None:
    """By path, what, and why; and the rest is taken."""
    clean = imported(manager.register.world, export()).put.keys()
    for where, put, path, what, why in FAULTS:
        found = imported(manager.register.world, faulty(where, put))
        lines = [line for line in found.left_out if line.path == path and line.what.startswith(what)]
        assert len(lines) == 1, (where, put, found.left_out)
        if why == "-":
            assert path in found.put or path not in clean, (where, put)
        else:
            assert why in lines[0].why
            assert path not in found.put
        about = {line.path for line in found.left_out}
        assert clean - found.put.keys() <= about


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every object within."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


async def test_an_unknown_field_is_found_wherever_it_stands(manager: Manager) -> None:
    """In every object of an export, however deep: each is named in the report."""
    tree, tried = export(), 0
    for place in places(tree):
        if 2 in place[1:2]:
            continue  # what is predefined on both sides is the same thing, whatever it says
        changed = copy.deepcopy(tree)
        node = changed
        for key in place:
            node = node[key]
        node["surprise"] = "!"
        found = imported(manager.register.world, changed)
        assert any("surprise" in line.what for line in found.left_out), place
        tried += 1
    assert tried > 30


@pytest.mark.slow
async def test_nonsense_in_any_place_is_reported_or_refused(manager: Manager) -> None:
    """Instead of any value of an export, and of a document: never a fault of the manager."""
    world = manager.register.world
    await manager.call("POST", IMPORT, export())
    document = await manager.call("GET", f"{VSFW}/policy")
    for read, body in ((imported, export()), (change, document)):
        for place in [*values(body)]:
            for nonsense in NONSENSE:
                changed = copy.deepcopy(body)
                node = changed
                for key in place[:-1]:
                    node = node[key]
                node[place[-1]] = nonsense
                with suppress(Problem):
                    read(world, changed)


NONSENSE: list[Any] = [None, True, -1, "\x00", [], {}, [{}], [[1]], {"id": {}}, {"id": []}]


def values(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value within."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from values(each, (*path, key))


async def test_what_is_left_out_takes_with_it_what_names_it(manager: Manager) -> None:
    """A group, the group that has it as a member, the section applied to that one, its rules and those of
    others that name it: a line each, and nothing of them is here."""
    tree = faulty(GROUP, {"expression": [{"resource_type": "IdentityGroupExpression"}]})
    domain = below(tree, "Domain:default")
    paths = {"resource_type": "PathExpression", "paths": [f"{GROUPS}/web"]}
    domain["children"] += [
        nsx("Group", "outer", expression=[paths]),
        nsx(
            "SecurityPolicy",
            "scoped",
            scope=[f"{GROUPS}/outer"],
            rules=[rule("below", destination_groups=["ANY"])["Rule"]],
        ),
        nsx(
            "SecurityPolicy",
            "other",
            children=[
                rule("bad", source_groups=[f"{GROUPS}/outer"]),
                rule("good", destination_groups=["ANY"]),
            ],
        ),
    ]
    answer = await manager.call("POST", f"{IMPORT}/diff", tree)
    sections = "/infra/domains/default/security-policies"
    lost = {line["path"] for line in answer["left_out"]}
    assert lost == {
        f"{GROUPS}/web",
        f"{GROUPS}/outer",
        f"{sections}/scoped",
        f"{sections}/scoped/rules/below",
        f"{sections}/other/rules/bad",
        f"{SECTION}/rules/in",
        f"{SECTION}/rules/out",
        "/infra/settings/firewall/security/exclude-list",
    }
    taken = {each["path"] for each in answer["results"]}
    assert f"{sections}/other/rules/good" in taken
    assert not taken & lost


async def test_an_import_takes_no_longer_than_it_is_large(manager: Manager) -> None:
    """A chain of groups whose last one is not there: the steps grow with the export, not with its square, and
    before each it is asked whether there is time for it."""
    steps = 0

    def check() -> None:
        nonlocal steps
        steps += 1

    size = 3000
    tree = export()
    chain = [f"{GROUPS}/g{i}" for i in range(size + 1)]
    below(tree, "Domain:default")["children"] += [
        nsx("Group", f"g{i}", expression=[{"resource_type": "PathExpression", "paths": [chain[i + 1]]}])
        for i in range(size)
    ]
    taken = len(imported(manager.register.world, export()).put)
    found = imported_in_time(manager.register.world, tree, check)
    assert {line.path for line in found.left_out} == set(chain[:-1])
    assert len(found.left_out) == size
    assert len(found.put) == taken
    assert size < steps < 4 * size


async def test_services_in_services_that_are_not_here_are_left_out(manager: Manager) -> None:
    """At any depth, with the rule that names the outermost."""
    tree = export()
    for outer, inner in (("a", "b"), ("b", "none")):
        entry = {"resource_type": "NestedServiceServiceEntry", "id": "n"}
        entry["nested_service_path"] = f"/infra/services/{inner}"
        tree["children"].append(nsx("Service", outer, service_entries=[entry]))
    below(tree, RULE)["services"] = ["/infra/services/a"]
    found = imported(manager.register.world, tree)
    lost = {line.path for line in found.left_out}
    assert lost == {"/infra/services/a", "/infra/services/b", f"{SECTION}/rules/in"}


async def test_what_changes_while_an_export_is_read_is_not_overwritten(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read beside the thread that publishes, which goes on meanwhile: 412, and the other's change
    stays."""
    begun, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def slow(*arguments: Any) -> Import:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)
        return imported_in_time(*arguments)

    monkeypatch.setattr(policy_file, "imported", slow)
    reading = asyncio.create_task(manager.answer("POST", IMPORT, export()))
    await begun.wait()
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"description": "meanwhile"})
    go_on.set()
    assert (await reading).status_code == 412
    assert (await manager.call("GET", f"{DOMAIN}/groups/web"))["description"] == "meanwhile"


async def test_an_export_of_a_part_goes_by_references(manager: Manager) -> None:
    """As with a filter for rules only: the section is here already."""
    await manager.call("PUT", f"{DOMAIN}/security-policies/web", {})
    section = {"resource_type": "ChildResourceReference", "target_type": "SecurityPolicy", "id": "web"}
    only = rule("in", destination_groups=["ANY"])
    domain = {
        "resource_type": "ChildResourceReference",
        "target_type": "Domain",
        "id": "default",
        "children": [section | {"children": [only]}],
    }
    answer = await manager.call("POST", IMPORT, {"resource_type": "Infra", "children": [domain]})
    assert answer["left_out"] == []
    assert [each["path"] for each in answer["results"]] == [f"{SECTION}/rules/in"]
    domain["children"] = [section | {"id": "none", "children": [only]}]
    answer = await manager.call("POST", IMPORT, {"resource_type": "Infra", "children": [domain]})
    assert "belongs to" in answer["left_out"][0]["why"]


KEEPS_OUT: list[tuple[str, dict[str, Any], str]] = [
    # below which object, what is put there, what is left out and keeps something out
    (RULE, {"action": "DROP", "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (RULE, {"action": "REJECT", "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (RULE, {"action": "JUMP_TO_APPLICATION"}, f"{SECTION}/rules/in"),
    (RULE, {"action": "REDIRECT"}, f"{SECTION}/rules/in"),
    (RULE, {"action": "DROP", "services": ["/infra/services/own"]}, f"{SECTION}/rules/in"),
    (RULE, {"destinations_excluded": True, "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (POLICY, {"category": "SharedPreRules", "children+": rule("d", action="DROP")}, f"{SECTION}/rules/d"),
    (POLICY, {"connectivity_preference": "ALLOWLIST"}, SECTION),
    (RULE, {"profiles": ["x"]}, ""),
    (RULE, {"action": "DROP", "disabled": True, "profiles": ["x"]}, ""),
    (RULE, {"action": "DROP", "marked_for_delete": True}, ""),
    (RULE, {"action": "DROP", "tag": "for the log"}, ""),
    (
        "Domain:default",
        {"children+": nsx("GatewayPolicy", "g", rules=[rule("d", action="DROP")["Rule"]])},
        "",
    ),
]


async def test_what_keeps_something_out_is_not_left_out_in_silence(manager: Manager) -> None:
    """Rules that drop, reject, jump or exclude, and sections that end in a rule of their own; not what only
    allows, or is not in force."""
    for where, put, keeps_out in KEEPS_OUT:
        found = imported(manager.register.world, faulty(where, put))
        assert found.left_out
        assert bool(found.opening()) == bool(keeps_out), (where, put)
        assert found.opening().startswith(keeps_out)


async def test_an_import_that_would_let_more_in_is_refused_unless_that_is_said(manager: Manager) -> None:
    """The rules below would decide: the differences say so too, and nothing is changed."""
    tree, before = faulty(RULE, {"action": "DROP", "profiles": ["x"]}), manager.stored()
    shown = await manager.call("POST", f"{IMPORT}/diff", tree)
    assert shown["refused"].startswith(f"{SECTION}/rules/in: cannot be taken")
    answer = await manager.answer("POST", IMPORT, tree)
    assert (answer.status_code, answer.json()["error_message"]) == (400, shown["refused"])
    assert manager.stored() == before
    assert "refused" not in await manager.call("POST", f"{IMPORT}/diff?partly=true", tree)
    assert (await manager.call("POST", f"{IMPORT}?partly=true", tree))["left_out"]
    rules = (await manager.call("GET", f"{DOMAIN}/security-policies/web"))["rules"]
    assert [each["id"] for each in rules] == ["out"]


async def test_what_is_no_export_or_cannot_be_changes_nothing(manager: Manager) -> None:
    """Refused whole, with the reason; and so is what is not any more what was shown."""
    before = manager.stored()
    cycle = export()
    paths = {"resource_type": "PathExpression", "paths": [f"{GROUPS}/web"]}
    below(cycle, GROUP)["expression"] = [paths]
    for tree, query, status, said in (
        ({"results": []}, "", 400, "no hierarchical export"),
        (cycle, "", 400, "members of each other"),
        (export(), f"?digest={'0' * 64}", 412, "is not what it was"),
    ):
        answer = await manager.answer("POST", f"{IMPORT}{query}", tree)
        assert answer.status_code == status
        assert said in answer.json()["error_message"]
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(Problem):
        imported(manager.register.world, faulty(GROUP, {"tags": deep}))
    assert manager.stored() == before
