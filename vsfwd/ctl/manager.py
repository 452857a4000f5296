"""What the commands of vsfwctl that ask the manager share: which manager and who asks, the exit status that
says why there is no answer, and that something is under way."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console

from vsfwd.ctl.shell import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, complain, end
from vsfwd.rest import Denied, Login, Rest, Unreachable, Unusable

_OPTIONS: Final = (
    click.option(
        "--manager",
        metavar="URL",
        envvar="VSFWCTL_MANAGER",
        help="https://HOST:PORT  [env: VSFWCTL_MANAGER]",
    ),
    click.option(
        "--ca", metavar="FILE", envvar="VSFWCTL_CA", help="Certificates to verify it by.  [env: VSFWCTL_CA]"
    ),
    click.option(
        "--user",
        metavar="NAME",
        envvar="VSFWCTL_USER",
        help="Who asks. The password is in VSFWCTL_PASSWORD, or asked for; an API token in VSFWCTL_TOKEN "
        "takes the place of both.  [env: VSFWCTL_USER]",
    ),
    click.option(
        "--config",
        metavar="FILE",
        envvar="VSFWCTL_CONFIG",
        type=click.Path(path_type=Path),
        help="TOML with manager, ca, user, password, token.  [env: VSFWCTL_CONFIG; default: "
        "~/.config/vsfwctl/manager.toml]",
    ),
)


def asks_manager(command: Callable[..., None]) -> Callable[..., None]:
    """Calls `command` with `rest`; ends the program with a message and the exit status that says why."""

    @functools.wraps(command)
    def asking(
        manager: str | None, ca: str | None, user: str | None, config: Path | None, **arguments: Any
    ) -> None:
        try:
            rest = Rest(_with_password(Login.of(manager, ca, user, config)))
        except Unusable as error:
            end(str(error), EXIT_USAGE)
        try:
            command(rest=rest, **arguments)
        except Unreachable as error:
            end(str(error), EXIT_UNREACHABLE)
        except Denied as error:
            for reason in error.reasons:  # a line for each
                complain(reason)
            sys.exit(EXIT_REFUSED)
        finally:
            rest.close()

    for option in reversed(_OPTIONS):
        asking = option(asking)
    return asking


def _with_password(login: Login) -> Login:
    if login.password or login.token:
        return login
    if not sys.stdin.isatty():
        raise Unusable(f"no password for {login.user}: set VSFWCTL_PASSWORD or VSFWCTL_TOKEN")
    password = click.prompt(f"password of {login.user}", hide_input=True, err=True)
    return msgspec.structs.replace(login, password=password)


@contextmanager
def under_way(what: str) -> Iterator[None]:
    """Says so at a terminal, until it is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
