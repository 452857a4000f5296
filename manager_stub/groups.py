"""Which vNICs a group's expression selects, and which literal addresses it names. Pure.

A vNIC is a member through its VM or its segment. AND binds tighter than OR. A group's addresses, of IP or of
Ethernet, make nobody a member; as scope those of IP select the vNICs that have one of them.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from manager_stub.model import (
    Condition,
    ConjunctionOperator,
    Expression,
    Group,
    IPAddressExpression,
    MACAddressExpression,
    Segment,
    Tag,
    Vm,
)
from vsfwd.policy.model import Prefix


def selects(group: Group, vm: Vm, segment: Segment | None) -> bool:
    """Whether a vNIC of `vm` on `segment` is a member."""
    return any(
        all(isinstance(item, Condition) and _holds(item, vm, segment) for item in term)
        for term in _terms(group)
    )


def addresses(group: Group) -> tuple[str, ...]:
    """The literal addresses, prefixes and ranges, each once, in a stable order."""
    found = {
        address
        for item in group.expression
        if isinstance(item, IPAddressExpression)
        for address in item.ip_addresses
    }
    return tuple(sorted(found))


def macs(group: Group) -> tuple[str, ...]:
    """The MAC addresses it lists, each once, in a stable order."""
    found = {
        mac
        for item in group.expression
        if isinstance(item, MACAddressExpression)
        for mac in item.mac_addresses
    }
    return tuple(sorted(found))


def covers(prefixes: Iterable[Prefix], address: str) -> bool:
    """Whether the address of a host is in one of the prefixes."""
    parsed = ip_address(address)
    return any(
        prefix.family == parsed.version
        and int(parsed) >> (parsed.max_prefixlen - prefix.length)
        == prefix.bits >> (parsed.max_prefixlen - prefix.length)
        for prefix in prefixes
    )


def _terms(group: Group) -> Iterator[list[Expression]]:
    """What stands between the ORs."""
    term: list[Expression] = []
    for item in group.expression:
        if not isinstance(item, ConjunctionOperator):
            term.append(item)
        elif item.conjunction_operator == "OR":
            yield term
            term = []
    if term:
        yield term


def _holds(condition: Condition, vm: Vm, segment: Segment | None) -> bool:
    owner = vm if condition.member_type == "VirtualMachine" else segment
    if owner is None:
        return False
    if condition.key == "Name":
        return _compares(condition.operator, owner.display_name or "", condition.value)
    if condition.operator == "NOTEQUALS":
        return not any(_tag_compares("EQUALS", tag, condition.value) for tag in owner.tags)
    return any(_tag_compares(condition.operator, tag, condition.value) for tag in owner.tags)


def _tag_compares(operator: str, tag: Tag, value: str) -> bool:
    """`value` is "scope|tag", or a tag alone for any scope. The operator is the tag's; a scope is always
    equal."""
    scope, bar, text = value.partition("|")
    if not bar:
        return _compares(operator, tag.tag, value)
    return tag.scope == scope and _compares(operator, tag.tag, text)


def _compares(operator: str, text: str, value: str) -> bool:
    match operator:
        case "EQUALS":
            return text == value
        case "NOTEQUALS":
            return text != value
        case "CONTAINS":
            return value in text
        case "STARTSWITH":
            return text.startswith(value)
        case "ENDSWITH":
            return text.endswith(value)
    raise ValueError(f"operator {operator!r}")
