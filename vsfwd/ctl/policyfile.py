"""Policy in a file, YAML or JSON. What it may say is the manager's matter; that it is read as it was meant is
ours.

A plain word of YAML is a text unless it is a truth value, a whole number or null as in JSON: PyYAML by
itself takes `on`, 12:30 and 10:20:30:40:50:60 for something else. What is there twice is an error, in JSON
too: a reader who is told nothing believes in the one that does not count.

A file may come from anybody, so of YAML there is what a policy needs: no aliases, tags and keys that are no
texts, and no depth without end. It is built of the parser's events one by one, so that nothing larger or
deeper comes into being first.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import yaml

MAX_BYTES: Final = 64 * 1024 * 1024
"""Twice what the manager takes, which gets it without indentation."""
MAX_DEPTH: Final = 64
"""As the manager."""
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}
_NUMBER: Final = re.compile("-?(0|[1-9][0-9]*)")


class Unreadable(Exception):
    """The text names file, line and column."""


def read(name: str, text: str) -> dict[str, Any]:
    """The document in a file; `name` ends with .json or it is YAML. Raises Unreadable."""
    if not text.strip():
        raise Unreadable(f"{name}: is empty")
    try:
        document = json.loads(text, object_pairs_hook=_once) if name.endswith(".json") else _of_yaml(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark, why = error.problem_mark or error.context_mark, filter(None, (error.context, error.problem))
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise Unreadable(f"{name}{where}: {' '.join(why)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(f"{name}: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise Unreadable(f"{name}: nested too deeply") from None
    if not isinstance(document, dict):
        raise Unreadable(f"{name}: not a policy, which has keys and values")
    _check(name, document, "", 0)
    return document


def write(document: Any, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=110)


def _of_yaml(text: str) -> Any:
    around = yaml.StreamStartEvent | yaml.DocumentStartEvent | yaml.DocumentEndEvent
    events = (event for event in yaml.parse(text, yaml.CSafeLoader) if not isinstance(event, around))
    first = next(events)
    if isinstance(first, yaml.StreamEndEvent):
        return None
    document = _value(first, events, 0)
    if not isinstance(more := next(events), yaml.StreamEndEvent):
        raise _wrong(more, "a second document")
    return document


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:
    """What begins with this event."""
    if depth > MAX_DEPTH:
        raise _wrong(event, f"nested deeper than {MAX_DEPTH}")
    if isinstance(event, yaml.AliasEvent):
        raise _wrong(event, f"*{event.anchor}: an alias; write out what it stands for")
    if event.tag is not None:
        raise _wrong(event, f"{event.tag}: a tag; a policy has none")
    match event:
        case yaml.SequenceStartEvent():
            items = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(_value(item, events, depth + 1))
            return items
        case yaml.MappingStartEvent():
            return _mapping(events, depth)
    if not event.implicit[0]:  # in quotes
        return event.value
    return int(event.value) if _NUMBER.fullmatch(event.value) else _WORDS.get(event.value, event.value)


def _mapping(events: Iterator[Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _value(event, events, depth + 1)
        if not isinstance(key, str):
            raise _wrong(event, "a key is a text; put it in quotes")
        if key in found:
            raise _wrong(event, f"{key!r} is there twice")
        found[key] = _value(next(events), events, depth + 1)
    return found


def _wrong(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _Twice(dict[str, Any]):
    """An object with a name that is there twice: `_check` knows where it stands."""

    name: str


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        found = _Twice(found)
        found.name = counts.most_common(1)[0][0]
    return found


def _check(name: str, value: Any, where: str, depth: int) -> None:
    """What JSON can say, and neither YAML here nor a request to the manager."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"{name}: nested deeper than {MAX_DEPTH}")
    match value:
        case _Twice():
            raise Unreadable(f"{name}: {where}{value.name}: is there twice")
        case dict():
            for key, inner in value.items():
                _check(name, key, f"{where}a key", depth)
                _check(name, inner, f"{where}{key}.", depth + 1)
        case list():
            for index, inner in enumerate(value):
                _check(name, inner, f"{where}{index}.", depth + 1)
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Unreadable(f"{name}: {where.rstrip('.')}: half of a surrogate pair") from None
        case None | str() | int():
            pass
        case _:
            raise Unreadable(f"{name}: {where.rstrip('.')}: {value!r} is no value of a policy")
