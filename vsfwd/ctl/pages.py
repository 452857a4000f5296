"""The commands of programs as a page to read, made of what they say of themselves."""

import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc

import click

from vsfwd.ctl.programs import asking, commands, options, program, usage
from vsfwd.ctl.vsfwctl import STATUSES, WHOM


def page(title: str, *names: str) -> str:
    lines = [f"# {title}", "", "This page is made from the programs, by `./run reference`."]
    for name in names:
        root = program(name)
        lines += ["", f"## {name}", "", *_command(root, options(root))]
        lines += _shared() if name == "vsfwctl" else ()
        lines += _commands(root, set(options(asking())))
    return "\n".join(lines) + "\n"


def _shared() -> Iterator[str]:
    """What vsfwctl's commands have in common is told once."""
    yield from ("", *_plain(WHOM), "", "What asks the manager has these options too:")
    yield from _table("option", options(asking()))
    yield from _table("exit status", ((str(code), text) for code, text in STATUSES.items()))


def _commands(root: click.Context, shared: set[tuple[str, str]]) -> Iterator[str]:
    if isinstance(root.command, click.Group):
        for context in commands(root):
            own = [option for option in options(context) if option not in shared]
            yield from ("", f"### {context.command_path}", "", *_command(context, own))


def _command(context: click.Context, options: list[tuple[str, str]]) -> Iterator[str]:
    yield f"    {usage(context)}"
    if said := cleandoc(context.command.help or ""):
        yield from ("", *_plain(said))
    yield from _table("option", options) if options else ()


def _table(heading: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from ("", f"| {heading} | |", "| --- | --- |")
    for term, text in rows:
        yield f"| `{_cell(term)}` | {_cell(' '.join(_plain(text)))} |"


def _plain(text: str) -> list[str]:
    """Lines in which nothing is markup; without what tells click to leave them as they are."""
    return [re.sub(r"([*_<`\[])", r"\\\1", line) for line in text.splitlines() if line != "\b"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
