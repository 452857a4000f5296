"""What becomes of another manager's export: the objects that have a counterpart here, and a line about
everything that has none. Pure.

An object is taken as it means or not at all. A field that may say what is enforced, and is unknown here,
takes its object with it, and that one takes what belongs to it and what names it. What only describes is left
out by itself. What a manager says of an object by itself (revisions, who created it) is counted by field. So
nothing is dropped in silence. And nothing is let in by what is missing: where something is left out that
keeps others out, the rest is not taken unless that is meant. What the export does not have stays as it is
here.
"""

from collections.abc import Callable
from typing import Final

from manager_stub.api.errors import Problem
from manager_stub.api.imports.fields import take, told, was_predefined, without_metadata
from manager_stub.api.imports.report import NO_COUNTERPART, Import
from manager_stub.api.imports.settle import settle
from manager_stub.api.imports.tree import Node, nodes
from manager_stub.api.objects import Json
from manager_stub.checks import EDITABLE
from manager_stub.world import World, kind_of

_ADDRESSING: Final = frozenset({"id", "resource_type", "target_type", "display_name"})


def imported(world: World, tree: Json, check: Callable[[], None]) -> Import:
    """Raises Problem where it is no tree. `check` is called between steps, and ends it by what it raises."""
    if not isinstance(tree.get("children"), list):
        raise Problem(400, "no hierarchical export: it has no list of children", "children")
    found = Import(world)
    try:
        for node in nodes(tree):
            check()
            _consider(found, node)
    except RecursionError:
        raise Problem(400, "nested too deeply", "children") from None
    settle(found, check)
    return found


def _consider(found: Import, node: Node) -> None:
    if node.keeps_out and not node.marked_for_delete:
        found.guards.append(node.path)
    if node.parent in found.lost:
        found.lose(node.path, node.kind, f"belongs to {node.parent}, which is left out")
    elif not node.known:
        found.lose(node.path, node.kind, NO_COUNTERPART)
    elif node.marked_for_delete:
        found.lose(node.path, "marked_for_delete", "an import deletes nothing")
    elif node.path in found.put:
        found.leave(node.path, node.kind, "is there twice; the first counts")
    elif _is_the_same_thing(found.world, node):
        found.metadata[f"{node.kind} predefined here too"] += 1
    else:
        for key in node.beside:
            found.leave(node.path, key, NO_COUNTERPART)
        body = without_metadata(found, node.body)
        if node.reference or node.kind in ("Infra", "Domain"):
            if str(body.get("connectivity_strategy")).startswith("WHITELIST"):
                found.wants_drop.append(f"{node.path}: connectivity_strategy")
            for key in body.keys() - _ADDRESSING:
                found.leave(node.path, told(key, body[key]), NO_COUNTERPART)
        else:
            take(found, node, body)


def _is_the_same_thing(world: World, node: Node) -> bool:
    """Predefined here and there, and nothing that can be changed."""
    stored = world.get(node.path)
    return (
        stored is not None
        and stored.system_owned
        and kind_of(node.path) not in EDITABLE
        and was_predefined(node)
    )
