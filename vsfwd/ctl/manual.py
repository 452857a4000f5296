"""Manual pages, made of what the programs say of themselves, in the sections of man-pages(7):

    python -m vsfwd.ctl.manual vsfwctl > vsfwctl.1

One page for a program with all its commands. (click-man makes one for each, without exit status, and cuts
short what they say.)
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from inspect import cleandoc
from typing import Final

import click

from vsfwd.ctl.programs import SECTIONS, asking, commands, options, program, usage
from vsfwd.ctl.vsfwctl import STATUSES, WHOM

_ENVIRONMENT: Final = {
    "VSFWCTL_PASSWORD": "Of the user who asks the manager.",
    "VSFWCTL_TOKEN": "An API token of the manager, in place of user and password.",
}
"""Beside the variables that are options, too."""
_FILES: Final = {
    "/run/vsfwd/vsfwd.sock": "The daemon's socket.",
    "~/.config/vsfwctl/manager.toml": "manager, ca, user, password, token; with a secret in it nobody but "
    "its owner may read it.",
}


def page(name: str) -> str:
    root = program(name)
    lines = _vsfwctl(root) if name == "vsfwctl" else _of_options(root)
    return "\n".join([*_head(root, SECTIONS[name]), *lines]) + "\n"


def _vsfwctl(root: click.Context) -> Iterator[str]:
    """With what most of its commands share told once."""
    shared = options(asking())
    yield from (".SH DESCRIPTION", *_paragraphs(WHOM))
    yield from (".SH OPTIONS", *_list(options(root)))
    yield from (".SH COMMANDS", *_commands(root, set(shared)))
    yield from (".SH OPTIONS OF WHAT ASKS THE MANAGER", *_list(shared))
    yield from (".SH EXIT STATUS", *_list((str(code), text) for code, text in STATUSES.items()))
    yield from (".SH ENVIRONMENT", *_list(sorted((_variables(root, asking()) | _ENVIRONMENT).items())))
    yield from (".SH FILES", *_list(_FILES.items()))


def _of_options(root: click.Context) -> Iterator[str]:
    """A program whose options, or commands, say all that there is to say."""
    yield from (".SH OPTIONS", *_list(options(root)))
    if isinstance(root.command, click.Group):
        yield from (".SH COMMANDS", *_commands(root, set()))


def _head(program: click.Context, section: int) -> Iterator[str]:
    name, command = str(program.info_name), program.command
    summary, *rest = cleandoc(command.help or "").split("\n\n", 1)
    yield f'.TH {_text(name.upper())} {section} "" "vsfwd {version("vsfwd")}" vsfwd'
    yield from (".SH NAME", rf"{_text(name)} \- {_text(' '.join(summary.split()).rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_text(name)}", _text(" ".join(command.collect_usage_pieces(program))))
    if rest:
        yield from (".SH DESCRIPTION", *_paragraphs(rest[0]))


def _commands(group: click.Context, shared: set[tuple[str, str]]) -> Iterator[str]:
    for context in commands(group):
        yield f'.SS "{_text(usage(context))}"'
        yield from _paragraphs(cleandoc(context.command.help or ""))
        yield from _list(record for record in options(context) if record not in shared)


def _variables(*contexts: click.Context) -> dict[str, str]:
    return {
        str(option.envvar): f"As {option.opts[0]}."
        for context in contexts
        for option in context.command.params
        if isinstance(option, click.Option) and option.envvar
    }


def _list(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in items:
        yield from (".TP", rf"\fB{_text(term)}\fR", _text(text))


def _paragraphs(text: str) -> Iterator[str]:
    """What click leaves as it is (\\b) has its lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        kept = paragraph.startswith("\b")
        lines = [_text(line) for line in paragraph.removeprefix("\b\n").splitlines()]
        yield from (".PP", *((".nf", *lines, ".fi") if kept else lines))


def _text(text: str) -> str:
    """A line that begins with a dot or a quote would be a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    print(page(sys.argv[1]), end="")
