"""vsfw-manager: `init` makes a state directory, `serve` runs the manager on it, the others change one."""

import asyncio
import json
import resource
from pathlib import Path
from typing import TextIO

import click
from sqlalchemy.exc import OperationalError

from manager_stub.app import serve as serve_directory
from manager_stub.lead import Lost
from manager_stub.log import bound_log
from manager_stub.state_dir import ADMIN, Addresses, StateDir, check_address
from manager_stub.web import CannotListen

_state = click.option("--state", required=True, type=click.Path(path_type=Path), help="The state directory.")


def _address(context: click.Context, option: click.Parameter, value: str) -> str:
    """HOST:PORT or URL, one or, where they are the broker's, several."""
    try:
        check_address(str(option.name), value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


_listen = click.option(
    "--listen",
    required=True,
    metavar="HOST:PORT",
    callback=_address,
    help="Where the REST interface listens.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vsfwd", prog_name="vsfw-manager")
def main() -> None:
    """The manager of vsfwd."""


@main.command()
@_state
@_listen
@click.option(
    "--broker",
    required=True,
    metavar="HOST:PORT,...",
    callback=_address,
    help="Where hosts reach the broker's nodes.",
)
@click.option(
    "--broker-api",
    required=True,
    metavar="URL,...",
    callback=_address,
    help="The broker's management API, https://HOST:PORT.",
)
@click.option(
    "--database",
    metavar="FILE",
    type=click.File(),
    help="A file with postgresql://USER:PASSWORD@HOST/DATABASE, - for standard input; it is copied into the "
    "state directory. Without it the database is SQLite, there.",
)
def init(state: Path, listen: str, broker: str, broker_api: str, database: TextIO | None) -> None:
    """Make keys, certificates and database. Prints the admin's password, once, and the paths as JSON."""
    try:
        url = database.read() if database else ""
        password = StateDir(state).create(Addresses(listen, broker, broker_api), url)
    except (ValueError, FileExistsError) as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(f"the database: {error.orig}") from None
    made = {
        "url": f"https://{listen}",
        "user": ADMIN,
        "password": password,
        "ca": str(state / "ca.crt"),
        "ca_hash": StateDir(state).authority().key_hash,
        "broker_certificate": str(state / "broker.crt"),
        "broker_key": str(state / "broker.key"),
        "broker_admin": str(state / "broker-admin"),
        "manager_key": StateDir(state).signing_public(),
    }
    click.echo(json.dumps(made, indent=2))


@main.command(short_help="Make a further manager beside one that there is.")
@_state
@click.option(
    "--with",
    "other",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Its state directory.",
)
@_listen
def join(state: Path, other: Path, listen: str) -> None:
    """Make a further manager of the installation whose state directory, or a copy of it, is DIR: one leads,
    the others stand by. They share a PostgreSQL database."""
    _check_is_manager(other)
    try:
        StateDir(state).join(StateDir(other), listen)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.command(short_help="Renew the installation's certificates.")
@_state
def renew(state: Path) -> None:
    """Renew the certificates of REST interface, broker and manager, for the keys they have. A manager that
    serves takes its own within seconds, RabbitMQ the broker's within two minutes; sessions go on."""
    try:
        StateDir(state).renew()
    except FileNotFoundError:
        raise click.ClickException(f"{state}: there is no manager here; make one with init") from None


@main.command(short_help="Give a user a new password.")
@_state
@click.option("--user", default=ADMIN, show_default=True, help="Whose password.")
def reset_password(state: Path, user: str) -> None:
    """Give a user a new password and print it, once; their tokens end. While no manager serves: end it, start
    it again after. The audit log has it, as done by "system"."""
    try:
        click.echo(StateDir(state).reset_password(user))
    except FileNotFoundError:
        raise click.ClickException(f"{state}: there is no manager here; make one with init") from None
    except (ValueError, Lost) as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(f"the database: {error.orig}") from None


@main.command(short_help="Serve the REST interface, publish to the hosts.")
@_state
def serve(state: Path) -> None:
    """Serve the REST interface and publish to the hosts, until a signal says to end."""
    _check_is_manager(state)
    directory = StateDir(state)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there are keys in it
    bound_log()
    try:
        asyncio.run(serve_directory(directory))
    except CannotListen as error:
        raise click.ClickException(str(error)) from None


def _check_is_manager(directory: Path) -> None:
    try:
        StateDir(directory).addresses()
    except (FileNotFoundError, NotADirectoryError):
        raise click.ClickException(f"{directory}: there is no manager here; make one with init") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="vsfw-manager")
