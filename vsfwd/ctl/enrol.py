"""`vsfwctl enroll`: this host becomes one of a manager's."""

from pathlib import Path
from typing import IO, Final

import click

from vsfwd.config import PATH
from vsfwd.ctl.manager import under_way
from vsfwd.ctl.shell import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, end, printable
from vsfwd.enrolment import CONFIG, Enrolment, enrol
from vsfwd.rest import Denied, Unreachable, Unusable

TOKEN: Final = "VSFWCTL_ENROLMENT_TOKEN"
UNITS: Final = "vsfwd vsfwd-context-agent vsfwd-control-plane-agent"


@click.command(short_help="Make this host one of the manager's.")
@click.option(
    "--manager",
    metavar="URL",
    envvar="VSFWCTL_MANAGER",
    show_envvar=True,
    required=True,
    help="https://HOST:PORT",
)
@click.option(
    "--token",
    metavar="ID.SECRET",
    envvar=TOKEN,
    help=f"The token. Whoever lists processes meanwhile can read it; better is {TOKEN}, or --token-file.",
)
@click.option(
    "--token-file", type=click.File(), help="A file with the token; - is standard input, where nobody reads."
)
@click.option(
    "--ca-hash",
    metavar="sha256:HEX",
    required=True,
    help="Hash of the authority's public key, as the manager's admin was told it with the token.",
)
@click.option("--name", default="", help="How the host is called, where the token does not say.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=PATH.parent,
    show_default=True,
    help="For configuration, key and certificates.",
)
@click.option("--again", is_flag=True, help="Although the directory is that of an enrolled host.")
def enroll(
    manager: str,
    token: str | None,
    token_file: IO[str] | None,
    ca_hash: str,
    name: str,
    directory: Path,
    again: bool,
) -> None:
    """Make this host one of the manager's; afterwards vsfwd starts with what stands in the directory.

    The key is made here and stays here. What was interrupted is begun again with the same token.
    """
    text = token_file.read().strip() if token_file is not None else token
    if not text:
        raise click.UsageError(f"which token? Say --token-file, or {TOKEN}")
    try:
        with under_way(f"asking {manager}"):
            host = enrol(Enrolment(manager, text, ca_hash, directory, name), again=again, waits=_say_waiting)
    except Unusable as error:
        end(str(error), EXIT_USAGE)
    except Unreachable as error:
        end(str(error), EXIT_UNREACHABLE)
    except Denied as error:
        end(str(error), EXIT_REFUSED)
    except OSError as error:
        end(f"{error.filename}: {error.strerror}", EXIT_USAGE)
    if directory != PATH.parent:
        then = f"start vsfwd --config {directory / CONFIG}"
    elif again:  # they may run, with the id of before
        then = f"next: systemctl enable {UNITS}; systemctl restart {UNITS}"
    else:
        then = f"next: systemctl enable --now {UNITS}"
    click.echo(f"enrolled as host {host}; {then}")


def _say_waiting(reason: str) -> None:
    click.echo(printable(f"waiting: {reason}"), err=True)
