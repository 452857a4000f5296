"""The hierarchical API: `PATCH /policy/api/v1/infra` with a tree of objects, all or nothing, and GET of such
a tree.

A child is `{"resource_type": "ChildGroup", "Group": {...}, "marked_for_delete": false}`, or a
ChildResourceReference, which names an object only to go on below it. Each object is changed as its own
PATCH would change it.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter, ValidationError

from manager_stub.api.aside import Aside, Check
from manager_stub.api.errors import Problem, describe
from manager_stub.api.infra import PREFIX, Patch, inline_rules, patched_section
from manager_stub.api.objects import Json, check_body, existing, merged, shown
from manager_stub.model import READ_ONLY, Entity, Id, patterns
from manager_stub.publish import Change
from manager_stub.register import Register
from manager_stub.world import MODELS, Stored, parent_of

TREE: Final[dict[str, dict[str, str]]] = {
    "Infra": {
        "Domain": "domains",
        "Service": "services",
        "Segment": "segments",
        "PolicyFirewallScheduler": "firewall-schedulers",
        "PolicyFirewallSessionTimerProfile": "firewall-session-timer-profiles",
    },
    "Domain": {"Group": "groups", "SecurityPolicy": "security-policies"},
    "Group": {"PolicyFirewallSessionTimerProfileBindingMap": "firewall-session-timer-profile-binding-maps"},
    "SecurityPolicy": {"Rule": "rules"},
}
"""What may be below what: type, and the word for it in a path."""
_DOMAIN: Final = "/infra/domains/default"
_IGNORED: Final = READ_ONLY | {"resource_type", "id", "display_name", "_revision", "connectivity_strategy"}
"""Of the root: there is nothing to change about it."""
_id = TypeAdapter(Id)


@dataclass
class _Plan:
    """What a tree asks for, as far as it was read."""

    put: dict[str, Entity] = field(default_factory=dict)
    delete: list[str] = field(default_factory=list)
    revisions: bool = True
    """Whether a `_revision` has to be that of the object."""

    def claim(self, path: str, where: str) -> None:
        if path in self.put or path in self.delete:
            raise Problem(400, f"{path} is there twice", where)


def planned(register: Register, tree: Json, *, revisions: bool = True) -> Change:
    """What a tree would change today. `revisions`: whether a `_revision` has to be that of the object."""
    unknown = sorted(tree.keys() - _IGNORED - {"children"})
    if unknown:
        raise Problem(400, "unknown field", unknown[0])
    plan = _Plan(revisions=revisions)
    _walk(register, plan, "Infra", "/infra", tree, "")
    return Change(plan.put, plan.delete)


def router(register: Register, aside: Aside) -> APIRouter:
    routes = APIRouter(tags=["Infra"])

    @routes.patch(f"{PREFIX}/infra")
    async def patch(body: Patch, enforce_revision_check: bool = True) -> Response:
        """A `_revision` is compared where there is one, unless `enforce_revision_check=false`."""
        change = planned(register, body, revisions=enforce_revision_check)
        register.write(put=change.put, delete=change.delete)
        return Response()

    @routes.get(f"{PREFIX}/infra")
    async def read(
        filter: Annotated[str | None, Query(pattern=patterns.TYPES)] = None,
    ) -> Response:
        """`filter=Type-Group|SecurityPolicy` says which types are wanted; without, there are no children."""
        types = set((filter or "").removeprefix("Type-").split("|"))
        root: Json = {"resource_type": "Infra", "id": "infra", "path": "/infra"}
        frozen = register.frozen()

        def tree(check: Check) -> Json:
            children = _children(frozen, "Infra", "/infra", types)
            return root | {"children": children} if children else root

        return await aside.answer(tree)

    return routes


def _walk(register: Register, change: _Plan, kind: str, path: str, node: Json, where: str) -> None:
    children = node.get("children", [])
    if not isinstance(children, list):
        raise Problem(400, "not a list", f"{where}children")
    for index, child in enumerate(children):
        place = f"{where}children.{index}"
        below, body = _opened(child, kind, place)
        try:
            id = _id.validate_python(body.get("id"))
        except ValidationError as error:
            raise Problem(400, describe(error.errors()), f"{place}.id") from None
        _take(register, change, f"{path}/{TREE[kind][below]}/{id}", below, child, body, f"{place}.{below}")


def _opened(child: Any, kind: str, where: str) -> tuple[str, Json]:
    """Type and body of a child. A reference has a body with nothing to change."""
    type = child.get("resource_type") if isinstance(child, dict) else None
    if type == "ChildResourceReference":
        below, body = child.get("target_type"), child
    else:
        below = type.removeprefix("Child") if isinstance(type, str) else None
        body = child.get(below) if below else None
    if below not in TREE.get(kind, {}):
        raise Problem(400, f"{type!r} is nothing that {kind} has", f"{where}.resource_type")
    if not isinstance(body, dict):
        raise Problem(400, "missing", f"{where}.{below}")
    return below, body


def _take(
    register: Register, change: _Plan, path: str, kind: str, child: Json, body: Json, where: str
) -> None:
    reference = child["resource_type"] == "ChildResourceReference"
    if kind == "Domain":
        if path != _DOMAIN:
            raise Problem(400, "there is one domain, default", f"{where}.id")
    elif child.get("marked_for_delete") is True or body.get("marked_for_delete") is True:
        change.claim(path, where)
        _delete(register, change, path, kind)
        return
    elif reference:
        existing(register.world, path)
    else:
        change.claim(path, where)
        _put(register, change, path, kind, body, where)
    _walk(register, change, kind, path, body, f"{where}.")


def _put(register: Register, change: _Plan, path: str, kind: str, body: Json, where: str) -> None:
    left = {"children"} if change.revisions else {"children", "_revision"}
    patch = {key: value for key, value in body.items() if key not in left}
    try:
        if kind == "SecurityPolicy":
            section = patched_section(register, path, patch)
            check_body(register.world, path, section)
            change.put[path] = section.model_copy(update={"rules": None})
            change.put |= inline_rules(path, section.rules or [])
            return
        after = merged(register.world.get(path), MODELS[path.rsplit("/", 2)[1]], patch)
    except ValidationError as error:
        raise Problem(400, describe(error.errors()), where) from None
    check_body(register.world, path, after)
    change.put[path] = after


def _delete(register: Register, change: _Plan, path: str, kind: str) -> None:
    """With what is below it. What is not there is gone already, as in NSX."""
    if register.world.get(path) is None:
        return
    change.delete.append(path)
    if kind == "SecurityPolicy":
        change.delete += [rule.path for rule in register.world.rules_of(path)]


def _children(register: Register, kind: str, path: str, types: set[str]) -> list[Json]:
    found: list[Json] = []
    for below, word in TREE.get(kind, {}).items():
        for node in _nodes(register, below, f"{path}/{word}"):
            children = _children(register, below, node["path"], types)
            if below in types or children:
                wrapped = {"resource_type": f"Child{below}", below: node, "marked_for_delete": False}
                found.append(wrapped)
                if children:
                    node["children"] = children
    return found


def _nodes(register: Register, kind: str, prefix: str) -> list[Json]:
    if kind == "Domain":
        return [{"resource_type": "Domain", "id": "default", "display_name": "default", "path": _DOMAIN}]
    every: list[Stored[Entity]]
    if kind == "Rule":
        every = [*register.world.rules_of(parent_of(f"{prefix}/-"))]
    else:
        objects = register.world.kinds[prefix.rsplit("/", 1)[1]]
        every = [stored for path, stored in objects.items() if path.startswith(f"{prefix}/")]
    return [shown(stored) for stored in every]
