"""A tree of the hierarchical API, as an NSX manager exports it, as a list of its objects: each before what is
below it, with the path it has here. Pure.

Nothing is judged but whether there is a place for it: the other modules say what becomes of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from manager_stub.api.hierarchy import TREE
from manager_stub.api.objects import Json
from manager_stub.catalogue import DEFAULT_SECTION, EXCLUDE_LIST
from manager_stub.model import Id

RENAMED: Final = {
    f"{DEFAULT_SECTION}/rules/default_rule_NDP": f"{DEFAULT_SECTION}/rules/default-ndp",
    f"{DEFAULT_SECTION}/rules/default_rule_DHCP": f"{DEFAULT_SECTION}/rules/default-dhcp",
}
"""What NSX predefines by another name."""
_OLDER: Final = {"CommunicationMap": "SecurityPolicy", "CommunicationEntry": "Rule"}
_OLDER_FIELDS: Final = {"communication_entries": "rules", "precedence": "sequence_number"}
"""What NSX-T Data Center called sections and rules before 2.4, and can still export: otherwise they are alike
(API guide, CommunicationMap and CommunicationEntry)."""
_INNER: Final = ("children", "rules")
_STRATEGIES: Final = (
    "connectivity_strategy",
    "connectivity_preference",
    "application_connectivity_strategy",
)
"""By which a section of NSX ends in a rule of its own."""
_WRAPPER: Final = frozenset({"resource_type", "id", "target_type", "children", "marked_for_delete"})
_id = TypeAdapter(Id)


@dataclass(frozen=True)
class Node:
    kind: str
    path: str
    parent: str
    body: Json
    """Without what is below it."""
    known: bool = False
    """Whether there is a place for it here."""
    reference: bool = False
    """Named only to go on below it."""
    marked_for_delete: bool = False
    beside: tuple[str, ...] = ()
    """What its wrapper says besides."""
    keeps_out: bool = False
    """Whether without it what stands below would decide, and may let in what this one does not."""


def nodes(tree: Json) -> Iterator[Node]:
    root = Node("Infra", "/infra", "", tree, known=True, reference=True)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        below = list(_below(node))
        yield _without_inner(node, below)
        waiting += [each for each in reversed(below) if not _is_entry(node, each)]


def _below(node: Node) -> Iterator[Node]:
    for key in _INNER if node.kind.endswith("Policy") else _INNER[:1]:
        every = node.body.get(key)
        if every is not None and not isinstance(every, list):
            yield Node(key, f"{node.path}/{key}", node.path, {})
        for index, child in enumerate(every if isinstance(every, list) else ()):
            wrapped = {"resource_type": "ChildRule", "Rule": child} if key == "rules" else child
            yield _child(node, wrapped, f"{key}.{index}", index)


def _child(parent: Node, child: Any, place: str, index: int) -> Node:
    type = child.get("resource_type") if isinstance(child, dict) else None
    reference = type == "ChildResourceReference"
    kind = str(child.get("target_type") if reference else type).removeprefix("Child")
    body = child if reference else child.get(kind) if isinstance(child, dict) else None
    if not isinstance(body, dict):
        return Node(str(type), f"{parent.path}/{place}", parent.path, {})
    wrapper = _WRAPPER | {kind}
    kind, body = _as_called_now(kind, body)
    path = _path(parent, kind, body)
    if kind == "Rule":
        body = {"sequence_number": index} | body
    return Node(
        kind,
        path or str(body.get("path") or f"{parent.path}/{kind}:{body.get('id', index)}"),
        parent.path,
        body,
        path is not None,
        reference,
        any(each.get("marked_for_delete") not in (None, False, "false", "False") for each in (child, body)),
        tuple(key for key in child if key not in wrapper and not key.startswith("_") and not reference),
        _keeps_out(parent, kind, body),
    )


def _as_called_now(kind: str, body: Json) -> tuple[str, Json]:
    now = _OLDER.get(kind, kind)
    if _OLDER.get(str(body.get("resource_type"))) == now:
        body = body | {"resource_type": now}
    if kind == "CommunicationMap":
        new = _OLDER_FIELDS
        body = {key if new.get(key) in body else new.get(key, key): value for key, value in body.items()}
    return now, body


def _keeps_out(parent: Node, kind: str, body: Json) -> bool:
    """A section that ends in a rule of its own; a rule in force that does not simply allow."""
    if kind == "SecurityPolicy":
        return any(body.get(key) not in (None, [], "NONE") for key in _STRATEGIES)
    if kind != "Rule" or parent.kind != "SecurityPolicy" or body.get("disabled") is True:
        return False
    excludes = True in (body.get("sources_excluded"), body.get("destinations_excluded"))
    return excludes or body.get("action") != "ALLOW"


def _path(parent: Node, kind: str, body: Json) -> str | None:
    if not parent.known:
        return None
    if (parent.kind, kind) == ("Infra", "PolicyExcludeList"):
        return EXCLUDE_LIST
    word = TREE.get(parent.kind, {}).get(kind)
    try:
        id = _id.validate_python(body.get("id"))
    except ValidationError:
        return None
    if word is None or (kind == "Domain" and id != "default"):
        return None
    return RENAMED.get(f"{parent.path}/{word}/{id}", f"{parent.path}/{word}/{id}")


def _is_entry(parent: Node, node: Node) -> bool:
    """Entries of a service may stand below it."""
    return (
        parent.kind == "Service"
        and parent.known
        and node.kind == "ServiceEntry"
        and not node.marked_for_delete
    )


def _without_inner(node: Node, below: list[Node]) -> Node:
    inner = _INNER if node.kind.endswith("Policy") else _INNER[:1]
    body = {key: value for key, value in node.body.items() if key not in inner}
    entries = [each.body for each in below if _is_entry(node, each)]
    listed = body.get("service_entries", [])
    if entries and isinstance(listed, list):
        known = {_id_of(entry) for entry in listed if isinstance(entry, dict)} - {None}
        body["service_entries"] = listed + [entry for entry in entries if _id_of(entry) not in known]
    beside = (*node.beside, *(key for each in below if _is_entry(node, each) for key in each.beside))
    return replace(node, body=body, beside=beside)


def _id_of(entry: Json) -> str | None:
    id = entry.get("id")
    return id if isinstance(id, str) else None
