"""`vsfwctl tokens`: enrolment tokens, each of which lets one host in."""

from typing import Any, Final

import click

from vsfwd.ctl.fleet.hosts import host_id
from vsfwd.ctl.fleet.listing import Listing, show, when
from vsfwd.ctl.manager import asks_manager
from vsfwd.ctl.shell import EXIT_REFUSED, as_json, end, print_json
from vsfwd.rest import Rest

TOKENS: Final = "/api/v1/vsfw/enrolment-tokens"
_MINUTE, _WEEK = 60, 7 * 86400


@click.group(cls=Listing, short_help="Enrolment tokens: each lets one host in.")
def tokens() -> None:
    """Enrolment tokens: each lets one host in, for a while. It takes an enterprise admin with a password."""


@tokens.command(name="list")
@as_json
@asks_manager
def list_(rest: Rest, as_json: bool) -> None:
    """Those that have not expired; never the token itself."""
    found = rest.every(TOKENS)
    rows = [(each["id"], _whom(each), _used(each), when(each["expires"])) for each in found]
    show(as_json, found, "enrolment tokens", ("id", "for", "used", "expires"), rows)


@tokens.command()
@click.option("--name", metavar="NAME", help="How the host will be called. [default: the host says it]")
@click.option("--host", metavar="NAME|ID", help="Enrol this host anew: it keeps its id and its name.")
@click.option(
    "--lifetime",
    type=click.IntRange(_MINUTE, _WEEK),
    metavar="SECONDS",
    help="How long it is good. [default: an hour]",
)
@as_json
@asks_manager
def create(rest: Rest, name: str | None, host: str | None, lifetime: int | None, as_json: bool) -> None:
    """Make a token, which is shown this once, and what to say on the host."""
    if name is not None and host is not None:
        raise click.UsageError("--name: a host that is enrolled anew keeps its name")
    asked = {"display_name": name, "host": host and host_id(rest, host), "lifetime_s": lifetime}
    made = rest.call("POST", TOKENS, {field: value for field, value in asked.items() if value is not None})
    if as_json:
        print_json(made)
        return
    click.echo(f"token    {made['token']}")
    click.echo(f"for      {_whom(made)}, until {when(made['expires'])}")
    enroll = "vsfwctl enroll --again" if made["host"] else "vsfwctl enroll"
    click.echo(f"on it    {enroll} --manager {rest.url} --ca-hash {made['ca_hash']} --token-file -")
    click.echo("         and the token, on standard input; it says what to start then")


@tokens.command()
@click.argument("id")
@asks_manager
def revoke(rest: Rest, id: str) -> None:
    """Make a token void. A host that has used it stays one."""
    if id not in [each["id"] for each in rest.every(TOKENS, included_fields="id")]:
        end(f"{id}: no token that has not expired has that id; vsfwctl tokens shows them", EXIT_REFUSED)
    rest.call("DELETE", f"{TOKENS}/{id}")
    click.echo(f"{id} lets nobody in any more")


def _whom(token: Any) -> str:
    if token["host"] and not token["used"]:
        return f"host {token['host']}, anew"
    return token["display_name"] or "any host"


def _used(token: Any) -> str:
    return f"by {token['host']}" if token["used"] else ""
