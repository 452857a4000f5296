"""What of an import cannot be without what was left out, or beside what is here already."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from manager_stub.api.imports.fields import told
from manager_stub.api.imports.report import Import
from manager_stub.checks import Refused, check_layers, check_nesting, check_seen, check_system_owned
from manager_stub.group_limits import too_much
from manager_stub.locks import check_locks
from manager_stub.model import Entity, Group, Rule, Service
from manager_stub.world import MODELS, Stored, World, kind_of, parent_of


def settle(found: Import, check: Callable[[], None]) -> None:
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
            yield told(reference.field, reference.path), why


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
        check_seen([stored])
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
