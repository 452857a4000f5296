"""`vsfwctl migrations`: VMs that change their host, as the manager has them. What a hypervisor says on a host
is `vsfwctl migrate`."""

from typing import Any, Final

import click

from vsfwd.ctl.fleet.hosts import host_id
from vsfwd.ctl.fleet.listing import Listing, show, when
from vsfwd.ctl.manager import asks_manager, under_way
from vsfwd.ctl.shell import EXIT_REFUSED, as_json, end, print_json, printable
from vsfwd.nearest import meant
from vsfwd.rest import Rest

MIGRATIONS: Final = "/api/v1/vsfw/migrations"
_VMS: Final = "/api/v1/fabric/virtual-machines"


@click.group(cls=Listing, short_help="VMs that change their host: how far they are.")
def migrations() -> None:
    """VMs that change their host while they run."""


@migrations.command(name="list")
@as_json
@asks_manager
def list_(rest: Rest, as_json: bool) -> None:
    """The newest first. `flows`: how many the target has taken over."""
    found = rest.every(MIGRATIONS)
    rows = [
        (
            each["vm"]["display_name"] or each["vm"]["id"],
            each["source"]["display_name"],
            each["target"]["display_name"],
            each["state"],
            each["flows"],
            when(each["last_time"]),
            each["id"],
            each["reason"],
        )
        for each in found
    ]
    columns = ("VM", "from", "to", "state", "flows", "since", "migration", "because")
    show(as_json, found, "migrations", columns, rows)


@migrations.command(short_help="Prepare a move: afterwards the VM may leave.")
@click.argument("vm", metavar="VM")
@click.option("--to", "target", metavar="HOST", required=True, help="Name or id.")
@as_json
@asks_manager
def begin(rest: Rest, vm: str, target: str, as_json: bool) -> None:
    """Give HOST the policy of VM, and what VM takes along so far. Afterwards VM may leave its host; where it
    may not the reason is said, and nothing has happened."""
    body = {"vm": _vm_id(rest, vm), "target": host_id(rest, target)}
    with under_way("preparing"):
        found = rest.call("POST", MIGRATIONS, body)
    _say(found, as_json)


@migrations.command(short_help="Call a move off.")
@click.argument("migration", metavar="ID")
@as_json
@asks_manager
def abort(rest: Rest, migration: str, as_json: bool) -> None:
    """Call a move off: the VM stays where it is."""
    _say(rest.call("DELETE", f"{MIGRATIONS}/{migration}"), as_json)


def _say(found: Any, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    vm, target = found["vm"]["display_name"], found["target"]["display_name"]
    click.echo(printable(f"{vm} to {target}: {found['state']}, {found['flows']} flows  {found['id']}"))


def _vm_id(rest: Rest, said: str) -> str:
    """Of the one VM of that name or id; ends the program where there is none, or several."""
    vms = rest.every(_VMS, included_fields="external_id,display_name")
    found: list[str] = [vm["external_id"] for vm in vms if said in (vm["external_id"], vm["display_name"])]
    if not found:
        near = meant(said, (vm["display_name"] for vm in vms))
        end(f"{said}: no VM has that name or id{near}", EXIT_REFUSED)
    if len(found) > 1:
        end(f"{said}: several VMs, say which: {', '.join(found)}", EXIT_REFUSED)
    return found[0]
