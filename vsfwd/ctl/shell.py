"""What the commands of vsfwctl share: asking the daemon, ending with the exit status that says why,
printing."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
from asyncvarlink import VarlinkErrorReply
from rich.console import Console
from rich.table import Table
from rich.text import Text

import vsfwd.ipc.interface as api
from vsfwd.ipc import client
from vsfwd.protocol.components import check_body

T = TypeVar("T")
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
_PIPE_WIDTH: Final = 500
_NEVER_FOLDED: Final = (
    "#",
    "id",
    "action",
    "dir",
    "packets",
    "bytes",
    "sessions",
    "slot",
    "state",
    "protocol",
)

as_json = click.option("--json", "as_json", is_flag=True, help="JSON with stable keys instead of a table.")


class Checked(click.ParamType[str]):
    """A text that `check` takes; it raises ValueError."""

    name = "text"

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)
        return str(value)


class MessageBody(click.ParamType[dict[str, Any]]):
    """Of a message to or from a component."""

    name = "json"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> dict[str, Any]:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}", parameter, context)
        try:
            check_body(found)
        except ValueError as error:
            self.fail(str(error), parameter, context)
        return dict(found)


def ask(socket: Path, question: Callable[[Any], Awaitable[T]]) -> Any:
    """The answer, or the end of the program with a message that says what to do next."""
    try:
        return client.ask(socket, question)
    except client.Unreachable as error:
        end(str(error), EXIT_UNREACHABLE)
    except (api.NotFound, api.Refused) as error:
        end(str(error.parameters["reason"]), EXIT_REFUSED)
    except VarlinkErrorReply as error:
        end(f"{error.name}: {error}", EXIT_REFUSED)


def end(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)


def complain(message: str) -> None:
    click.echo(f"vsfwctl: {printable(message)}", err=True)


def printable(text: str) -> str:
    """What others wrote does not move the cursor here."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def print_json(value: object) -> None:
    plain = [_plain(one) for one in value] if isinstance(value, list) else _plain(value)
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def wide_console() -> Console:
    """As wide as the terminal; into a pipe nothing is folded."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def print_table(
    console: Console, what: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """`what` the rows are: it is said where there are none."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _NEVER_FOLDED)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # no markup: names are others'
    console.print(table if rows else f"[dim]no {what}[/]", highlight=False)
