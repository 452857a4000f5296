"""What the routers share: an object as it is shown, a page of a list, a body checked against the object it
is to replace."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Query

from manager_stub.api.errors import Problem
from manager_stub.catalogue import DEFAULT_L2_RULE, DEFAULT_L2_SECTION, DEFAULT_RULE, DEFAULT_SECTION
from manager_stub.model import Entity, patterns
from manager_stub.search import values
from manager_stub.world import Stored, World, id_of, kind_of

Json = dict[str, Any]
E = TypeVar("E", bound=Entity)
T = TypeVar("T")
MAX_PAGE: Final = 1000
"""NSX's limit and default."""
_NUMBER: Final = re.compile("[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class Paging:
    """`sort_by`: a field, `tags.scope` that of every tag; empty: the list's own order. `fields`: those that
    are wanted; empty: all."""

    cursor: int
    size: int
    sort_by: str = ""
    ascending: bool = True
    fields: frozenset[str] = frozenset()


def _paging(
    cursor: Annotated[str, Query(pattern=patterns.NUMBER)] = "0",
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    sort_by: Annotated[str, Query(max_length=100)] = "",
    sort_ascending: bool = True,
    included_fields: Annotated[str, Query(max_length=1000)] = "",
) -> Paging:
    fields = frozenset(name.strip() for name in included_fields.split(",") if name.strip())
    return Paging(int(cursor), page_size, sort_by, sort_ascending, fields)


Page = Annotated[Paging, Depends(_paging)]
"""Of a list: where it begins (as the page before said), how long it is at most, its order, and which fields
of its objects are wanted."""


def shown(stored: Stored[Entity]) -> Json:
    document = stored.body.model_dump(mode="json", by_alias=True, exclude_none=True)
    parent = stored.path.rsplit("/", 2)[0]
    found = {
        **document,
        "id": id_of(stored.path),
        "display_name": stored.name,
        "path": stored.path,
        "relative_path": id_of(stored.path),
        "parent_path": parent,
        "unique_id": stored.unique_id,
        "marked_for_delete": False,
        "overridden": False,
        "_system_owned": stored.system_owned,
        "_create_time": stored.created_ms,
        "_last_modified_time": stored.modified_ms,
        "_revision": stored.revision,
    }
    if kind_of(stored.path) == "rules":
        found |= {"rule_id": stored.number, "is_default": stored.path in (DEFAULT_RULE, DEFAULT_L2_RULE)}
    if kind_of(stored.path) == "security-policies":
        found["is_default"] = stored.path in (DEFAULT_SECTION, DEFAULT_L2_SECTION)
    if kind_of(stored.path) == "services":
        found["is_default"] = stored.system_owned
    return found


def section_shown(world: World, path: str) -> Json:
    """A section with its rules, in order."""
    return {
        **shown(existing(world, path)),
        "rules": [shown(rule) for rule in world.rules_of(path)],
    }


def listed(objects: Iterable[T], page: Paging, show: Callable[[T], Json]) -> Json:
    """A page. As in NSX `result_count` is that of the whole list, and the last page has no `cursor`."""
    every = list(objects)
    end = page.cursor + page.size
    if page.sort_by:
        order = sorted(map(show, every), key=_sort_key(page.sort_by), reverse=not page.ascending)
        results = order[page.cursor : end]
    else:
        results = [show(each) for each in every[page.cursor : end]]
    if page.fields:
        results = [{name: each[name] for name in each if name in page.fields} for each in results]
    found: Json = {"results": results, "result_count": len(every)}
    if page.sort_by:
        found |= {"sort_by": page.sort_by, "sort_ascending": page.ascending}
    return found | {"cursor": str(end)} if end < len(every) else found


def _sort_key(field: str) -> Callable[[Json], tuple[float, str]]:
    """Numbers by what they are worth, texts without regard to case; what lacks the field comes first."""

    def key(document: Json) -> tuple[float, str]:
        value = next(values(document, field), "")
        return (float(value), "") if _NUMBER.fullmatch(value) else (inf if value else -inf, value.lower())

    return key


def existing(world: World, path: str) -> Stored[Entity]:
    stored = world.get(path)
    if stored is None:
        raise Problem(404, f"the path=[{path}] is invalid: there is no such object")
    return stored


def check_body(world: World, path: str, body: Entity, *, revision_needed: bool = False) -> None:
    """That the body is for this path and knows what it replaces."""
    if body.id not in (None, id_of(path)):
        raise Problem(400, f"{body.id!r} is not the id in the URL", "id")
    check_revision(world.get(path), body.revision, needed=revision_needed)


def check_revision(stored: Stored[Any] | None, revision: int | None, *, needed: bool = False) -> None:
    current = stored.revision if stored else 0
    if revision is None:
        if stored and needed:
            raise Problem(412, f"missing; the object exists at revision {current}", "_revision")
    elif revision != current:
        raise Problem(412, f"the object is at revision {current}, not {revision}", "_revision")


def document(stored: Stored[Entity]) -> Json:
    """What was put, without what the manager adds."""
    return stored.body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def merged(stored: Stored[Entity] | None, model: type[E], patch: Json) -> E:
    """The object with the fields of a PATCH on top; a new one where there was none."""
    return model.model_validate((document(stored) if stored else {}) | patch)
