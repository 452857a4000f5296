"""Which vNICs a group selects: conditions on VM and segment, joined by AND and OR."""

from typing import Any

import pytest

from manager_stub.groups import addresses, selects
from manager_stub.model import Group, Segment, Tag, Vm

WEB = Vm(display_name="web-01", tags=[Tag(scope="tier", tag="web"), Tag(scope="", tag="pci")])
BARE = Vm(display_name="bare")
BLUE = Segment(display_name="blue", tags=[Tag(scope="zone", tag="dmz")])
OR = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
AND = {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}


def vm(key: str, operator: str, value: str) -> dict[str, str]:
    return {
        "resource_type": "Condition",
        "member_type": "VirtualMachine",
        "key": key,
        "operator": operator,
        "value": value,
    }


def segment(key: str, operator: str, value: str) -> dict[str, str]:
    return {**vm(key, operator, value), "member_type": "Segment"}


def ips(*values: str) -> dict[str, Any]:
    return {"resource_type": "IPAddressExpression", "ip_addresses": list(values)}


def group(*expression: Any) -> Group:
    return Group.model_validate({"expression": list(expression)})


YES, NO = vm("Name", "EQUALS", "web-01"), vm("Name", "EQUALS", "other")


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ([], False),
        ([vm("Name", "EQUALS", "web-01")], True),
        ([vm("Name", "EQUALS", "web-0")], False),
        ([vm("Name", "EQUALS", "WEB-01")], False),
        ([vm("Name", "CONTAINS", "b-0")], True),
        ([vm("Name", "CONTAINS", "b_0")], False),
        ([vm("Name", "STARTSWITH", "web")], True),
        ([vm("Name", "STARTSWITH", "eb")], False),
        ([vm("Name", "ENDSWITH", "01")], True),
        ([vm("Name", "ENDSWITH", "0")], False),
        ([vm("Name", "NOTEQUALS", "db")], True),
        ([vm("Name", "NOTEQUALS", "web-01")], False),
        ([vm("Tag", "EQUALS", "tier|web")], True),
        ([vm("Tag", "EQUALS", "tier|we")], False),
        ([vm("Tag", "EQUALS", "zone|web")], False),
        ([vm("Tag", "EQUALS", "web")], True),
        ([vm("Tag", "EQUALS", "|web")], False),
        ([vm("Tag", "EQUALS", "|pci")], True),
        ([vm("Tag", "STARTSWITH", "tier|w")], True),
        ([vm("Tag", "STARTSWITH", "ti|w")], False),
        ([vm("Tag", "NOTEQUALS", "tier|web")], False),
        ([vm("Tag", "NOTEQUALS", "tier|db")], True),
        ([segment("Name", "EQUALS", "blue")], True),
        ([segment("Tag", "EQUALS", "zone|dmz")], True),
        ([segment("Tag", "EQUALS", "tier|web")], False),
        ([YES, AND, YES], True),
        ([YES, AND, NO], False),
        ([NO, OR, YES], True),
        ([NO, OR, NO], False),
        # AND binds tighter: no OR (yes AND yes), (no AND no) OR yes
        ([NO, OR, YES, AND, YES], True),
        ([YES, OR, NO, AND, NO], True),
        ([NO, AND, YES, OR, NO, AND, YES], False),
        ([YES, AND, segment("Name", "EQUALS", "blue")], True),
        ([ips("0.0.0.0/0")], False),
        ([ips("10.0.0.1"), OR, YES], True),
    ],
)
def test_a_group_selects(expression: list[Any], selected: bool) -> None:
    """A vNIC of VM web-01 (tier|web, |pci) on segment blue (zone|dmz)."""
    assert selects(group(*expression), WEB, BLUE) is selected


def test_a_condition_on_a_segment_needs_a_segment() -> None:
    """A vNIC on none is no member, not even by NOTEQUALS."""
    assert not selects(group(segment("Name", "NOTEQUALS", "red")), WEB, None)


def test_a_vm_without_tags_has_none_that_differ_or_equal() -> None:
    """NOTEQUALS holds for it, nothing else does."""
    assert selects(group(vm("Tag", "NOTEQUALS", "tier|web")), BARE, None)
    assert not selects(group(vm("Tag", "CONTAINS", "e")), BARE, None)


def test_addresses_come_from_every_address_expression_once() -> None:
    """In a stable order, so that the same group is the same bytes."""
    assert addresses(group(ips("10.0.0.2", "10.0.0.1"), OR, YES, OR, ips("fd00::/8", "10.0.0.1"))) == (
        "10.0.0.1",
        "10.0.0.2",
        "fd00::/8",
    )
