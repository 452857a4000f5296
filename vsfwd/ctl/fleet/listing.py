"""What these commands share: a group that is its list, rows and times as tables show them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from vsfwd.ctl.shell import print_json, print_table, printable, wide_console


class Listing(click.Group):
    """It is its command `list` where none is said."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        is_list = not args or (args[0].startswith("-") and args[0] not in context.help_option_names)
        if is_list and not context.resilient_parsing:  # which completion is
            args = ["list", *args]
        return super().parse_args(context, args)


def show(as_json: bool, found: Any, what: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """`found` as it is for scripts, else its rows as a table, or that there are no `what`."""
    if as_json:
        print_json(found)
        return
    print_table(wide_console(), what, columns, [[printable(str(cell)) for cell in row] for row in rows])


def when(ms: int) -> str:
    """ISO 8601, as `vsfwctl status` has it; nothing for never."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds") if ms else ""
