"""Groups in few words, and a world of objects without a register."""

from typing import Any

from manager_stub.model import Entity
from manager_stub.world import MODELS, Stored, World, kind_of

GROUPS = "/infra/domains/default/groups"
OR = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
AND = {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}


def condition(member_type: str, key: str, operator: str | None, value: str, **more: Any) -> dict[str, Any]:
    said = {"member_type": member_type, "key": key, "value": value, **more}
    return {"resource_type": "Condition", **said, **({"operator": operator} if operator else {})}


def vm(key: str, operator: str | None, value: str, **more: Any) -> dict[str, Any]:
    return condition("VirtualMachine", key, operator, value, **more)


def segment(key: str, operator: str | None, value: str, **more: Any) -> dict[str, Any]:
    return condition("Segment", key, operator, value, **more)


def ips(*values: str) -> dict[str, Any]:
    return {"resource_type": "IPAddressExpression", "ip_addresses": list(values)}


def macs(*values: str) -> dict[str, Any]:
    return {"resource_type": "MACAddressExpression", "mac_addresses": list(values)}


def paths(*values: str) -> dict[str, Any]:
    return {"resource_type": "PathExpression", "paths": list(values)}


def ids(member_type: str, *values: str) -> dict[str, Any]:
    return {"resource_type": "ExternalIDExpression", "member_type": member_type, "external_ids": list(values)}


def nested(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"resource_type": "NestedExpression", "expressions": joined(AND, *conditions)}


def joined(operator: dict[str, Any], *items: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in items:
        found += [operator, item] if found else [item]
    return found


def named(group: str) -> str:
    return f"{GROUPS}/{group}"


def stored(number: int, path: str, body: dict[str, Any]) -> Stored[Entity]:
    """Numbered and named by its place, so that two worlds that share objects agree on them."""
    return Stored(path, MODELS[kind_of(path)].model_validate(body), f"uid-{path}", number, 0, False, 0, 0)


def world(objects: dict[str, dict[str, Any]], **more: Any) -> World:
    made = [stored(number, path, body) for number, (path, body) in enumerate(objects.items(), 1)]
    return World(**more).changed(made, ())
