"""What one object of an export says, field by field, and what of it there is here."""

from typing import Any, Final

from pydantic import ValidationError

from manager_stub.api.errors import place_and_reason
from manager_stub.api.imports.report import NO_COUNTERPART, Import
from manager_stub.api.imports.tree import Node
from manager_stub.api.objects import Json
from manager_stub.checks import EDITABLE
from manager_stub.model import READ_ONLY, SAYS_NOTHING, Entity
from manager_stub.world import MODELS, kind_of

METADATA: Final = READ_ONLY | {"_revision", "_owner", "lock_modified_by", "lock_modified_time"}
"""What a manager says of an object, and nobody to a manager."""
DESCRIBES: Final = {"SecurityPolicy": ("logging_enabled",)}
"""Fields that change nothing about what is enforced: whether the rule of a connectivity preference is
logged."""
LOOSE: Final = ("Segment",)
"""Types of which an unknown field is no matter of the firewall: a segment's is networking."""


def was_predefined(node: Node) -> bool:
    return True in (node.body.get("_system_owned"), node.body.get("is_default"))


def without_metadata(found: Import, value: Any) -> Any:
    """Null is a field that is not there."""
    if isinstance(value, list):
        return [without_metadata(found, each) for each in value]
    if not isinstance(value, dict):
        return value
    found.metadata.update(key for key in value if key in METADATA)
    return {
        key: without_metadata(found, inner)
        for key, inner in value.items()
        if key not in METADATA and inner is not None
    }


def take(found: Import, node: Node, body: Json) -> None:
    model = MODELS[kind_of(node.path)]
    if node.kind == "SecurityPolicy":
        body = {"tcp_strict": False} | body  # NSX's default, which is the other way round here
    known = frozenset(info.alias or name for name, info in model.model_fields.items())
    taken = _known_fields(found, node, body, known)
    try:
        entity = model.model_validate(body if taken is None else taken).model_copy(update={"id": None})
    except ValidationError as error:
        for each in error.errors():
            where, why = place_and_reason(each)
            if taken is not None or each["type"] != "extra_forbidden" or "." in where:
                found.lose(node.path, told(where, each["input"]), f"{why}: the {node.kind} is left out")
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
            found.leave(node.path, told(key, value), NO_COUNTERPART)
        else:
            why = f"{NO_COUNTERPART}, and may say what is enforced: the {node.kind} is left out"
            found.lose(node.path, told(key, value), why)
            whole = False
    return {key: value for key, value in body.items() if key in known} if whole else None


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
            and not was_predefined(node)
        ):
            found.leave(node.path, name, "of what is predefined here cannot be changed")
    for name in editable & type(entity).model_fields.keys() - entity.model_fields_set:
        kept[name] = getattr(stored.body, name)
    return entity.model_copy(update=kept)


def told(where: str, value: Any) -> str:
    """A field and its value, if that is short."""
    text = str(value)
    return (
        f"{where}: {text}"
        if where and len(text) <= 60 and not isinstance(value, dict)
        else where or text[:60]
    )
