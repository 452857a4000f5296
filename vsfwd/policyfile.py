"""Policy in a file, YAML or JSON. What it may say is the manager's matter; that it is read as it was meant is
ours.

YAML is 1.2 (`on` is a word, 12:30 and 10:20:30:40:50:60 are no numbers), and what is there twice is an error,
in JSON too: a reader who is told nothing believes in the one that does not count.
"""

import json
from datetime import date
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

MAX_BYTES: Final = 64 * 1024 * 1024
"""What the manager takes."""


class Unreadable(Exception):
    """The text names file, line and column."""


def read(name: str, text: str) -> dict[str, Any]:
    """The document in a file; `name` ends with .json or it is YAML. Raises Unreadable."""
    try:
        document = json.loads(text, object_pairs_hook=_once) if name.endswith(".json") else _yaml().load(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from None
    except MarkedYAMLError as error:
        mark, why = (
            error.problem_mark or error.context_mark,
            " ".join(filter(None, (error.context, error.problem))),
        )
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise Unreadable(f"{name}{where}: {why}") from None
    except (YAMLError, ValueError) as error:
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
    out = StringIO()
    _yaml().dump(document, out)
    return out.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 110
    return yaml


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
        case date():
            raise Unreadable(f"{name}: {where.rstrip('.')}: {value} is a date; put it in quotes")
        case None | str() | int():
            pass
        case _:
            raise Unreadable(f"{name}: {where.rstrip('.')}: {value!r} is no value of a policy")
