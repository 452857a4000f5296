"""What becomes of another manager's export: the objects that have a counterpart here, and a line about
everything that has none. Pure.

An object is taken as it means or not at all. A field that may say what is enforced, and is unknown here,
takes its object with it, and that one takes what belongs to it and what names it. What only describes is left
out by itself. What a manager says of an object by itself (revisions, who created it) is counted by field. So
nothing is dropped in silence. And nothing is let in by what is missing: where something is left out that
keeps others out, the rest is not taken unless that is meant. What the export does not have stays as it is
here.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from pydantic import ValidationError

from manager_stub.api.declared import means_the_same
from manager_stub.api.errors import Problem, place_and_reason
from manager_stub.api.exported_tree import Node, nodes
from manager_stub.api.objects import Json
from manager_stub.checks import (
    EDITABLE,
    Refused,
    check_layers,
    check_nesting,
    check_system_owned,
)
from manager_stub.group_limits import too_much
from manager_stub.locks import check_locks
from manager_stub.model import READ_ONLY, Entity, Group, Rule, Service
from manager_stub.publish import Change
from manager_stub.world import MODELS, Stored, World, kind_of, parent_of

METADATA: Final = READ_ONLY | {
    *("_revision", "_links", "_schema", "_self", "_owner", "owner_id", "origin_site_id", "remote_path"),
    *("internal_section_id", "default_rule_id", "rule_count", "service_type", "state", "reference"),
    *("lock_modified_by", "lock_modified_time"),
}
"""What a manager says of an object, and nobody to a manager: the read-only fields of the NSX Policy API's
PolicyConfigResource and of what is imported."""
SAYS_NOTHING: Final[dict[str, Any]] = {
    "profiles": ["ANY"],
    "logging_enabled": False,
    "connectivity_strategy": "NONE",
    "connectivity_preference": "NONE",
}
"""Values that ask for nothing, by field; so do empty ones."""
DESCRIBES: Final = {"Rule": ("tag",), "SecurityPolicy": ("logging_enabled",)}
"""Fields that change nothing about what is enforced: a word for the log; whether the rule of a connectivity
preference is logged."""
LOOSE: Final = ("Segment",)
"""Types of which an unknown field is no matter of the firewall: a segment's is networking."""
_PARTS: Final = ("service_entries", "expression")
_ADDRESSING: Final = frozenset({"id", "resource_type", "target_type", "display_name"})
_NO_COUNTERPART: Final = "has no counterpart here"
_MOST: Final = 10
"""Objects that a refusal names."""


@dataclass(frozen=True)
class LeftOut:
    path: str
    what: str
    why: str


@dataclass
class Import:
    """`put` has the objects that are taken. `metadata`: how often which field was of no account."""

    world: World
    put: dict[str, Entity] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    metadata: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    guards: list[str] = field(default_factory=list)
    """What keeps something out."""

    def change(self) -> Change:
        """What is not here yet as it is there."""
        put = {
            path: body
            for path, body in self.put.items()
            if not (stored := self.world.get(path)) or not means_the_same(stored.body, body)
        }
        return Change(put, [])

    def report(self) -> Json:
        return {"left_out": [asdict(each) for each in self.left_out], "metadata": dict(self.metadata)}

    def opening(self) -> str:
        """Why the rest is not to be taken by itself; empty where it may be."""
        lost = [path for path in self.guards if path in self.lost]
        if not lost:
            return ""
        more = f" and {left} more" if (left := len(lost) - _MOST) > 0 else ""
        return (
            f"{', '.join(lost[:_MOST])}{more}: cannot be taken, and what stands below would decide in the "
            "place of what keeps something out; the rest is taken if you say partly"
        )

    def leave(self, path: str, what: str, why: str) -> None:
        self.left_out.append(LeftOut(path, what, why))

    def lose(self, path: str, what: str, why: str) -> None:
        self.leave(path, what, why)
        self.put.pop(path, None)
        self.lost.add(path)


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
    _settle(found, check)
    return found


def _consider(found: Import, node: Node) -> None:
    if node.keeps_out and not node.marked_for_delete:
        found.guards.append(node.path)
    if node.parent in found.lost:
        found.lose(node.path, node.kind, f"belongs to {node.parent}, which is left out")
    elif not node.known:
        found.lose(node.path, node.kind, _NO_COUNTERPART)
    elif node.marked_for_delete:
        found.lose(node.path, "marked_for_delete", "an import deletes nothing")
    elif node.path in found.put:
        found.leave(node.path, node.kind, "is there twice; the first counts")
    elif _is_the_same_thing(found.world, node):
        found.metadata[f"{node.kind} predefined here too"] += 1
    else:
        for key in node.beside:
            found.leave(node.path, key, _NO_COUNTERPART)
        body = _without_metadata(found, node.body)
        if node.reference or node.kind in ("Infra", "Domain"):
            for key in body.keys() - _ADDRESSING:
                found.leave(node.path, _told(key, body[key]), _NO_COUNTERPART)
        else:
            _take(found, node, body)


def _is_the_same_thing(world: World, node: Node) -> bool:
    """Predefined here and there, and nothing that can be changed."""
    stored = world.get(node.path)
    return (
        stored is not None
        and stored.system_owned
        and kind_of(node.path) not in EDITABLE
        and _predefined_there(node)
    )


def _predefined_there(node: Node) -> bool:
    return True in (node.body.get("_system_owned"), node.body.get("is_default"))


def _without_metadata(found: Import, value: Any) -> Any:
    """Null is a field that is not there."""
    if isinstance(value, list):
        return [_without_metadata(found, each) for each in value]
    if not isinstance(value, dict):
        return value
    found.metadata.update(key for key in value if key in METADATA)
    return {
        key: _without_metadata(found, inner)
        for key, inner in value.items()
        if key not in METADATA and inner is not None
    }


def _take(found: Import, node: Node, body: Json) -> None:
    model = MODELS[kind_of(node.path)]
    if node.kind == "SecurityPolicy":
        body = {"tcp_strict": False} | body  # NSX's default, which is the other way round here
    known = frozenset(info.alias or name for name, info in model.model_fields.items())
    taken = _known_fields(found, node, body, known)
    _strip_parts(found, node, taken or body)
    try:
        entity = model.model_validate(body if taken is None else taken).model_copy(update={"id": None})
    except ValidationError as error:
        for each in error.errors():
            where, why = place_and_reason(each)
            if taken is not None or each["type"] != "extra_forbidden" or "." in where:
                found.lose(node.path, _told(where, each["input"]), f"{why}: the {node.kind} is left out")
        return
    if taken is not None:
        found.put[node.path] = _as_predefined(found, node, entity)


def _known_fields(found: Import, node: Node, body: Json, known: frozenset[str]) -> Json | None:
    """The fields that there are here; None where others may say what is enforced."""
    whole = True
    for key, value in body.items():
        if key in known:
            continue
        if value in ([], {}, "") or (key in SAYS_NOTHING and value == SAYS_NOTHING[key]):
            found.metadata[key] += 1
        elif node.kind in LOOSE or key in DESCRIBES.get(node.kind, ()):
            found.leave(node.path, _told(key, value), _NO_COUNTERPART)
        else:
            why = f"{_NO_COUNTERPART}, and may say what is enforced: the {node.kind} is left out"
            found.lose(node.path, _told(key, value), why)
            whole = False
    return {key: value for key, value in body.items() if key in known} if whole else None


def _strip_parts(found: Import, node: Node, body: Json) -> None:
    """Descriptions and tags of a service's entries and an expression's items."""
    for key in _PARTS:
        parts = body.get(key)
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            for word in ("description", "tags") if isinstance(part, dict) else ():
                if value := part.pop(word, None):
                    found.leave(node.path, _told(f"{key}.{index}.{word}", value), _NO_COUNTERPART)


def _as_predefined(found: Import, node: Node, entity: Entity) -> Entity:
    """Of what is predefined here, what can be changed. Where it is predefined there too, the rest is what the
    same thing is like there; otherwise it is left out."""
    stored = found.world.get(node.path)
    if stored is None or not stored.system_owned:
        return entity
    editable = EDITABLE.get(kind_of(node.path), frozenset())
    kept: dict[str, Any] = {}
    for name in type(entity).model_fields.keys() - {"id", "revision"} - editable:
        kept[name] = getattr(stored.body, name)
        if (
            name in entity.model_fields_set
            and getattr(entity, name) != kept[name]
            and not _predefined_there(node)
        ):
            found.leave(node.path, name, "of what is predefined here cannot be changed")
    for name in editable & type(entity).model_fields.keys() - entity.model_fields_set:
        kept[name] = getattr(stored.body, name)
    return entity.model_copy(update=kept)


def _told(where: str, value: Any) -> str:
    """A field and its value, if that is short."""
    text = str(value)
    return (
        f"{where}: {text}"
        if where and len(text) <= 60 and not isinstance(value, dict)
        else where or text[:60]
    )


def _settle(found: Import, check: Callable[[], None]) -> None:
    """Leave out what cannot be without what was left out, or beside what is here, until all that is left
    can."""
    users: dict[str, list[str]] = defaultdict(list)
    for path, body in found.put.items():
        for other in {parent_of(path), *(reference.path for reference in body.references())}:
            users[other].append(path)
    _leave_dangling(found, users, found.put, check)
    while wrong := list(_impossible(found, check)):
        for path, why in wrong:
            found.lose(path, type(found.put[path]).__name__, why)
        _leave_dangling(found, users, [user for path, _ in wrong for user in users[path]], check)


def _leave_dangling(
    found: Import, users: Mapping[str, list[str]], suspects: Iterable[str], check: Callable[[], None]
) -> None:
    """Lose those that belong to what is not there or name it, and so on with what belongs to them or names
    them: `users`, by path."""
    waiting = deque(suspects)
    while waiting:
        check()
        path = waiting.popleft()
        if path in found.put and (wrong := list(_dangling(found, path))):
            for what, why in wrong:
                found.lose(path, what, why)
            waiting.extend(users.get(path, ()))


def _dangling(found: Import, path: str) -> Iterator[tuple[str, str]]:
    body, parent = found.put[path], parent_of(path)
    kind = type(body).__name__
    if kind_of(parent) in MODELS and parent not in found.put and found.world.get(parent) is None:
        yield kind, f"belongs to {parent}, which is left out"
        return
    for reference in body.references():
        taken = reference.path in found.put and kind_of(reference.path) == reference.kind
        if not taken and not found.world.has(reference):
            why = f"names what is not here: the {kind} is left out"
            yield _told(reference.field, reference.path), why


def _impossible(found: Import, check: Callable[[], None]) -> Iterator[tuple[str, str]]:
    """Of objects that name nothing that is missing."""
    world = found.world.changed([_stored(found.world, path, body) for path, body in found.put.items()], ())
    for path in found.put:
        check()
        if why := _refused(found.world, world, path):
            yield path, why


def _refused(before: World, world: World, path: str) -> str:
    """Why this object cannot be, by itself."""
    stored = world.get(path)
    assert stored is not None
    try:
        check_system_owned(before, [stored], [])
        check_locks(before, [path])
        if isinstance(stored.body, Group) and (wrong := too_much(stored.body)):
            return ": ".join(wrong)
        if isinstance(stored.body, Service):
            check_nesting(world, [stored])
        if isinstance(stored.body, Rule):
            check_layers(world, [stored])
    except Refused as refused:
        return str(refused)
    return ""


def _stored(world: World, path: str, body: Entity) -> Stored[Entity]:
    before = world.get(path)
    return replace(before, body=body) if before else Stored(path, body, "", 0, 0, False, 0, 0)
