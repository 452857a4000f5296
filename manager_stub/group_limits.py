"""What a group may not be: more than NSX takes, or a member of itself. Pure.

Asked when a group is written, never when it is read back: a limit that changes makes nobody's groups
unreadable.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from manager_stub.groups import nested
from manager_stub.model import (
    Condition,
    Expression,
    ExternalIDExpression,
    Group,
    IPAddressExpression,
    MACAddressExpression,
    NestedExpression,
    PathExpression,
)
from manager_stub.world import World

# NSX Policy API: Group.expression, NestedExpression, IPAddressExpression, ExcludedMembersList. NSX 4.0
# Administration Guide: "Group Membership Criteria" (conditions of one criterion and of all).
MAX_CRITERIA: Final = 5
MAX_CONDITIONS: Final = 35
MAX_ALIKE_IN_NESTED: Final = 5
MAX_IN_NESTED: Final = 15
MAX_STATIC: Final = 500
MAX_ADDRESSES: Final = 4000
MAX_EXCLUDED_PATHS: Final = 50
MAX_LEVELS: Final = 16
"""Of groups in groups; ours."""

Wrong = tuple[str, str]
"""Field and reason."""


def too_much(group: Group) -> Wrong | None:
    """The first limit that a group exceeds."""
    items = group.expression
    criteria = [item for item in items if isinstance(item, Condition | NestedExpression)]
    conditions = sum(len(_conditions(item)) for item in criteria)
    static = sum(_static(item) for item in items)
    for number, most, what in (
        (len(criteria), MAX_CRITERIA, "conditions and nested expressions"),
        (conditions, MAX_CONDITIONS, "conditions"),
        (static, MAX_STATIC, "address expressions, paths and external ids"),
    ):
        if number > most:
            return "expression", f"{number} {what}, a group has at most {most}"
    for index, item in enumerate(items):
        for reason in _too_much_in(item):
            return f"expression.{index}", reason
    return None


def _too_much_in(item: Expression) -> Iterator[str]:
    match item:
        case IPAddressExpression() if len(item.ip_addresses) > MAX_ADDRESSES:
            yield f"{len(item.ip_addresses)} addresses, one expression has at most {MAX_ADDRESSES}"
        case MACAddressExpression() if len(item.mac_addresses) > MAX_ADDRESSES:
            yield f"{len(item.mac_addresses)} addresses, one expression has at most {MAX_ADDRESSES}"
        case NestedExpression():
            types = Counter(condition.member_type for condition in item.conditions)
            most = MAX_ALIKE_IN_NESTED if len(types) == 1 else MAX_IN_NESTED
            if types.total() > most:
                what = " on one member type" if len(types) == 1 else ""
                yield f"{types.total()} conditions{what}, a nested expression has at most {most}"
    for condition in _conditions(item):
        paths = condition.exclude and condition.exclude.path_expression
        if paths and len(paths.paths) > MAX_EXCLUDED_PATHS:
            yield f"{len(paths.paths)} paths are excluded, at most {MAX_EXCLUDED_PATHS} can be"


def _conditions(item: Expression) -> list[Condition]:
    match item:
        case NestedExpression():
            return item.conditions
        case Condition():
            return [item]
    return []


def _static(item: Expression) -> int:
    match item:
        case IPAddressExpression() | MACAddressExpression():
            return 1
        case PathExpression():
            return len(item.paths)
        case ExternalIDExpression():
            return len(item.external_ids)
    return 0


def nested_wrongly(world: World) -> Wrong | None:
    """A way from a group back to itself, or one that is too long."""
    levels: dict[str, int] = {}

    def depth(path: str, way: tuple[str, ...]) -> int:
        if path in way:
            raise _Wrong(f"groups are members of each other: {' > '.join((*way[way.index(path) :], path))}")
        if path not in levels and len(way) < MAX_LEVELS:
            inner = [depth(each, (*way, path)) for each in nested(world.groups[path].body)]
            levels[path] = 1 + max(inner, default=0)
        if len(way) + levels.get(path, 1) > MAX_LEVELS:
            raise _Wrong(f"more than {MAX_LEVELS} levels of groups in groups: {' > '.join((*way, path))}")
        return levels[path]

    try:
        for path in world.groups:
            depth(path, ())
    except _Wrong as wrong:
        return "expression", str(wrong)
    return None


class _Wrong(Exception):
    pass
