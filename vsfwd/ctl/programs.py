"""The five programs as click knows them: commands, options, and what they say of themselves. Of it are made
the manual pages (`manual`) and the pages of commands (`pages`)."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

import click

from vsfwd.ctl.manager import asks_manager
from vsfwd.rest import Rest

SECTIONS: Final = {
    "vsfwctl": 1,
    "vsfwd": 8,
    "vsfw-context-agent": 8,
    "vsfw-control-plane-agent": 8,
    "vsfw-manager": 8,
}
"""Of the manual, man-pages(7): 1 is for users, 8 for who runs the machine."""


def program(name: str) -> click.Context:
    """By its entry point, so that vsfwctl need not know the manager's code."""
    (entry,) = entry_points(group="console_scripts", name=name)
    return click.Context(entry.load(), info_name=name)


def commands(group: click.Context) -> Iterator[click.Context]:
    """Those that do something, in the order of their names, each with its path."""
    assert isinstance(group.command, click.Group)
    for name, command in sorted(group.command.commands.items()):
        context = click.Context(command, info_name=name, parent=group)
        if isinstance(command, click.Group):
            yield from commands(context)
        else:
            yield context


def usage(context: click.Context) -> str:
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])


def options(context: click.Context) -> list[tuple[str, str]]:
    """With what they say; --help goes without saying."""
    found = (each for each in context.command.params if isinstance(each, click.Option))
    return [record for option in found if (record := option.get_help_record(context))]


def asking() -> click.Context:
    """What every command of vsfwctl that asks the manager has."""
    return click.Context(click.command()(asks_manager(_nothing)))


def _nothing(rest: Rest) -> None:
    """Has no options of its own."""
