"""Policy in a file, YAML or JSON. What it may say is the manager's matter; that it is read as it was meant is
ours.

A plain word of YAML is a text unless it is a truth value, a whole number or null as in JSON: PyYAML by
itself takes `on`, 12:30 and 10:20:30:40:50:60 for something else. What is there twice is an error, in JSON
too: a reader who is told nothing believes in the one that does not count.
"""

import json
import re
from typing import Any, Final

import yaml

MAX_BYTES: Final = 64 * 1024 * 1024
"""What the manager takes."""


class Unreadable(Exception):
    """The text names file, line and column."""


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if key.value in names:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is there twice", problem_mark=key.start_mark
                )
            names.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _words, _first in (
    ("bool", "true|false", "tf"),
    ("int", "-?(0|[1-9][0-9]*)", "-0123456789"),
    ("null", "null|~|", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_words})$"), list(_first))


def read(name: str, text: str) -> dict[str, Any]:
    """The document in a file; `name` ends with .json or it is YAML. Raises Unreadable."""
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
    _check(name, document, "")
    return document


def write(document: Any, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=110)


def _of_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _check(name: str, value: Any, where: str) -> None:
    """What YAML can say and JSON cannot."""
    match value:
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise Unreadable(f"{name}: {where}{key}: a key is a text; put it in quotes")
                _check(name, inner, f"{where}{key}.")
        case list():
            for index, inner in enumerate(value):
                _check(name, inner, f"{where}{index}.")
        case None | str() | int():
            pass
        case _:
            raise Unreadable(f"{name}: {where.rstrip('.')}: {value!r} is no value of a policy")
