"""Which vNICs a group selects: conditions, lists, groups in groups, and how they are joined."""

from typing import Any

import pytest

from manager_stub.groups import Lists, Reason, grouped
from manager_stub.membership import Membership, candidate
from manager_stub.world import World
from tests.unit.manager.expressions import (
    AND,
    GROUPS,
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
    world,
)

VM, BARE = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
VNIC, OTHER = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
HOST = "33333333-0000-4000-8000-000000000001"
WEB = {
    "display_name": "Web-01",
    "os_name": "Debian GNU/Linux 12",
    "computer_name": "web01.example.net",
    "tags": [{"scope": "tier", "tag": "web"}, {"scope": "", "tag": "pci"}],
    "vnics": [
        {
            "id": VNIC,
            "mac": "02:00:00:00:00:01",
            "segment_path": "/infra/segments/blue",
            "addresses": ["10.0.0.1", "fd00::1"],
            "display_name": "port-1",
            "tags": [{"scope": "os-security-group", "tag": "sg-1"}],
        }
    ],
}
INVENTORY: dict[str, dict[str, Any]] = {
    "/infra/segments/blue": {"display_name": "blue", "tags": [{"scope": "zone", "tag": "dmz"}]},
    f"/vsfw/vms/{VM}": WEB,
    f"/vsfw/vms/{BARE}": {"vnics": [{"id": OTHER, "mac": "02:00:00:00:00:02"}]},
    "/vsfw/clusters/c1": {"display_name": "Compute 1", "hosts": [HOST], "tags": [{"tag": "gold"}]},
    "/vsfw/datacenters/dc1": {"display_name": "Nürnberg", "clusters": ["c1"]},
}
YES, NO = vm("Name", "EQUALS", "web-01"), vm("Name", "EQUALS", "other")


def there(**groups: list[Any]) -> World:
    """Web-01 on segment blue, plugged in cluster Compute 1; a VM of which nothing is known; these groups."""
    bodies = {named(name): {"expression": expression} for name, expression in groups.items()}
    return world({**INVENTORY, **bodies}, plugged={VNIC: frozenset({HOST})})


def membership(world: World, vnic: str = VNIC) -> Membership:
    vm = world.vnics[vnic]
    return Membership(grouped(world.groups), candidate(world, vm, vm.body.vnics[0]))


def selects(*expression: Any, vnic: str = VNIC, **others: list[Any]) -> bool:
    return named("asked") in membership(there(asked=list(expression), **others), vnic)


@pytest.mark.parametrize(
    ("asked", "selected"),
    [
        (vm("Name", "EQUALS", "Web-01"), True),
        (vm("Name", "EQUALS", "WEB-01"), True),
        (vm("Name", "EQUALS", "web-0"), False),
        (vm("Name", "CONTAINS", "B-0"), True),
        (vm("Name", "CONTAINS", "b_0"), False),
        (vm("Name", "STARTSWITH", "web"), True),
        (vm("Name", "STARTSWITH", "eb"), False),
        (vm("Name", "ENDSWITH", "01"), True),
        (vm("Name", "ENDSWITH", "0"), False),
        (vm("Name", "NOTEQUALS", "db"), True),
        (vm("Name", "NOTEQUALS", "web-01"), False),
        (vm("Name", "IN", "db-01, web-01"), True),
        (vm("Name", "IN", "web"), False),
        (vm("Name", "NOTIN", "db-01,web-01"), False),
        (vm("Name", "NOTIN", "db-01,web"), True),
        (vm("Name", "MATCHES", "web-[0-9]+"), True),
        (vm("Name", "MATCHES", "web"), False),
        (vm("Name", "MATCHES", "WEB-.."), True),
        (vm("OSName", "CONTAINS", "linux"), True),
        (vm("OSName", "NOTEQUALS", "Windows"), True),
        (vm("ComputerName", "ENDSWITH", ".example.net"), True),
        (vm("ComputerName", "EQUALS", "Web-01"), False),
        (vm("Tag", "EQUALS", "tier|web"), True),
        (vm("Tag", "EQUALS", "TIER|Web"), True),
        (vm("Tag", "EQUALS", "tier|we"), False),
        (vm("Tag", "EQUALS", "zone|web"), False),
        (vm("Tag", "EQUALS", "web"), True),
        (vm("Tag", "EQUALS", "|web"), True),
        (vm("Tag", "EQUALS", "|pci"), True),
        (vm("Tag", "EQUALS", "tier|pci"), False),
        (vm("Tag", "EQUALS", "tier|"), True),
        (vm("Tag", "EQUALS", "zone|"), False),
        (vm("Tag", "STARTSWITH", "tier|w"), True),
        (vm("Tag", "STARTSWITH", "ti|w"), False),
        (vm("Tag", "MATCHES", "tier|w.b"), True),
        (vm("Tag", "IN", "tier|app,web"), True),
        (vm("Tag", "NOTEQUALS", "tier|web"), False),
        (vm("Tag", "NOTEQUALS", "tier|db"), True),
        (vm("Tag", "NOTIN", "tier|db,web"), False),
        (vm("Tag", "EQUALS", "zone|web", scope_operator="NOTEQUALS"), True),
        (vm("Tag", "EQUALS", "tier|web", scope_operator="NOTEQUALS"), False),
        (vm("Tag", None, "tier|", scope_operator="NOTEQUALS"), False),
        (vm("Tag", None, "zone|", scope_operator="NOTEQUALS"), True),
        (segment("Name", "EQUALS", "blue"), True),
        (segment("Tag", "EQUALS", "zone|dmz"), True),
        (segment("Tag", "EQUALS", "tier|web"), False),
        (condition("SegmentPort", "Name", "EQUALS", "port-1"), True),
        (condition("SegmentPort", "Tag", "EQUALS", "os-security-group|sg-1"), True),
        (condition("SegmentPort", "Tag", "EQUALS", "tier|web"), False),
        (condition("Cluster", "Name", "EQUALS", "compute 1"), True),
        (condition("Cluster", "Tag", "EQUALS", "gold"), True),
        (condition("Cluster", "Name", "EQUALS", "Compute 2"), False),
        (condition("Datacenter", "Name", "EQUALS", "NÜRNBERG"), True),
        (condition("Datacenter", "Name", "STARTSWITH", "Bamberg"), False),
    ],
)
def test_a_condition(asked: dict[str, Any], selected: bool) -> None:
    """Of VM Web-01 (tier|web, |pci), its vNIC, its segment, its cluster, its datacenter."""
    assert selects(asked) is selected


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ([], False),
        ([YES, AND, YES], True),
        ([YES, AND, NO], False),
        ([NO, OR, YES], True),
        ([NO, OR, NO], False),
        # AND binds tighter: no OR (yes AND yes), (no AND no) OR yes
        ([NO, OR, YES, AND, YES], True),
        ([YES, OR, NO, AND, NO], True),
        ([NO, AND, YES, OR, NO, AND, YES], False),
        ([nested(YES, YES)], True),
        ([nested(YES, NO)], False),
        ([nested(YES, NO), OR, YES], True),
        ([nested(YES), AND, nested(NO)], False),
        ([YES, AND, segment("Name", "EQUALS", "blue")], True),
        ([ips("0.0.0.0/0", "::/0")], False),
        ([macs("02:00:00:00:00:01")], False),
        ([ips("10.0.0.1"), OR, YES], True),
        ([paths(f"/vsfw/vms/{VM}")], True),
        ([paths(f"/vsfw/vms/{BARE}")], False),
        ([paths(f"/vsfw/vnics/{OTHER}", f"/vsfw/vnics/{VNIC}")], True),
        ([paths("/infra/segments/blue")], True),
        ([paths("/vsfw/clusters/c1")], True),
        ([paths("/vsfw/datacenters/dc1")], True),
        ([ids("VirtualMachine", BARE, VM)], True),
        ([ids("VirtualMachine", VNIC)], False),
        ([ids("VirtualNetworkInterface", VNIC)], True),
        ([ids("VirtualNetworkInterface", "unknown")], False),
    ],
)
def test_an_expression(expression: list[Any], selected: bool) -> None:
    """AND, OR, nested expressions; lists of things, of which one is enough; addresses make no members."""
    assert selects(*expression) is selected


@pytest.mark.parametrize(
    "asked",
    [
        segment("Name", "NOTEQUALS", "red"),
        condition("Cluster", "Name", "NOTEQUALS", "c9"),
        condition("Datacenter", "Tag", "NOTEQUALS", "x"),
        vm("OSName", "NOTEQUALS", "Windows"),
        vm("ComputerName", "NOTIN", "a,b"),
        condition("SegmentPort", "Name", "NOTEQUALS", "x"),
    ],
)
def test_what_is_unknown_meets_no_condition(asked: dict[str, Any]) -> None:
    """A VM without segment, cluster, operating system: not even "is not" holds."""
    assert not selects(asked, vnic=OTHER)


def test_a_vm_without_tags_has_none_that_differ_or_equal() -> None:
    """NOTEQUALS holds for it, nothing else does."""
    assert selects(vm("Tag", "NOTEQUALS", "tier|web"), vnic=OTHER)
    assert not selects(vm("Tag", "CONTAINS", "e"), vnic=OTHER)
    assert not selects(vm("Tag", "MATCHES", ".*"), vnic=OTHER)


def test_members_of_a_group_are_members_of_the_one_it_is_in() -> None:
    """Through two levels."""
    groups = {"inner": [YES], "middle": [paths(named("inner"))]}
    assert selects(paths(named("middle")), **groups)
    assert not selects(paths(named("middle")), vnic=OTHER, **groups)


@pytest.mark.parametrize(
    ("exclude", "selected"),
    [
        ({"ip_address_expression": ips("10.0.0.0/24")}, False),
        ({"ip_address_expression": ips("fd00::1")}, False),
        ({"ip_address_expression": ips("10.0.1.0/24")}, True),
        ({"path_expression": paths(named("listing"))}, False),
        ({"path_expression": paths(named("by-name"))}, False),
        ({"path_expression": paths(named("nobody"))}, True),
        ({"path_expression": paths(f"/vsfw/vms/{VM}")}, False),
        ({"path_expression": paths("/infra/segments/blue")}, False),
    ],
)
def test_excluded_members(exclude: dict[str, Any], selected: bool) -> None:
    """By an address, a group that lists it, a group they are in, themselves; only of the condition that says
    so."""
    others = {"listing": [ips("10.0.0.1-10.0.0.9")], "by-name": [YES], "nobody": [NO]}
    asked = {**YES, "exclude": exclude}
    assert selects(asked, **others) is selected
    assert selects(asked, OR, paths(f"/vsfw/vnics/{VNIC}"), **others)


def test_a_learned_address_excludes_nobody() -> None:
    """A workload that claims an excluded address stays a member: the candidate has the typed ones only."""
    assert candidate(there(), there().vnics[VNIC], there().vnics[VNIC].body.vnics[0]).vnic.addresses == [
        "10.0.0.1",
        "fd00::1",
    ]


def test_the_addresses_of_a_group_are_those_of_its_groups_too() -> None:
    """Each once, in a stable order; excluded groups give none."""
    excluding = {**YES, "exclude": {"path_expression": paths(named("excluded"))}}
    found = grouped(
        there(
            inner=[ips("10.0.0.2", "10.0.0.1")],
            excluded=[ips("10.9.9.9")],
            outer=[
                ips("fd00::/8", "10.0.0.1"),
                OR,
                macs("02:00:00:00:00:09"),
                OR,
                paths(named("inner")),
                OR,
                excluding,
            ],
        ).groups
    ).lists[named("outer")]
    assert found.addresses == ("10.0.0.1", "10.0.0.2", "fd00::/8")
    assert found.macs == ("02:00:00:00:00:09",)


def test_what_did_not_change_is_not_asked_again() -> None:
    """A group that changed makes those fresh it is in, however deep, and those that exclude it; no others."""
    excluding = {**YES, "exclude": {"path_expression": paths(named("a"))}}
    before = there(a=[ips("10.0.0.1")], b=[paths(named("a"))], c=[paths(named("b"))], d=[excluding], e=[YES])
    after = before.changed([there(a=[ips("10.0.0.2")]).groups[named("a")]], ())
    found = grouped(after.groups, grouped(before.groups))
    assert found.fresh == {named(name) for name in "abcd"}
    assert found.lists == grouped(after.groups).lists
    assert found.lists[named("e")] == Lists()


def test_why_somebody_is_a_member() -> None:
    """Every term that holds, by its place and in words; a group in the group by its path."""
    world = there(
        inner=[YES],
        outer=joined(
            OR,
            NO,
            paths(f"/vsfw/vms/{BARE}", named("inner")),
            nested(YES, vm("Tag", "EQUALS", "tier|web")),
            ids("VirtualNetworkInterface", OTHER, VNIC),
        ),
    )
    assert membership(world).reasons(named("outer")) == [
        [Reason("expression.2.paths.1", f"{GROUPS}/inner", f"{GROUPS}/inner")],
        [
            Reason("expression.4.expressions.0", "VirtualMachine Name EQUALS 'web-01'"),
            Reason("expression.4.expressions.2", "VirtualMachine Tag EQUALS 'tier|web'"),
        ],
        [Reason("expression.6.external_ids.1", VNIC)],
    ]
    assert membership(world, OTHER).reasons(named("inner")) == []
