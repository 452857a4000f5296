"""Configuration files: TOML into a typed struct, with overrides by the environment; and a struct's sample
file. `vsfwd.config` and `manager_stub.config` say which settings there are.

A setting is a field with the type `Annotated[type, setting("what it is, and its unit")]`. An unknown key is
an error, because a misspelt key that passes in silence is a setting that is not in force. The environment is
read by one rule: PREFIX and the key in capitals; text and paths as they are, all else as it is written in
TOML (VSFWD_GUARD_PORTS='["tap*"]'). All mistakes are told at once.
"""

import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
import tomlkit
from msgspec.structs import FieldInfo, fields

from vsfwd.nearest import meant

T = TypeVar("T", bound=msgspec.Struct)

_WIDTH: Final = 98


_MANY: Final = {int: "whole numbers", str: "text"}


class ConfigError(Exception):
    """The configuration cannot be used; the text has a line for each mistake, with file, line and key."""


class _Mistakes:
    """What is wrong, gathered, so that all of it is told at once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        """`line` is 0 where it is in none."""
        self._found.append((line, f"{self._source}{f':{line}' if line else ''}: {text}"))

    def of_the_environment(self, text: str) -> None:
        self._found.append((-1, f"environment: {text}"))

    def end(self) -> None:
        """Raises ConfigError, in the order of the file."""
        if self._found:
            raise ConfigError("\n".join(text for _, text in sorted(self._found, key=lambda each: each[0])))


def setting(
    description: str,
    *,
    reload: bool = False,
    example: object = None,
    needs: str = "",
    file: bool = False,
    ge: int | None = None,
    le: int | None = None,
) -> msgspec.Meta:
    """`reload`: taken while the daemon runs. `needs`: where the value of one without a default comes from, or
    what is in a `file`, which has to be there."""
    extra = {"reload": reload, "example": example, "needs": needs, "file": file}
    return msgspec.Meta(description=" ".join(description.split()), extra=extra, ge=ge, le=le)


def load(
    type_: type[T],
    path: Path,
    environment: Mapping[str, str],
    prefix: str,
    missing: str,
    *,
    with_files: bool = False,
) -> T:
    """`missing` says what to do where there is no such file. `with_files`: the files that settings name have
    to be there, too. Raises ConfigError."""
    mistakes = _Mistakes(str(path))
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: {error.strerror}; {missing}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    said = _overrides(type_, environment, prefix, mistakes)
    return _typed(type_, text, said, mistakes, prefix, with_files)


def parse(type_: type[T], text: str, source: str) -> T:
    """`source` is what the file is called in errors. Raises ConfigError."""
    return _typed(type_, text, {}, _Mistakes(source))


def _typed(
    type_: type[T],
    text: str,
    said: dict[str, Any],
    mistakes: _Mistakes,
    prefix: str = "",
    with_files: bool = False,
) -> T:
    """What is `said` elsewhere, in variables with this prefix, takes the place of what stands in the text."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        mistakes.add(*_broken(str(error), text))
        mistakes.end()
    wrong: list[tuple[str, str]] = []
    typed = _struct(type_, table | said, "", wrong)
    if with_files:
        wrong += _unreadable(type_, table | said)
    for key, reason in wrong:
        name, _, inner = key.partition(".")
        if name in said:
            where = f"{inner}: " if inner else ""
            mistakes.of_the_environment(f"{_variable(prefix, name)}: {where}{reason}")
        else:
            mistakes.add(_line(text, key), f"{key}: {reason}")
    mistakes.end()
    assert typed is not None
    return typed


def _unreadable(type_: type[msgspec.Struct], table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the files that settings name, so far as they name any."""
    for each in fields(type_):
        path = table.get(each.name)
        if _meta(each).extra["file"] and isinstance(path, str):
            try:
                Path(path).read_bytes()
            except OSError as error:
                yield each.name, f"{path}: {error.strerror}; {_meta(each).extra['needs']}"


def _variable(prefix: str, name: str) -> str:
    return f"{prefix}{name.upper()}"


def _broken(error: str, text: str) -> tuple[int, str]:
    """Where a text is no TOML, and why, of tomllib's words."""
    reason, at, place = error.removesuffix(")").rpartition(" (at ")
    if not at:
        return 0, error
    number = re.match(r"line (\d+)", place)
    line = int(number[1]) if number else max(len(text.splitlines()), 1)
    return line, "the key is there already" if reason == "Cannot overwrite a value" else reason


def _overrides(
    type_: type[msgspec.Struct], environment: Mapping[str, str], prefix: str, mistakes: _Mistakes
) -> dict[str, Any]:
    known = {_variable(prefix, each.name): each for each in fields(type_)}
    said = {}
    for name, text in environment.items():
        if not name.startswith(prefix):
            continue
        if name not in known:
            mistakes.of_the_environment(f"{name}: there is no such setting{meant(name, known)}")
            continue
        field = known[name]
        if _plain(field) in (str, Path):
            said[field.name] = text
            continue
        try:
            (said[field.name],) = tomllib.loads(f"value = {text}").values()
        except ValueError:
            how = shlex.quote(_written(_example(field)))
            mistakes.of_the_environment(f"{name}: {text[:64]!r} is not written as in TOML, as in {how}")
    return said


def _struct(type_: type[T], table: Mapping[str, Any], below: str, wrong: list[tuple[str, str]]) -> T | None:
    """What is wrong with it is added to `wrong`. None where so much is that the rest cannot be looked at."""
    known = {each.name: each for each in fields(type_)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            wrong.append((f"{below}{name}", f"there is no such key{meant(name, known)}"))
        elif (typed := _value(known[name], value, f"{below}{name}", wrong)) is not None:
            values[name] = typed
    for name, each in known.items():
        if each.required and name not in table:
            wrong.append((f"{below}{name}", f"is missing; {_meta(each).extra['needs']}"))
        if each.required and name not in values:  # an example stands in for it, so that the rest is checked
            if _meta(each).extra["example"] is None:
                return None
            values[name] = msgspec.convert(_meta(each).extra["example"], each.type, dec_hook=_path)
    try:
        return type_(**values)
    except ValueError as error:  # of __post_init__, which says KEY: reason, a line each
        for line in str(error).splitlines():
            key, _, reason = line.partition(": ")
            wrong.append((f"{below}{key}", reason))
        return None


def _value(field: FieldInfo, value: Any, key: str, wrong: list[tuple[str, str]]) -> Any:
    """None where it is wrong, which nothing in TOML is."""
    plain = _plain(field)
    if get_origin(plain) is dict and isinstance(value, dict):
        inner = get_args(plain)[1]
        of = {}
        for name, each in value.items():
            if isinstance(each, dict):
                of[name] = _struct(inner, each, f"{key}.{name}.", wrong)
            else:
                wrong.append((f"{key}.{name}", "must be a table"))
        return None if None in of.values() else of
    try:
        return msgspec.convert(value, field.type, dec_hook=_path)
    except msgspec.ValidationError:
        wrong.append((key, _must(field)))
        return None


def _must(field: FieldInfo) -> str:
    """What a value has to be, in words for who writes the file."""
    plain, meta = _plain(field), _meta(field)
    if plain is int:
        what = "a whole number"
        if meta.le is not None:
            what += f" from {meta.ge} to {meta.le}"
        elif meta.ge is not None:
            what += f", {meta.ge} or more"
    elif get_origin(plain) is tuple:
        each = get_args(plain)[0]
        what = f"a list of {' or '.join(_MANY[type_] for type_ in get_args(each) or [each])}"
    else:
        what = {str: "text", Path: "a path", dict: "tables"}[get_origin(plain) or plain]
    example = _example(field)
    return f"must be {what}" + ("" if example is None else f", as {_written(example)}")


def _path(_: type, value: Any) -> Path:
    """The one type of the fields above that TOML does not have."""
    if not isinstance(value, str):
        raise ValueError("not a path")
    return Path(value)


def _line(text: str, key: str) -> int:
    """Where a key stands in a file, or the table it is in; 0 where neither is there."""
    table, _, name = key.rpartition(".")
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[\s*([^\]]*?)\s*\]", line):
            inside = heading[1].replace('"', "").replace(" ", "")
        found = re.match(r"""\s*["']?([\w-]+)["']?\s*[=.]""", line)
        if (found and (inside, found[1]) == (table, name)) or (heading and inside == key):
            return number
    return _line(text, table) if table else 0


def changed(old: T, new: T) -> tuple[dict[str, Any], list[str]]:
    """What of `new` can be taken while a daemon runs, and the names of what differs beside that."""
    taken, left = {}, []
    for each in fields(old):
        if getattr(old, each.name) != (value := getattr(new, each.name)):
            if _meta(each).extra["reload"]:
                taken[each.name] = value
            else:
                left.append(each.name)
    return taken, left


def sample(type_: type[msgspec.Struct], path: str, prefix: str) -> str:
    """A file with every setting, each behind #, as it is where it is not said."""
    head = f"{path}: all settings, as they are where nothing is said. {prefix}KEY=VALUE in the environment"
    head += " takes the place of what stands here: text as it is, other values as in TOML."
    parts = [_comment(head)]
    for each in fields(type_):
        extra, description = _meta(each).extra, _meta(each).description
        needs = f" It has no default: {extra['needs']}." if each.required else ""
        when = "Taken by reload." if extra["reload"] else "Taken at the start."
        written = tomlkit.dumps(msgspec.to_builtins({each.name: _example(each)}, enc_hook=str)).strip()
        parts.append(
            _comment(f"{description}{needs} {when}") + "".join(f"#{x}\n" for x in written.splitlines())
        )
    return "\n".join(parts)


def default_of(field: FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _example(field: FieldInfo) -> Any:
    """None where there is neither an example nor a default."""
    example = _meta(field).extra["example"]
    return default_of(field) if example is None and not field.required else example


def _written(value: Any) -> str:
    """In one line of TOML, tables too."""
    line = tomlkit.inline_table()
    line["x"] = msgspec.to_builtins(value, enc_hook=str)
    return line.as_string().removeprefix("{x = ").removesuffix("}")


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False))


def _meta(field: FieldInfo) -> Any:
    return field.type.__metadata__[0]


def _plain(field: FieldInfo) -> Any:
    return get_args(field.type)[0]
