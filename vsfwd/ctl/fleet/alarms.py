"""`vsfwctl alarms`: what is wrong with the hosts, and with the manager itself, as the manager sees it. Those
of one host alone are in `vsfwctl status`."""

from typing import Final

import click

from vsfwd.ctl.fleet.listing import Listing, show, when
from vsfwd.ctl.manager import asks_manager
from vsfwd.ctl.shell import EXIT_REFUSED, as_json, end
from vsfwd.nearest import meant
from vsfwd.rest import Rest

ALARMS: Final = "/api/v1/alarms"
STATUSES: Final = ("OPEN", "ACKNOWLEDGED", "SUPPRESSED")
_id = click.argument("id")


@click.group(cls=Listing, short_help="What is wrong, with hosts and manager.")
def alarms() -> None:
    """What is wrong, with hosts and manager. An alarm is gone with its cause."""


@alarms.command(name="list")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only these.")
@as_json
@asks_manager
def list_(rest: Rest, status: str | None, as_json: bool) -> None:
    """Alarms that there are. The id is for the other commands."""
    found = rest.every(ALARMS, status=status)
    rows = [
        (
            each["severity"],
            each["node_display_name"],
            each["description"],
            each["status"],
            when(each["last_reported_time"]),
            each["id"],
        )
        for each in found
    ]
    show(as_json, found, "alarms", ("alarm", "of", "what", "status", "last seen", "id"), rows)


@alarms.command(short_help="Say that somebody knows.")
@_id
@asks_manager
def acknowledge(rest: Rest, id: str) -> None:
    """Say that somebody knows: it stays, as acknowledged, until its cause is gone or another."""
    _say(rest, id, "ACKNOWLEDGED")


@alarms.command()
@_id
@click.option("--hours", type=click.IntRange(1, 10_000), required=True, help="For how long.")
@asks_manager
def suppress(rest: Rest, id: str, hours: int) -> None:
    """Say that nobody wants to see it for some hours."""
    _say(rest, id, "SUPPRESSED", hours)


@alarms.command()
@_id
@asks_manager
def reopen(rest: Rest, id: str) -> None:
    """Take back that it is acknowledged or suppressed."""
    _say(rest, id, "OPEN")


def _say(rest: Rest, id: str, status: str, hours: int | None = None) -> None:
    ids = [each["id"] for each in rest.every(ALARMS, included_fields="id")]
    if id not in ids:
        end(f"{id}: there is no such alarm{meant(id, ids) or '; vsfwctl alarms shows them'}", EXIT_REFUSED)
    said = rest.call(
        "POST", f"{ALARMS}/{id}", action="set_status", new_status=status, suppress_duration=hours
    )
    click.echo(f"{id} is {said['status']}")
