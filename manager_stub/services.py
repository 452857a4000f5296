"""What a service is, with the services nested in it. Pure."""

from collections.abc import Iterable

from manager_stub.model import Entry, NestedServiceServiceEntry
from manager_stub.world import World


def plain(world: World, entries: Iterable[Entry]) -> list[Entry]:
    """These entries, and in the place of nested services theirs, each service once."""
    found: list[Entry] = []
    seen: set[str] = set()
    todo = [*entries]
    while todo:
        entry = todo.pop(0)
        if not isinstance(entry, NestedServiceServiceEntry):
            found.append(entry)
        elif entry.nested_service_path not in seen:
            seen.add(entry.nested_service_path)
            todo += world.services[entry.nested_service_path].body.service_entries
    return found


def within(world: World, path: str) -> set[str]:
    """The services nested in one, at any depth; itself too, if it is."""
    found: set[str] = set()
    todo = [path]
    while todo:
        for reference in world.services[todo.pop()].body.references():
            if reference.path not in found:
                found.add(reference.path)
                todo.append(reference.path)
    return found


def around(world: World, changed: set[str]) -> set[str]:
    """These services, and those that they are nested in, at any depth."""
    found = set(changed)
    while found:
        more = {
            path
            for path, stored in world.services.items()
            if path not in found and any(reference.path in found for reference in stored.body.references())
        }
        if not more:
            break
        found |= more
    return found
