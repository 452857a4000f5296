"""Groups that cannot be: each is refused with the field and, of a limit, both numbers; nothing is stored."""

from typing import Any

import pytest

from manager_stub import group_limits as most
from manager_stub.model import pattern
from tests.unit.manager.expressions import (
    AND,
    OR,
    condition,
    ids,
    ips,
    joined,
    macs,
    named,
    nested,
    paths,
    segment,
    vm,
)
from tests.unit.manager.rest import DOMAIN, VSFW, Manager

pytestmark = pytest.mark.slow

VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
WEB = vm("Name", "EQUALS", "web")
BLUE = segment("Name", "EQUALS", "blue")
ONE_TOO_MANY = [f"10.0.{number // 256}.{number % 256}" for number in range(most.MAX_ADDRESSES + 1)]
NO_SUCH = "there is no"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ([vm("Name", None, "web")], "expression.0: operator: missing"),
        ([vm("Name", "EQUALS", "")], "expression.0.value: "),
        ([vm("Name", "EQUALS", "web", scope_operator="EQUALS")], "expression.0: scope_operator: "),
        ([vm("Tag", "EQUALS", "web", scope_operator="NOTEQUALS")], "expression.0: scope_operator: "),
        ([vm("Tag", "EQUALS", "|")], "expression.0: value: "),
        ([vm("Tag", "CONTAINS", "tier|")], "expression.0: operator: CONTAINS needs a tag"),
        ([segment("OSName", "EQUALS", "x")], "expression.0: key: OSName is not known of a Segment"),
        ([condition("Pod", "Name", "EQUALS", "x")], "expression.0.member_type: "),
        ([vm("Name", "MATCHES", "(")], "expression.0: value: '(' is not a regular expression"),
        ([vm("Name", "MATCHES", r"(a)\1")], "expression.0: value: "),
        ([vm("Name", "MATCHES", "(.*){1,100}x")], "instructions, at most 1000"),
        ([vm("Name", "MATCHES", "(a{100}){100}")], "expression.0: value: "),
        ([nested(vm("Name", "MATCHES", "["))], "expression.0.expressions.0: value: "),
        ([{**nested(WEB), "expressions": joined(OR, WEB, WEB)}], "expression.0.expressions: 1: within a"),
        ([{**nested(WEB), "expressions": [WEB, WEB]}], "expression.0.expressions: 1: "),
        ([{**nested(WEB), "expressions": [nested(WEB)]}], "expression.0.expressions.0.resource_type: "),
        ([{**nested(WEB), "expressions": []}], "expression.0.expressions: "),
        ([nested(WEB), AND, paths(named("web"))], "expression: 1: what is listed"),
        ([ids("VirtualMachine", VM), AND, WEB], "expression: 1: what is listed"),
        ([ids("PhysicalServer", VM)], "expression.0.member_type: "),
        ([ids("VirtualMachine")], "expression.0.external_ids: "),
        ([ids("VirtualMachine", "")], "expression.0.external_ids.0: "),
        ([paths()], "expression.0.paths: "),
        ([paths("nowhere")], "expression.0.paths.0: "),
        ([paths("/infra/services/SSH")], "expression.0.paths: 0: '/infra/services/SSH' is none of"),
        ([paths(named("nobody"))], f"expression.0.paths.0: {NO_SUCH} '{named('nobody')}' among groups"),
        ([paths("/infra/segments/red")], f"expression.0.paths.0: {NO_SUCH} '/infra/segments/red'"),
        ([paths(f"/vsfw/vms/{VNIC}")], f"expression.0.paths.0: {NO_SUCH}"),
        ([paths(f"/vsfw/vnics/{VM}")], f"expression.0.paths.0: {NO_SUCH}"),
        ([paths("/vsfw/clusters/c")], f"expression.0.paths.0: {NO_SUCH}"),
        ([paths("/vsfw/datacenters/d")], f"expression.0.paths.0: {NO_SUCH}"),
        (
            [nested({**WEB, "exclude": {"path_expression": paths(named("nobody"))}})],
            "expression.0.expressions.0.exclude.path_expression.paths.0: ",
        ),
        ([{**WEB, "exclude": {"ip_address_expression": ips("x")}}], "expression.0.exclude.ip_address"),
        ([{**WEB, "exclude": {"condition": WEB}}], "expression.0.exclude.condition: unknown field"),
        (joined(OR, *[WEB] * 6), "expression: 6 conditions and nested expressions, a group has at most 5"),
        (joined(OR, *[nested(*[WEB, BLUE] * 4)] * 5), "expression: 40 conditions, a group has at most 35"),
        ([nested(*[WEB] * 6)], "expression.0: 6 conditions on one member type, a nested"),
        ([nested(*[WEB, BLUE] * 8)], "expression.0: 16 conditions, a nested expression has at most 15"),
        ([paths(*[named("web")] * 501)], "expression: 501 address expressions, paths and external ids, "),
        (joined(OR, ids("VirtualMachine", *[VM] * 500), ips("10.0.0.1")), "expression: 501 address expr"),
        ([ips(*ONE_TOO_MANY)], "expression.0: 4001 addresses, one expression has at most 4000"),
        ([macs(*["02:00:00:00:00:01"] * 4001)], "expression.0: 4001 addresses, one expression has at most"),
        (
            [{**WEB, "exclude": {"path_expression": paths(*[named("web")] * 51)}}],
            "expression.0: 51 paths are excluded, at most 50 can be",
        ),
        ([paths(named("new"))], f"members of each other: {named('new')} > {named('new')}"),
    ],
)  # fmt: skip
async def test_a_group_is_refused(manager: Manager, expression: list[Any], told: str) -> None:
    """400, the reason, and the store as it was."""
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [WEB]})
    before = manager.stored()
    answer = await manager.answer("PUT", f"{DOMAIN}/groups/new", {"expression": expression})
    assert answer.status_code == 400, answer.text
    assert told in answer.json()["error_message"]
    assert manager.stored() == before


@pytest.mark.parametrize("field", ["extended_expression", "group_type"])
async def test_what_groups_cannot_have_yet(manager: Manager, field: str) -> None:
    """Identity groups; groups of another type than IPAddress; one of that type which asks for VMs."""
    answer = await manager.answer("PUT", f"{DOMAIN}/groups/new", {field: ["IdentityGroupExpression"]})
    assert (answer.status_code, answer.json()["error_message"].split(":")[0]) == (
        400,
        field if field == "extended_expression" else "group_type.0",
    )
    answer = await manager.answer(
        "PUT", f"{DOMAIN}/groups/new", {"group_type": ["IPAddress"], "expression": [ips("10.0.0.1"), OR, WEB]}
    )
    assert (answer.status_code, "expression.2: " in answer.json()["error_message"]) == (400, True)


async def test_a_cycle_is_named(manager: Manager) -> None:
    """a > b > c is there; that c gets a is refused, by exclusion as well as by membership."""
    await manager.call("PUT", f"{DOMAIN}/groups/c", {"expression": [WEB]})
    await manager.call("PUT", f"{DOMAIN}/groups/b", {"expression": [paths(named("c"))]})
    await manager.call("PUT", f"{DOMAIN}/groups/a", {"expression": [paths(named("b"))]})
    for back in (paths(named("a")), {**WEB, "exclude": {"path_expression": paths(named("a"))}}):
        answer = await manager.answer("PATCH", f"{DOMAIN}/groups/c", {"expression": [back]})
        assert answer.status_code == 400
        way = answer.json()["error_message"].partition("members of each other: ")[2].split(" > ")
        assert (way[0], set(way), len(way)) == (way[-1], {named(name) for name in "abc"}, 4)


async def test_groups_in_groups_have_an_end(manager: Manager) -> None:
    """As many levels as there may be, and one more, at the top or at the bottom."""
    await manager.call("PUT", f"{DOMAIN}/groups/g1", {"expression": [WEB]})
    for level in range(2, most.MAX_LEVELS + 1):
        body = {"expression": [paths(named(f"g{level - 1}"))]}
        await manager.call("PUT", f"{DOMAIN}/groups/g{level}", body)
    answer = await manager.answer(
        "PUT", f"{DOMAIN}/groups/top", {"expression": [paths(named(f"g{most.MAX_LEVELS}"))]}
    )
    assert f"more than {most.MAX_LEVELS} levels" in answer.json()["error_message"]
    await manager.call("PUT", f"{DOMAIN}/groups/bottom", {"expression": [WEB]})
    answer = await manager.answer("PATCH", f"{DOMAIN}/groups/g1", {"expression": [paths(named("bottom"))]})
    assert f"more than {most.MAX_LEVELS} levels" in answer.json()["error_message"]


async def test_what_a_group_names_cannot_go(manager: Manager) -> None:
    """A group, a VM, a vNIC of a VM that stays: 400 with who names it."""
    vnic = {"id": VNIC, "mac": "02:00:00:00:00:01"}
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "web", "vnics": [vnic]})
    await manager.call("PUT", f"{DOMAIN}/groups/inner", {"expression": [paths(f"/vsfw/vnics/{VNIC}")]})
    await manager.call("PUT", f"{DOMAIN}/groups/outer", {"expression": [paths(named("inner"))]})
    for verb, path, body, user in (
        ("DELETE", f"{DOMAIN}/groups/inner", None, "outer"),
        ("DELETE", f"{VSFW}/vms/{VM}", None, "inner"),
        ("PUT", f"{VSFW}/vms/{VM}", {"display_name": "web"}, "inner"),
    ):
        answer = await manager.answer(verb, path, body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, 500030)
        assert f"is used by {named(user)}" in answer.json()["error_message"]


async def test_what_was_read_can_be_written_back(manager: Manager) -> None:
    """A group of every kind of expression, with what NSX's clients see in each element."""
    excluding = {**WEB, "id": "first", "marked_for_delete": False, "_protection": "NOT_PROTECTED"}
    body = {
        "expression": joined(OR, excluding, nested(WEB, BLUE), ips("10.0.0.1"), ids("VirtualMachine", VM))
    }
    await manager.call("PUT", f"{DOMAIN}/groups/new", body)
    read = await manager.call("GET", f"{DOMAIN}/groups/new")
    again = await manager.call("PUT", f"{DOMAIN}/groups/new", read)
    assert again["expression"] == read["expression"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["(a|a)*b", "(x+x+)+y", "(a?){100}a{100}", ".*.*.*.*.*=.*", "(.*a){50}"])
def test_a_hostile_pattern_comes_to_an_end(text: str) -> None:
    """What takes a backtracking engine years for one name is done with a thousand within the test's time."""
    for number in range(1000):
        pattern(text).fullmatch(f"{number}" + "a" * 250)
