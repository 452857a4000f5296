"""What of an NSX export is not taken: every thing is in the report, with what depends on it."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from manager_stub.api.declared import change
from manager_stub.api.errors import Problem
from tests.unit.manager.nsx_export import (
    DEFAULT,
    DEFAULTS,
    GROUP,
    GROUPS,
    IMPORT,
    POLICY,
    RULE,
    SECTION,
    below,
    condition,
    export,
    faulty,
    imported,
    nsx,
    rule,
)
from tests.unit.manager.rest import VSFW, Manager

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
    ("", {"children+": nsx("NSGroup", "old")}, "/somewhere/old", "NSGroup", "has no counterpart here"),
    ("", {"children+": nsx("Domain", "cgw")}, "/somewhere/cgw", "Domain", "no counterpart"),
    (GROUP, {"children+": nsx("GroupMonitoring", "m")}, "/somewhere/m", "GroupMonitoring", "-"),
    (RULE, {"profiles": ["/infra/context-profiles/SSL"]}, f"{SECTION}/rules/in", "profiles", "may say"),
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
