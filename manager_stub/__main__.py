"""vsfw-manager: `init` makes the state directory that the configuration names, `serve` runs the manager on
it, the others change one."""

import asyncio
import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
from sqlalchemy.exc import OperationalError

from manager_stub import backup as backups
from manager_stub.backup.sealed import Head
from manager_stub.config import PATH, Config
from manager_stub.lead import Lost
from manager_stub.log import bound_log
from manager_stub.state_dir import ADMIN, StateDir
from manager_stub.terms import serve as serve_directory
from manager_stub.web import CannotListen
from vsfwd.configfile import ConfigError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=PATH,
    show_default=True,
    help="Configuration file (TOML).",
)
@click.version_option(package_name="vsfwd", prog_name="vsfw-manager")
@click.pass_context
def main(context: click.Context, path: Path) -> None:
    """The manager of vsfwd."""
    context.obj = path


@main.command()
@click.option(
    "--database",
    metavar="FILE",
    type=click.File(),
    help="A file with postgresql://USER:PASSWORD@HOST/DATABASE, - for standard input; it is copied into the "
    "state directory. Without it the database is SQLite, there.",
)
@click.pass_obj
def init(path: Path, database: TextIO | None) -> None:
    """Make keys, certificates and database. Prints the admin's password, once, and the paths as JSON."""
    directory = _directory(path)
    state = directory.path
    try:
        url = database.read() if database else ""
        password = directory.create(url)
    except PermissionError:
        _end_denied(directory)
    except (ValueError, FileExistsError) as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(f"the database: {error.orig}") from None
    made = {
        "url": f"https://{directory.config.listen}",
        "user": ADMIN,
        "password": password,
        "ca": str(directory.ca),
        "ca_hash": directory.authority().key_hash,
        "broker_certificate": str(state / "broker.crt"),
        "broker_key": str(state / "broker.key"),
        "broker_admin": str(state / "broker-admin"),
        "manager_key": directory.signing_public(),
    }
    click.echo(json.dumps(made, indent=2))


@main.command(short_help="Make a further manager beside one that there is.")
@click.option(
    "--with",
    "other",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Its state directory.",
)
@click.pass_obj
def join(path: Path, other: Path) -> None:
    """Make a further manager of the installation whose state directory, or a copy of it, is DIR: one leads,
    the others stand by. They share a PostgreSQL database."""
    try:
        _directory(path).join(other)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.command(short_help="Renew the installation's certificates.")
@click.pass_obj
def renew(path: Path) -> None:
    """Renew the certificates of REST interface, broker and manager, for the keys they have. A manager that
    serves takes its own within seconds, RabbitMQ the broker's within two minutes; sessions go on."""
    _manager(path).renew()


@main.command(short_help="Give a user a new password.")
@click.option("--user", default=ADMIN, show_default=True, help="Whose password.")
@click.pass_obj
def reset_password(path: Path, user: str) -> None:
    """Give a user a new password and print it, once; their tokens end. While no manager serves: end it, start
    it again after. The audit log has it, as done by "system"."""
    try:
        click.echo(_manager(path).reset_password(user))
    except (ValueError, Lost) as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(f"the database: {error.orig}") from None


def _with_passphrase(command: Any) -> Any:
    return click.option(
        "--passphrase-file",
        "passphrase",
        required=True,
        type=click.File(),
        help="Its first line is the passphrase, 12 characters or more; - for standard input.",
    )(click.argument("file", type=click.Path(path_type=Path))(command))


@main.command(short_help="Write all that a manager needs into one file.")
@_with_passphrase
@click.pass_obj
def backup(path: Path, file: Path, passphrase: TextIO) -> None:
    """Write the database and the installation's keys, under a passphrase, into FILE, which there is not yet;
    a manager that serves goes on. Prints what is in it as JSON."""
    directory = _manager(path)
    with _failing_in_a_line():
        head = backups.write(directory, file, _line(passphrase), _progress)
    _tell(file, head)


@main.command(short_help="Make the manager that a backup is of.")
@_with_passphrase
@click.option(
    "--database",
    metavar="FILE",
    type=click.File(),
    help="As of init: of an empty PostgreSQL database. Without it the database is SQLite.",
)
@click.pass_obj
def restore(path: Path, file: Path, passphrase: TextIO, database: TextIO | None) -> None:
    """Make the manager that the backup FILE is of, where there is none: all of it, or nothing. Every manager
    of the installation has ended before. Prints what was in it as JSON."""
    directory = _directory(path)
    with _failing_in_a_line():
        url = _line(database) if database else None
        head = backups.restore(directory, file, _line(passphrase), url, _progress)
    _tell(file, head)


@main.command(short_help="Serve the REST interface, publish to the hosts.")
@click.option(
    "--check-config",
    is_flag=True,
    help="Only say whether there could be a start with the configuration: status 0, or 2; 1 before init.",
)
@click.pass_obj
def serve(path: Path, check_config: bool) -> None:
    """Serve the REST interface and publish to the hosts, until a signal says to end."""
    directory = _manager(path)
    if check_config:
        click.echo(f"{path}: in order")
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there are keys in it
    bound_log()
    try:
        asyncio.run(serve_directory(directory, partial(Config.load, path)))
    except CannotListen as error:
        raise click.ClickException(str(error)) from None


def _directory(path: Path) -> StateDir:
    """That the configuration names, whatever is in it."""
    try:
        return StateDir(Config.load(path))
    except ConfigError as error:
        for line in str(error).splitlines():
            click.echo(f"Error: {line}", err=True)  # as click says its own
        sys.exit(2)


def _manager(path: Path) -> StateDir:
    """One that there is."""
    directory = _directory(path)
    try:
        directory.check()
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    except PermissionError:
        _end_denied(directory)
    return directory


def _end_denied(directory: StateDir) -> NoReturn:
    click.echo(f"Error: {directory.path}: Permission denied; run it as root", err=True)
    sys.exit(2)


def _line(file: TextIO) -> str:
    return file.readline().strip("\r\n")


def _tell(file: Path, head: Head) -> None:
    made = datetime.fromtimestamp(head.made_ms / 1000, UTC).isoformat(timespec="seconds")
    told = {"file": str(file), "made": made, "release": head.release, "schema": head.schema}
    click.echo(json.dumps(told | {"rows": head.rows, "ca_hash": head.authority}, indent=2))


@contextmanager
def _failing_in_a_line() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise click.ClickException(f"the database: {error.orig}") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _progress(done: int, rows: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {rows} rows", err=True, nl=done == rows)


if __name__ == "__main__":
    main(prog_name="vsfw-manager")
