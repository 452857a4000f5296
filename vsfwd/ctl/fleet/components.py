"""`vsfwctl components`: what runs on hosts beside vsfwd: what it says, and what it is sent and asked, on one
host or on many. The host's own side of this is `vsfwctl bus`."""

import json
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from vsfwd.ctl.fleet.hosts import host_id
from vsfwd.ctl.fleet.listing import Listing, show, when
from vsfwd.ctl.manager import asks_manager, under_way
from vsfwd.ctl.shell import EXIT_REFUSED, Checked, MessageBody, as_json
from vsfwd.protocol.components import MAX_PATIENCE_S, check_component, check_topic
from vsfwd.rest import Rest

COMPONENTS: Final = "/api/v1/vsfw/components"
_MOST: Final = 1000
_SHOWN: Final = 20
_TOPIC: Final = Checked(check_topic)
_component = click.argument("component", type=Checked(check_component))


@click.group(cls=Listing, short_help="What runs on hosts beside vsfwd.")
def components() -> None:
    """What runs on hosts beside vsfwd: what it says; send it something, or ask it."""


@components.command(name="list")
@as_json
@asks_manager
def list_(rest: Rest, as_json: bool) -> None:
    """Components that have said something, host by host."""
    found = rest.every(COMPONENTS)
    rows = [(each["component"], _host(each), each["messages"], when(each["last_time"])) for each in found]
    show(as_json, found, "components", ("component", "host", "messages kept", "last"), rows)


@components.command()
@_component
@click.option("--host", metavar="NAME|ID", help="Only what it said there.")
@click.option("--topic", type=_TOPIC, help="Only about this.")
@click.option(
    "--last",
    type=click.IntRange(1, _MOST),
    default=_SHOWN,
    show_default=True,
    metavar="N",
    help="How many, the newest first.",
)
@as_json
@asks_manager
def messages(
    rest: Rest, component: str, host: str | None, topic: str | None, last: int, as_json: bool
) -> None:
    """What a component has said."""
    place = host and host_id(rest, host)
    path = f"{COMPONENTS}/{component}/messages"
    found = rest.call("GET", path, host=place, topic=topic, page_size=last)["results"]
    rows = [(when(each["time"]), _host(each), each["topic"], json.dumps(each["body"])) for each in found]
    show(as_json, found, "messages", ("time", "host", "topic", "body"), rows)


_TO: Final = (
    _component,
    click.argument("topic", type=_TOPIC),
    click.argument("body", type=MessageBody(), default="{}"),
    click.option("--host", "hosts", multiple=True, metavar="NAME|ID", help="May be repeated."),
    click.option("--cluster", "clusters", multiple=True, metavar="ID", help="All hosts of a cluster."),
    click.option(
        "--datacenter", "datacenters", multiple=True, metavar="ID", help="All hosts of a datacenter."
    ),
    click.option("--all-hosts", is_flag=True, help="Every host."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.IntRange(1, MAX_PATIENCE_S),
        default=10,
        show_default=True,
        metavar="S",
        help="How long each host has.",
    ),
    as_json,
)


def _to_hosts(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_TO):
        command = option(command)
    return command


@components.command(short_help="Send a component something.")
@_to_hosts
@asks_manager
def send(rest: Rest, **asked: Any) -> None:
    """Send a component BODY, a JSON object. The exit status is 0 where vsfwd gave it to the component on
    every host, and 1 where one did not."""
    _deliver(rest, "messages", **asked)


@components.command(short_help="Ask a component.")
@_to_hosts
@asks_manager
def call(rest: Rest, **asked: Any) -> None:
    """Ask a component, with BODY, a JSON object. The exit status is 0 where it answered on every host, and 1
    where one did not."""
    _deliver(rest, "calls", **asked)


def _deliver(
    rest: Rest,
    kind: str,
    component: str,
    hosts: tuple[str, ...],
    all_hosts: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    if not (hosts or all_hosts or asked["clusters"] or asked["datacenters"]):
        raise click.UsageError("to whom? Say --host, --cluster, --datacenter or --all-hosts")
    to = {"hosts": [host_id(rest, host) for host in hosts], "all_hosts": all_hosts}
    with under_way("waiting for the hosts"):
        found = rest.call("POST", f"{COMPONENTS}/{component}/{kind}", to | asked)["results"]
    found.sort(key=_host)
    rows = [(_host(each), "yes" if each["done"] else "no", _outcome(each)) for each in found]
    show(as_json, found, "hosts", ("host", "done", "answer"), rows)
    if not all(each["done"] for each in found):
        sys.exit(EXIT_REFUSED)


def _host(each: Any) -> str:
    return str(each["host"]["display_name"] or each["host"]["id"])


def _outcome(each: Any) -> str:
    return json.dumps(each["body"]) if each["done"] else str(each["reason"])
