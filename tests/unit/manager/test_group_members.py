"""Who is in a group and why, and who names it: NSX's calls, with the reasons beside."""

from typing import Any

import pytest

from tests.unit.manager.expressions import (
    AND,
    OR,
    condition,
    ids,
    ips,
    joined,
    named,
    nested,
    paths,
    segment,
    vm,
)
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.protocol.messages import Binding, Bindings, Guest, PowerState

pytestmark = pytest.mark.slow

HOST = "33333333-0000-4000-8000-000000000001"
WEB, DB = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
WEB_VNIC, DB_VNIC = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
BY_NAME = vm("Name", "EQUALS", "web")
BY_OS = vm("OSName", "CONTAINS", "Debian")
EXPRESSIONS: dict[str, list[Any]] = {
    "web": [BY_NAME, OR, nested(BY_OS, vm("Tag", "EQUALS", "tier|web")), OR, ips("192.0.2.0/24")],
    "outer": [paths(named("web"), "/infra/segments/blue"), OR, ids("VirtualNetworkInterface", WEB_VNIC)],
    "blue": joined(AND, segment("Name", "EQUALS", "blue"), segment("Tag", "NOTEQUALS", "x")),
    "none": [vm("Name", "EQUALS", "nobody")],
    "excluding": [{**BY_OS, "exclude": {"path_expression": paths(named("none"))}}],
}


@pytest.fixture
async def grouped(manager: Manager) -> Manager:
    """VM web with a typed and a learned address, VM db on segment blue; groups of them."""
    await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7})
    manager.register.add_host(HOST, "host")
    web = Binding(
        WEB_VNIC, WEB, "02:00:00:00:00:01", "veth0", Guest("web", "Debian 12", "web01", PowerState.STOPPED)
    )
    db = Binding(DB_VNIC, DB, "02:00:00:00:00:02", "veth1", Guest("db"), "blue", ("10.0.0.2",))
    manager.vnics.bound(HOST, Bindings((web, db)))
    body = await manager.call("GET", f"{VSFW}/vms/{WEB}")
    card = {**body["vnics"][0], "addresses": ["10.0.0.1", "fd00::1"]}
    await manager.call(
        "PUT", f"{VSFW}/vms/{WEB}", {**body, "vnics": [card], "tags": [{"scope": "tier", "tag": "web"}]}
    )
    for group, expression in EXPRESSIONS.items():
        await manager.call(
            "PUT", f"{DOMAIN}/groups/{group}", {"display_name": group, "expression": expression}
        )
    return manager


async def members(manager: Manager, group: str, kind: str, query: str = "") -> Any:
    return await manager.call("GET", f"{DOMAIN}/groups/{group}/members/{kind}{query}")


async def test_vms_with_every_reason(grouped: Manager) -> None:
    """In the shape of NSX's virtual machines; each reason by itself is enough."""
    answer = await members(grouped, "web", "virtual-machines")
    (shown,) = answer["results"]
    assert answer["result_count"] == 1
    assert {"external_id": WEB, "display_name": "web", "power_state": "VM_STOPPED"}.items() <= shown.items()
    assert shown["guest_info"] == {"os_name": "Debian 12", "computer_name": "web01"}
    assert shown["reasons"] == [
        [{"where": "expression.0", "what": "VirtualMachine Name EQUALS 'web'"}],
        [
            {"where": "expression.2.expressions.0", "what": "VirtualMachine OSName CONTAINS 'Debian'"},
            {"where": "expression.2.expressions.2", "what": "VirtualMachine Tag EQUALS 'tier|web'"},
        ],
    ]


async def test_vifs_with_every_reason(grouped: Manager) -> None:
    """Through a group in the group, which is named, through a segment, and by id."""
    shown = {each["external_id"]: each for each in (await members(grouped, "outer", "vifs"))["results"]}
    inner = {"where": "expression.0.paths.0", "what": named("web"), "group": named("web")}
    assert shown[WEB_VNIC]["reasons"] == [
        [inner],
        [{"where": "expression.2.external_ids.0", "what": WEB_VNIC}],
    ]
    assert shown[DB_VNIC]["reasons"] == [[{"where": "expression.0.paths.1", "what": "/infra/segments/blue"}]]
    assert {"owner_vm_id": DB, "mac_address": "02:00:00:00:00:02", "host_id": HOST}.items() <= shown[
        DB_VNIC
    ].items()
    assert shown[DB_VNIC]["ip_address_info"] == [{"source": "TOOLS", "ip_addresses": ["10.0.0.2"]}]


async def test_addresses_are_texts_with_their_reasons_beside(grouped: Manager) -> None:
    """Listed ones, in the group in the group too, and those of members: set by hand, told by tools."""
    answer = await members(grouped, "outer", "ip-addresses")
    assert answer["results"] == ["10.0.0.1", "10.0.0.2", "192.0.2.0/24", "fd00::1"]
    listed = {"where": "expression.0.paths.0", "what": named("web"), "group": named("web")}
    assert answer["reasons"]["192.0.2.0/24"] == [listed]
    assert answer["reasons"]["10.0.0.2"] == [{"vnic": DB_VNIC, "vm": "db"}]
    own = (await members(grouped, "web", "ip-addresses"))["reasons"]["192.0.2.0/24"]
    assert own == [{"where": "expression.4.ip_addresses.0", "what": "192.0.2.0/24"}]


async def test_groups_that_are_in_many_ways_in_a_group_are_asked_once(grouped: Manager) -> None:
    """Each of ten levels names the one below a hundred times: that is no 100**10 questions."""
    await grouped.call("PUT", f"{DOMAIN}/groups/g0", {"expression": [ips("192.0.2.1"), OR, BY_NAME]})
    for level in range(1, 11):
        body = {"expression": [paths(*[named(f"g{level - 1}")] * 100)]}
        await grouped.call("PUT", f"{DOMAIN}/groups/g{level}", body)
    answer = await members(grouped, "g10", "ip-addresses")
    assert answer["results"] == ["10.0.0.1", "192.0.2.1", "fd00::1"]
    assert len(answer["reasons"]["192.0.2.1"]) == 1
    assert (await members(grouped, "g10", "virtual-machines"))["result_count"] == 1


async def test_segments_that_are_members_as_a_whole(grouped: Manager) -> None:
    """By a condition or by a path; a group of VMs has none, not even one that only says what they are not."""
    (shown,) = (await members(grouped, "blue", "segments"))["results"]
    assert (shown["id"], shown["path"]) == ("blue", "/infra/segments/blue")
    assert [reason["where"] for reason in shown["reasons"][0]] == ["expression.0", "expression.2"]
    assert (await members(grouped, "outer", "segments"))["result_count"] == 1
    for body in ([vm("Name", "NOTEQUALS", "x")], [condition("SegmentPort", "Tag", "NOTEQUALS", "x")]):
        await grouped.call("PATCH", f"{DOMAIN}/groups/none", {"expression": body})
        assert (await members(grouped, "none", "segments"))["results"] == []


async def test_a_group_without_members_has_empty_lists(grouped: Manager) -> None:
    """Of every kind; a group that does not exist has none at all."""
    for kind in ("virtual-machines", "vifs", "ip-addresses", "segments"):
        assert (await members(grouped, "none", kind))["results"] == []
        answer = await grouped.answer("GET", f"{DOMAIN}/groups/nobody/members/{kind}")
        assert answer.status_code == 404
    types = (await grouped.call("GET", f"{DOMAIN}/groups/none/member-types"))["results"]
    assert "VirtualMachine" in types


async def test_members_come_in_pages(grouped: Manager) -> None:
    """Addresses too, each page with the reasons of its own."""
    first = await members(grouped, "outer", "ip-addresses", "?page_size=3")
    rest = await members(grouped, "outer", "ip-addresses", f"?page_size=3&cursor={first['cursor']}")
    assert (len(first["results"]), rest["results"]) == (3, ["fd00::1"])
    assert (set(rest["reasons"]), first["result_count"], "cursor" in rest) == ({"fd00::1"}, 4, False)


@pytest.mark.parametrize(
    ("call", "groups"),
    [
        (f"virtual-machine-group-associations?vm_external_id={WEB}", {"web", "outer", "excluding"}),
        (f"virtual-machine-group-associations?vm_external_id={DB}", {"outer", "blue"}),
        (f"virtual-network-interface-group-associations?vif_external_id={DB_VNIC}", {"outer", "blue"}),
        ("ip-address-group-associations?ip_address=10.0.0.1", {"web", "outer", "excluding"}),
        ("ip-address-group-associations?ip_address=192.0.2.7", {"web", "outer"}),
        ("ip-address-group-associations?ip_address=198.51.100.1", set()),
        (f"group-associations?intent_path={named('web')}", {"outer"}),
        (f"group-associations?intent_path={named('none')}", {"excluding"}),
        ("group-associations?intent_path=/infra/segments/blue", {"outer"}),
    ],
)
async def test_groups_of_something(grouped: Manager, call: str, groups: set[str]) -> None:
    """As NSX's references: path, type, name."""
    found = (await grouped.call("GET", f"{INFRA}/{call}"))["results"]
    assert {each["path"] for each in found} == {named(group) for group in groups}
    for each in found:
        assert (each["target_type"], each["target_id"], each["is_valid"]) == ("Group", each["path"], True)
        assert each["target_display_name"] in EXPRESSIONS


async def test_what_names_a_group(grouped: Manager) -> None:
    """Rules and sections, also those that name a group it is in, or is excluded from."""
    outer, web = named("outer"), named("web")
    rules = [
        {"id": "r1", "source_groups": [web], "action": "ALLOW"},
        {"id": "r2", "destination_groups": [outer], "action": "DROP"},
        {"id": "r3", "source_groups": [named("none")], "action": "DROP"},
    ]
    await grouped.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": rules, "scope": [outer]})
    section = f"{DOMAIN}/security-policies/s".removeprefix("/policy/api/v1")

    async def named_by(group: str) -> set[str]:
        found = await grouped.call("GET", f"{INFRA}/group-service-associations?intent_path={group}")
        return {each["path"] for each in found["results"]}

    assert await named_by(web) == {section, f"{section}/rules/r1", f"{section}/rules/r2"}
    assert await named_by(outer) == {section, f"{section}/rules/r2"}
    assert await named_by(named("none")) == {f"{section}/rules/r3"}
    assert await named_by(named("blue")) == set()


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("group-service-associations", 400),
        ("group-service-associations?intent_path=/infra/segments/blue", 400),
        (f"group-service-associations?intent_path={named('nobody')}", 404),
        (f"group-associations?intent_path={named('nobody')}", 404),
        ("group-associations?intent_path=/", 400),
        ("group-associations?intent_path=/x", 404),
        ("virtual-machine-group-associations?vm_external_id=web", 400),
        (f"virtual-machine-group-associations?vm_external_id={WEB_VNIC}", 404),
        (f"virtual-network-interface-group-associations?vif_external_id={WEB}", 404),
        ("ip-address-group-associations?ip_address=10.0.0.0/8", 400),
    ],
)
async def test_questions_that_are_none(grouped: Manager, call: str, status: int) -> None:
    """Nothing named, no such thing, a thing of another kind."""
    assert (await grouped.answer("GET", f"{INFRA}/{call}")).status_code == status
