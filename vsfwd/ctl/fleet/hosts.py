"""`vsfwctl hosts`: the manager's hosts: whether they are there, and have what they are to have."""

import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from vsfwd.ctl.fleet.listing import Listing, show, when
from vsfwd.ctl.manager import asks_manager
from vsfwd.ctl.shell import EXIT_REFUSED, as_json, end, print_json, print_table, printable, wide_console
from vsfwd.nearest import meant
from vsfwd.rest import Rest

HOSTS: Final = "/api/v1/vsfw/hosts"
_STATES: Final = {True: "up", False: "down", None: "unknown"}
_name = click.argument("host", metavar="NAME|ID")


@click.group(cls=Listing, short_help="Hosts: up or down, and what they lack.")
def hosts() -> None:
    """The manager's hosts: whether they are connected, and have what they are to have."""


@hosts.command(name="list")
@as_json
@asks_manager
def list_(rest: Rest, as_json: bool) -> None:
    """All hosts. `wanted` and `applied` are generations of their policy, `behind` is how many lie between."""
    found = rest.every(HOSTS, sort_by="display_name")
    rows = [
        (
            host["display_name"],
            host["id"],
            _STATES[host["connected"]],
            host["wanted"]["generation"],
            host["applied"]["generation"],
            _behind(host),
            host["vsfwd"],
            len(host["vnics"]),
            "; ".join(_trouble(host)),
        )
        for host in found
    ]
    columns = ("host", "id", "state", "wanted", "applied", "behind", "vsfwd", "vNICs", "not in force")
    show(as_json, found, "hosts", columns, rows)
    if not as_json and found and (away := no_broker(found[0])):
        click.echo(printable(f"unknown: the manager has {away}"))


@hosts.command(name="show", short_help="One host, with its vNICs.")
@_name
@as_json
@asks_manager
def show_(rest: Rest, host: str, as_json: bool) -> None:
    """One host, with its vNICs and the generations they are to have and have."""
    found = rest.call("GET", f"{HOSTS}/{host_id(rest, host)}")
    if as_json:
        print_json(found)
        return
    console = wide_console()
    for name, value in _facts(found).items():
        console.print(f"[bold]{name:>12}[/]  ", end="")
        console.print(printable(str(value)), markup=False, highlight=False, soft_wrap=True)
    rows = [
        [
            vnic["vnic"],
            printable(vnic["guest"].get("name", "")),
            printable(vnic["device"]),
            vnic["wanted"],
            "" if vnic["applied"] is None else vnic["applied"],
            printable("; ".join(vnic["refused"])),
        ]
        for vnic in found["vnics"]
    ]
    print_table(console, "vNICs", ("vNIC", "VM", "device", "wanted", "applied", "refused because"), rows)


@hosts.command(short_help="Send a host everything anew.")
@_name
@as_json
@asks_manager
def sync(rest: Rest, host: str, as_json: bool) -> None:
    """Send a host all that it is to have, whatever it says that it has."""
    found = rest.call("POST", f"{HOSTS}/{host_id(rest, host)}", action="force_sync")
    if as_json:
        print_json(found)
    else:
        wanted, away = found["wanted"]["generation"], no_broker(found)
        will = "will be" if away else "is"
        later = f" when the broker is back: {away}" if away else ""
        click.echo(printable(f"{found['display_name']} {will} sent generation {wanted}, all of it{later}"))


@hosts.command(short_help="Make a host none any more.")
@_name
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks_manager
def revoke(rest: Rest, host: str, yes: bool) -> None:
    """Make a host none any more: the broker cuts it off at once, and its certificate is no good again."""
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("there is nobody to ask: say --yes")
    id = host_id(rest, host)
    if not yes:
        click.confirm(f"revoke host {printable(host)} ({id})?", abort=True)
    rest.call("DELETE", f"{HOSTS}/{id}")
    click.echo(f"{id} is no host any more")


def no_broker(host: Any) -> str:
    """Why nothing is known of hosts, or reaches them; empty where that is not it, and of a manager of before,
    which does not say so."""
    return str(host.get("no_broker", ""))


def host_id(rest: Rest, said: str) -> str:
    """Of the one host of that name or id; ends the program where there is none, or several."""
    hosts = rest.every(HOSTS, included_fields="id,display_name")
    found: list[str] = [host["id"] for host in hosts if said in (host["id"], host["display_name"])]
    if not found:
        near = meant(said, (host["display_name"] for host in hosts))
        end(f"{said}: no host has that name or id{near or '; vsfwctl hosts shows all'}", EXIT_REFUSED)
    if len(found) > 1:
        end(f"{said}: several hosts, say which: {', '.join(found)}", EXIT_REFUSED)
    return found[0]


def _behind(host: Any) -> str:
    if host["in_sync"]:
        return ""
    wanted, applied = host["wanted"], host["applied"]
    if wanted["epoch"] != applied["epoch"] or wanted["generation"] <= applied["generation"]:
        return "all"
    return str(wanted["generation"] - applied["generation"])


def _trouble(host: Any) -> Iterator[str]:
    """Why it has not what it is to have, where that is known."""
    if host["problem"]:
        yield host["problem"]
    for each in host["refusals"]:
        yield f"{each['kind']} {each['id']}: {each['reason']}"


def _position(position: Any) -> str:
    """As `vsfwctl status` says what is in force."""
    epoch, generation, digest = position["epoch"], position["generation"], position["digest"]
    return f"epoch {epoch}, generation {generation}, digest {digest[:12]}"


def _facts(host: Any) -> dict[str, object]:
    facts = {
        "host": f"{host['display_name']}  {host['id']}",
        "state": f"{_STATES[host['connected']]} since {when(host['connection_since'])}",
        "last seen": when(host["last_seen"]),
        "vsfwd": host["vsfwd"],
        "wanted": _position(host["wanted"]),
        "applied": _position(host["applied"]),
        "in sync": "yes" if host["in_sync"] else "no",
    }
    if certificate := host["certificate"]:
        facts["certificate"] = f"{certificate['subject']}, ends {when(certificate['not_after'])}"
    if trouble := "; ".join(_trouble(host)):
        facts["not in force"] = trouble
    if host["disputed_vnics"]:
        facts["disputed"] = ", ".join(each["vnic"] for each in host["disputed_vnics"])
    if host["left_out"]:
        facts["left out"] = "; ".join(host["left_out"])
    return facts
