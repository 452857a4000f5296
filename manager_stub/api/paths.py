"""The REST interface as a page to read, made of its OpenAPI document. Pure."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from manager_stub.access import GRANTS, Need, Role, need

_PARTS: Final = ("/policy/api/v1/infra", "/policy/api/v1", "/api/v1/vsfw", "/api/v1", "")
"""Of the interface, by what their paths begin with. The first that fits counts."""
_OF_PAGES: Final = frozenset({"cursor", "page_size", "sort_by", "sort_ascending", "included_fields"})
_HEAD: Final = """\
# Calls

This page is made from the code, by `./run reference`; `/openapi.json` of a manager has the bodies too.
[README.md](README.md) says what they mean.

"""


def page(document: dict[str, Any]) -> str:
    return _HEAD + "\n".join([*_rights(), *_calls(document["paths"])]) + "\n"


def _rights() -> Iterator[str]:
    yield f"| what a call is | {' | '.join(f'`{role}`' for role in Role)} |"
    yield f"| --- | {' | '.join('---' for _ in Role)} |"
    for each in Need:
        granted = ("yes" if each in GRANTS[role] else "" for role in Role)
        yield f"| {each} | {' | '.join(granted)} |"


def _calls(paths: dict[str, Any]) -> Iterator[str]:
    def part(path: str) -> int:
        return next(number for number, prefix in enumerate(_PARTS) if path.startswith(prefix))

    for number, found in groupby(sorted(paths, key=lambda path: (part(path), path)), part):
        prefix = _PARTS[number]
        yield from ("", f"## {f'Below {prefix}' if prefix else 'Others'}", "")
        yield from ("| path | calls | parameters | |", "| --- | --- | --- | --- |")
        for path in found:
            yield _row(path, path.removeprefix(prefix) or path, paths[path])


def _row(path: str, shown: str, calls: dict[str, Any]) -> str:
    names = {each["name"]: None for call in calls.values() for each in call.get("parameters", ())}
    inside = [name for name in names if f"{{{name}}}" not in path]
    parameters = [f"`{name}`" for name in inside if name not in _OF_PAGES]
    parameters += ["of pages"] if _OF_PAGES & set(inside) else []
    methods = groupby((method.upper() for method in calls), lambda method: need(method, path))
    by_need = ", ".join(f"{' '.join(found)}: {each}" for each, found in methods)
    said = {_line(call["description"]): None for call in calls.values() if call.get("description")}
    return f"| `{shown}` | {by_need} | {', '.join(parameters)} | {' '.join(said)} |"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
