"""/policy/api/v1/infra: groups, services, segments, sections, rules, session timers and the exclusion list,
in the shape of the NSX Policy API.

PUT creates, or replaces what the `_revision` in the body names; PATCH creates, or changes the fields it has.
"""

from collections import Counter
from typing import Annotated, Any
from uuid import uuid4

import structlog
from fastapi import APIRouter, Body, Depends, Request, Response

from manager_stub.api.errors import Problem
from manager_stub.api.objects import (
    Json,
    Page,
    check_body,
    document,
    existing,
    listed,
    merged,
    section_shown,
    shown,
)
from manager_stub.catalogue import EXCLUDE_LIST
from manager_stub.model import (
    Entity,
    ExcludeList,
    FirewallScheduler,
    Group,
    Id,
    Rule,
    SecurityPolicy,
    Segment,
    Service,
    SessionTimerBinding,
    SessionTimerProfile,
)
from manager_stub.register import Register
from manager_stub.world import Stored, parent_of

log = structlog.get_logger()

PREFIX = "/policy/api/v1"
_DOMAIN = "/infra/domains/default"
_SECTIONS = f"{_DOMAIN}/security-policies"
Patch = Annotated[dict[str, Any], Body()]


def _path(request: Request, id: Id) -> str:
    """The object's path: the URL after the version."""
    return str(request.scope["path"]).removeprefix(PREFIX)


Path = Annotated[str, Depends(_path)]


def _in_group(group: Id) -> None:
    """The parameter of a nested path, which the handlers read from the path itself."""


def router(register: Register) -> APIRouter:
    routes = APIRouter(prefix=PREFIX)
    _add_objects(routes, register, f"{_DOMAIN}/groups", Group)
    _add_objects(routes, register, "/infra/services", Service)
    _add_objects(routes, register, "/infra/segments", Segment)
    _add_objects(routes, register, "/infra/firewall-schedulers", FirewallScheduler)
    _add_objects(routes, register, "/infra/firewall-session-timer-profiles", SessionTimerProfile)
    _add_objects(
        routes,
        register,
        f"{_DOMAIN}/groups/{{group}}/firewall-session-timer-profile-binding-maps",
        SessionTimerBinding,
    )
    _add_sections(routes, register)
    _add_rules(routes, register)
    _add_exclude_list(routes, register)
    return routes


def _add_objects(routes: APIRouter, register: Register, prefix: str, model: type[Entity]) -> None:
    """`prefix` has a parameter where the objects belong to another one, which has to be there."""
    kind, nested = prefix.rsplit("/", 1)[1], "{" in prefix
    inner = APIRouter(dependencies=[Depends(_in_group)] if nested else [])

    def check_parent(path: str) -> None:
        if nested:
            existing(register.world, parent_of(path))

    @inner.get(prefix, tags=[model.__name__])
    async def list_objects(request: Request, page: Page) -> Json:
        here = str(request.scope["path"]).removeprefix(PREFIX)
        check_parent(f"{here}/")
        every = register.world.kinds[kind].items()
        return listed([stored for path, stored in every if path.startswith(f"{here}/")], page, shown)

    @inner.get(f"{prefix}/{{id}}", tags=[model.__name__])
    async def read(path: Path) -> Json:
        return shown(existing(register.world, path))

    @inner.put(f"{prefix}/{{id}}", tags=[model.__name__])
    async def put(path: Path, body: model) -> Json:  # type: ignore[valid-type]
        check_parent(path)
        check_body(register.world, path, body, revision_needed=True)
        register.write(put={path: body})
        return shown(existing(register.world, path))

    @inner.patch(f"{prefix}/{{id}}", tags=[model.__name__])
    async def patch(path: Path, body: Patch) -> Response:
        check_parent(path)
        after = merged(register.world.get(path), model, body)
        check_body(register.world, path, after)
        register.write(put={path: after})
        return Response()

    @inner.delete(f"{prefix}/{{id}}", tags=[model.__name__])
    async def delete(path: Path) -> Response:
        existing(register.world, path)
        register.write(put={}, delete=[path])
        return Response()

    routes.include_router(inner)


def _add_sections(routes: APIRouter, register: Register) -> None:
    tags = ["SecurityPolicy"]

    @routes.get(_SECTIONS, tags=[*tags])
    async def list_sections(page: Page, include_rule_count: bool = False) -> Json:
        counts = Counter(parent_of(path) for path in register.world.rules) if include_rule_count else None

        def show(stored: Stored[SecurityPolicy]) -> Json:
            return shown(stored) | ({} if counts is None else {"rule_count": counts[stored.path]})

        return listed(register.world.sections.values(), page, show)

    @routes.get(f"{_SECTIONS}/{{id}}", tags=[*tags])
    async def read(path: Path) -> Json:
        return section_shown(register.world, path)

    @routes.put(f"{_SECTIONS}/{{id}}", tags=[*tags])
    async def put(path: Path, body: SecurityPolicy) -> Json:
        """With `rules`, these are all the section's rules from then on; without, its rules stay."""
        check_body(register.world, path, body, revision_needed=True)
        rules = inline_rules(path, body.rules or [])
        gone = []
        if body.rules is not None:
            gone = [rule.path for rule in register.world.rules_of(path) if rule.path not in rules]
        register.write(put={path: body.model_copy(update={"rules": None}), **rules}, delete=gone)
        return section_shown(register.world, path)

    @routes.patch(f"{_SECTIONS}/{{id}}", tags=[*tags])
    async def patch(path: Path, body: Patch) -> Response:
        """The rules in `rules` are created or changed; others stay."""
        after = patched_section(register, path, body)
        check_body(register.world, path, after)
        rules = inline_rules(path, after.rules or [])
        register.write(put={path: after.model_copy(update={"rules": None}), **rules})
        return Response()

    @routes.delete(f"{_SECTIONS}/{{id}}", tags=[*tags])
    async def delete(path: Path) -> Response:
        existing(register.world, path)
        rules = [rule.path for rule in register.world.rules_of(path)]
        register.write(put={}, delete=[path, *rules])
        return Response()


def _add_rules(routes: APIRouter, register: Register) -> None:
    prefix = f"{_SECTIONS}/{{section}}/rules"
    tags = ["Rule"]

    @routes.get(prefix, tags=[*tags])
    async def list_rules(section: Id, page: Page) -> Json:
        path = f"{_SECTIONS}/{section}"
        existing(register.world, path)
        return listed(register.world.rules_of(path), page, shown)

    @routes.get(f"{prefix}/{{id}}", tags=[*tags])
    async def read(section: Id, path: Path) -> Json:
        return shown(existing(register.world, path))

    @routes.put(f"{prefix}/{{id}}", tags=[*tags])
    async def put(section: Id, path: Path, body: Rule) -> Json:
        existing(register.world, parent_of(path))
        check_body(register.world, path, body, revision_needed=True)
        register.write(put={path: body})
        return shown(existing(register.world, path))

    @routes.patch(f"{prefix}/{{id}}", tags=[*tags])
    async def patch(section: Id, path: Path, body: Patch) -> Response:
        existing(register.world, parent_of(path))
        after = merged(register.world.get(path), Rule, body)
        check_body(register.world, path, after)
        register.write(put={path: after})
        return Response()

    @routes.delete(f"{prefix}/{{id}}", tags=[*tags])
    async def delete(section: Id, path: Path) -> Response:
        existing(register.world, path)
        register.write(put={}, delete=[path])
        return Response()


def _add_exclude_list(routes: APIRouter, register: Register) -> None:
    url, tags = EXCLUDE_LIST, ["PolicyExcludeList"]

    def write(body: ExcludeList) -> None:
        register.write(put={EXCLUDE_LIST: body})
        log.warning("exclusion list changed", members=body.members)

    @routes.get(url, tags=[*tags])
    async def read() -> Json:
        return shown(existing(register.world, EXCLUDE_LIST))

    @routes.put(url, tags=[*tags])
    async def put(body: ExcludeList) -> Json:
        check_body(register.world, EXCLUDE_LIST, body, revision_needed=True)
        write(body)
        return shown(existing(register.world, EXCLUDE_LIST))

    @routes.patch(url, tags=[*tags])
    async def patch(body: Patch) -> Response:
        after = merged(register.world.get(EXCLUDE_LIST), ExcludeList, body)
        check_body(register.world, EXCLUDE_LIST, after)
        write(after)
        return Response()


def inline_rules(section: str, rules: list[Rule]) -> dict[str, Entity]:
    """Rules of a list by path; one without a sequence number takes its place in the list."""
    found: dict[str, Entity] = {}
    for index, rule in enumerate(rules):
        path = f"{section}/rules/{rule.id or uuid4()}"
        if path in found:
            raise Problem(400, f"{rule.id!r} is there twice", f"rules.{index}.id")
        placed = (
            rule if rule.sequence_number is not None else rule.model_copy(update={"sequence_number": index})
        )
        found[path] = placed
    return found


def patched_section(register: Register, path: str, patch: Json) -> SecurityPolicy:
    """The section with the patch on top, and in `rules` each rule of the patch on top of the one that
    exists."""

    def over_existing(rule: Any) -> Any:
        stored = (
            register.world.get(f"{path}/rules/{rule['id']}")
            if isinstance(rule, dict) and "id" in rule
            else None
        )
        return rule if stored is None else document(stored) | rule

    rules = patch.get("rules")
    if isinstance(rules, list):
        patch = patch | {"rules": [over_existing(rule) for rule in rules]}
    return merged(register.world.get(path), SecurityPolicy, patch)
