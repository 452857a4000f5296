"""The policy as one document, and the change that makes the policy what a document says. Pure.

A document is what `vsfwctl export` writes and `vsfwctl apply` reads:

    {"version": 1, "services": [...], "firewall-schedulers": [...], "firewall-session-timer-profiles": [...],
     "groups": [...], "security-policies": [...], "exclude-list": {...}}

Objects are as in the REST interface, with an id and without what the manager adds; rules stand in `rules` of
their section, in order, bindings of session timers in their group. It holds what a publish publishes and a
roll-back rolls back: no inventory, no segments. What is in the policy and not in the document is deleted, but
for what is predefined: that stays as it is where it is not named, and a field that is not named is as
shipped. So all of these keys have to be there, and half a file is none. An object that would mean what it
means already is left alone, so the document of a policy changes nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from manager_stub.api.errors import Problem, Problems, describe
from manager_stub.api.objects import Json, check_body
from manager_stub.catalogue import EXCLUDE_LIST, objects
from manager_stub.checks import DEFAULT_SECTIONS, EDITABLE
from manager_stub.model import CATEGORIES, Entity, Rule, SecurityPolicy
from manager_stub.publish import Change
from manager_stub.world import MODELS, Stored, World, id_of, is_policy, kind_of, parent_of

VERSION: Final = 1
_DOMAIN: Final = "/infra/domains/default"
_LISTS: Final = {
    "services": "/infra/services",
    "firewall-schedulers": "/infra/firewall-schedulers",
    "firewall-session-timer-profiles": "/infra/firewall-session-timer-profiles",
    "groups": f"{_DOMAIN}/groups",
    "security-policies": f"{_DOMAIN}/security-policies",
}
"""Key in the document, path above the objects. What others name comes first."""
_BINDINGS: Final = "firewall-session-timer-profile-binding-maps"
_INNER: Final = {"security-policies": "rules", "groups": _BINDINGS}
"""Lists within an object, by its kind."""
_LOCK: Final = ("lock_modified_by", "lock_modified_time")
_NOT_SAID: Final = {"id", "revision", "resource_type", *_LOCK}
"""The list says the type, the manager who locked."""


def document(world: World) -> Json:
    """What to apply to get this policy."""
    found: Json = {"version": VERSION}
    for kind in _LISTS:
        found[kind] = [_with_inner(world, each) for each in _exported(world, kind)]
    found["exclude-list"] = _said(world.kinds["security"][EXCLUDE_LIST])
    return found


def _exported(world: World, kind: str) -> list[Stored[Entity]]:
    every = [each for each in world.kinds[kind].values() if not each.system_owned or kind in EDITABLE]
    if kind == "security-policies":
        return sorted(every, key=lambda each: (_place(each.path, each.body), each.number))
    return sorted(every, key=lambda each: each.path)


def _with_inner(world: World, stored: Stored[Entity]) -> Json:
    said = {"id": id_of(stored.path), **_said(stored)}
    match _INNER.get(kind_of(stored.path)):
        case "rules":
            rules = world.rules_of(stored.path)
            said["rules"] = [
                {"id": id_of(each.path), **_said(each), "sequence_number": each.body.sequence_number or 0}
                for each in rules
            ]
        case str(inner):
            bindings = [each for path, each in world.kinds[inner].items() if parent_of(path) == stored.path]
            if bindings:
                said[inner] = [{"id": id_of(each.path), **_said(each)} for each in bindings]
    return said


def _said(stored: Stored[Entity]) -> Json:
    """Without what is so anyway; null is said against what is shipped otherwise."""
    said = stored.body.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_SAID)
    if shipped := objects().get(stored.path):
        said |= stored.body.model_dump(mode="json", include=shipped.model_fields_set - _NOT_SAID)
    return said


def change(world: World, said: Json) -> Change:
    """What makes the policy what the document says. Raises Problem, of every object that cannot be read."""
    if type(version := said.get("version")) is not int or version != VERSION:
        raise Problem(400, f"{version!r}; this manager reads version {VERSION}", "version")
    kinds = [*_LISTS, "exclude-list"]
    unknown = sorted(said.keys() - {"version", *kinds})
    if unknown:
        raise Problem(400, f"unknown kind; there are {', '.join(kinds)}", unknown[0][:100])
    if missing := [kind for kind in kinds if kind not in said]:
        why = "missing; a document has every list, and what it does not name is removed: say [], or {}"
        raise Problem(400, why, ", ".join(missing))
    reading = _Reading(world)
    for kind, prefix in _LISTS.items():
        reading.take_list(said[kind], kind, prefix)
    reading.take(EXCLUDE_LIST, kind_of(EXCLUDE_LIST), said["exclude-list"])
    if reading.wrong:
        raise Problems(reading.wrong)
    gone = [path for path in _policy(world) if path not in reading.named]
    put = {
        path: body
        for path, body in reading.named.items()
        if not (stored := world.get(path)) or not means_the_same(stored.body, body)
    }
    return Change(put, gone)


def means_the_same(before: Entity, after: Entity) -> bool:
    return _meaning(before) == _meaning(after)


def _meaning(body: Entity) -> Json:
    found = body.model_dump(exclude=_NOT_SAID)
    if isinstance(body, Rule):
        found["sequence_number"] = body.sequence_number or 0
    return found


def _policy(world: World) -> Iterator[str]:
    """What a document can take away."""
    for objects_of_kind in world.kinds.values():
        for path, stored in objects_of_kind.items():
            if is_policy(path) and not stored.system_owned:
                yield path


def _place(path: str, body: Entity) -> tuple[int, ...]:
    """Where it is evaluated, among its like."""
    if isinstance(body, SecurityPolicy):
        return CATEGORIES.index(body.category), body.sequence_number, path in DEFAULT_SECTIONS
    return (body.sequence_number or 0,) if isinstance(body, Rule) else ()


class _Reading:
    """A document as far as it was read: the objects it names, by path, and what is wrong with others."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.named: dict[str, Entity] = {}
        self.wrong: list[str] = []

    def take_list(self, items: Any, kind: str, prefix: str) -> None:
        if not isinstance(items, list):
            self.wrong.append(f"{prefix}: not a list")
            return
        taken = []
        for index, item in enumerate(items):
            id = item.get("id") if isinstance(item, dict) else None
            if not isinstance(id, str):
                self.wrong.append(f"{prefix}: {index}: no object with an id")
                continue
            path, inner = f"{prefix}/{id}", _INNER.get(kind, "")
            if kind == "rules" and path not in objects():
                item = {"sequence_number": index} | item
            if self.take(path, kind, {key: value for key, value in item.items() if key != inner}):
                taken.append(path)
            if inner in item:
                self.take_list(item[inner], inner, f"{path}/{inner}")
        if kind in ("security-policies", "rules"):
            self._check_order(taken)

    def take(self, path: str, kind: str, item: Any) -> bool:
        if path in self.named:
            self.wrong.append(f"{path}: is there twice")
            return False
        shipped = objects().get(path)
        base = shipped.model_dump(mode="json", exclude_unset=True) if shipped else {}
        try:
            body = MODELS[kind].model_validate(base | item if isinstance(item, dict) else item)
        except ValidationError as error:
            self.wrong.append(f"{path}: {describe(error.errors())}")
            return False
        check_body(self._world, path, body)
        if isinstance(body, SecurityPolicy) and (section := self._world.sections.get(path)):
            body = body.model_copy(update={field: getattr(section.body, field) for field in _LOCK})
        self.named[path] = body
        return True

    def _check_order(self, paths: Sequence[str]) -> None:
        """Of two with the same number the older is evaluated first, which has to be their order here."""
        ages = {path: stored.number for path in paths if (stored := self._world.get(path))}
        before: dict[tuple[int, ...], str] = {}
        for path in paths:
            place = _place(path, self.named[path])
            if place in before and path in ages and ages[path] < ages.get(before[place], ages[path] + 1):
                self.wrong.append(
                    f"{path}: sequence_number: that of {before[place]} too, which is younger and would come "
                    "after it; give them two numbers"
                )
            before[place] = path
