"""The manual page vsfwctl(1), made of what the commands say of themselves, in the sections of man-pages(7):

    python -m vsfwd.manual > vsfwctl.1

One page for all commands. (click-man makes one for each, without exit status, and cuts short what they say.)
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from inspect import cleandoc
from typing import Final

import click

from vsfwd.ctl import STATUSES, WHOM, main
from vsfwd.managerctl import asks_manager
from vsfwd.rest import Rest

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


def page() -> str:
    root = click.Context(main, info_name="vsfwctl")
    asking = click.Context(click.command()(asks_manager(_nothing)))
    shared = set(_records(asking))
    lines = [f'.TH VSFWCTL 1 "" "vsfwd {version("vsfwd")}" vsfwd']
    lines += [".SH NAME", rf"vsfwctl \- {_text((main.help or '').rstrip('.'))}"]
    lines += [".SH SYNOPSIS", ".B vsfwctl", _text("[OPTIONS] COMMAND [ARGS]...")]
    lines += [".SH DESCRIPTION", *_paragraphs(WHOM)]
    lines += [".SH OPTIONS", *_list(_records(root))]
    lines += [".SH COMMANDS", *_commands(root, shared)]
    lines += [".SH OPTIONS OF WHAT ASKS THE MANAGER", *_list(_records(asking))]
    lines += [".SH EXIT STATUS", *_list((str(code), text) for code, text in STATUSES.items())]
    lines += [".SH ENVIRONMENT", *_list(sorted((_variables(root, asking) | _ENVIRONMENT).items()))]
    lines += [".SH FILES", *_list(_FILES.items())]
    return "\n".join(lines) + "\n"


def _nothing(rest: Rest) -> None:
    """Has no options but those of all that asks the manager."""


def _commands(group: click.Context, shared: set[tuple[str, str]]) -> Iterator[str]:
    assert isinstance(group.command, click.Group)
    for name, command in sorted(group.command.commands.items()):
        context = click.Context(command, info_name=name, parent=group)
        if isinstance(command, click.Group):
            yield from _commands(context, shared)
            continue
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f'.SS "{_text(usage)}"'
        yield from _paragraphs(cleandoc(command.help or ""))
        yield from _list(record for record in _records(context) if record not in shared)


def _records(context: click.Context) -> list[tuple[str, str]]:
    """Options with what they say; --help goes without saying."""
    options = (each for each in context.command.params if isinstance(each, click.Option))
    return [record for option in options if (record := option.get_help_record(context))]


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
    print(page(), end="")
