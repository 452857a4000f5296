"""`./run lab`: the commands that make, show, use and remove a lab."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click
import httpx
from rich.console import Console
from rich.table import Table

from vagrant.lab import agents
from vagrant.lab.lab import Lab, take_down
from vagrant.lab.network import NetworkError
from vagrant.lab.processes import Process
from vagrant.lab.spec import BadSpec, Default, Transport, check_name, parse
from vagrant.lab.state import LabError
from vagrant.lab.waiting import step
from vsfwd.ipc.client import Unreachable

_ALONE: Final = ("manager", "broker")
"""What there is once, and not on every host."""
_what = click.argument("what", metavar="HOST|manager|broker")


class Commands(click.Group):
    """Failures that have a sentence for people end in that sentence."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (BadSpec, LabError, NetworkError, TimeoutError, Unreachable, httpx.HTTPError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--name",
    default="lab",
    show_default=True,
    help="Which lab: several can be up side by side, each in /run/vsfw-NAME.",
)
@click.pass_context
def main(context: click.Context, name: str) -> None:
    """Hosts and VMs as network namespaces, with a vsfwd on every host, one manager and one broker."""
    # A lab half built is removed on the way out, also when we are asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check_name(name)
    context.obj = name


@main.command()
@click.option("--hosts", default=2, show_default=True, help="How many; they are called host1, host2 ...")
@click.option(
    "--vm", "vms", multiple=True, metavar="NAME[@HOST][#tag,tag][+segment]", help="Tags: scope|tag or tag."
)
@click.option(
    "--segment",
    "segments",
    multiple=True,
    metavar="NAME=NUMBER",
    help='VNI or VLAN id. "default" is always there.',
)
@click.option(
    "--cluster", "clusters", multiple=True, metavar="NAME=HOST,...", help="Hosts that belong together."
)
@click.option(
    "--datacenter", "datacenters", multiple=True, metavar="NAME=CLUSTER,...", help="Clusters at one place."
)
@click.option(
    "--default",
    type=click.Choice([str(d) for d in Default]),
    default=str(Default.DROP),
    show_default=True,
    help="What the default rule does.",
)
@click.option(
    "--transport",
    type=click.Choice([str(each) for each in Transport]),
    default=str(Transport.OVERLAY),
    show_default=True,
    help="What joins the hosts: VXLAN, or a bridge between them with a VLAN a segment.",
)
@click.pass_obj
def up(name: str, /, hosts: int, **lists: Any) -> None:
    """Make a lab. What a killed run left goes first."""
    lab = Lab.up(parse(hosts=hosts, **lists), name)
    lab.keep()
    _show(lab)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def status(name: str, as_json: bool) -> None:
    """What is up, and how to reach it."""
    lab = Lab.attach(name)
    if as_json:
        click.echo(json.dumps(describe(lab), indent=2))
    else:
        _show(lab)


@main.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("vm")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run_inside(name: str, vm: str, command: Sequence[str]) -> NoReturn:
    """Run COMMAND inside of VM; its exit status is ours, 127 if there is no such command."""
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("nothing to run after --")
    # By a shell: `ip netns exec` says 255 of a command that it does not find.
    argv = Lab.attach(name).exec_argv(vm, ["sh", "-c", 'exec "$@"', "sh", *command])
    os.execvp(argv[0], argv)


@main.command()
@_what
@click.pass_obj
def start(name: str, what: str) -> None:
    """Start the vsfwd of HOST and its agents, the manager or the broker again, after they were stopped or
    killed."""
    lab = Lab.attach(name)
    process, called = _process(lab, what), _called(what)
    if process is not None:
        if what in _ALONE or None not in agents.running(lab.host(what)).values():
            raise LabError(f"{called} is running, pid {process.pid}")
        with step(f"agents of {what}"):
            agents.start(lab.host(what))
        return
    with step(called.removeprefix("the ")):
        if what == "manager":
            lab.manager.start()
            lab.manager.wait_ready(lab.rest)
        elif what == "broker":
            lab.broker.start()
            lab.broker.wait_ready()
        else:
            lab.start_vsfwd(what)


@main.command()
@_what
@click.pass_obj
def stop(name: str, what: str) -> None:
    """Stop the vsfwd of HOST, the manager or the broker, in order. The kernel goes on enforcing."""
    lab = Lab.attach(name)
    process, called = _process(lab, what), _called(what)
    if process is None:
        raise LabError(f"{called} is not running")
    with step(f"stopping {called}"):
        if what == "broker":
            lab.broker.stop()  # with its epmd
        else:
            process.stop()


def _process(lab: Lab, what: str) -> Process | None:
    """If it lives."""
    if what == "manager":
        return lab.manager.process()
    if what == "broker":
        return lab.broker.processes()["node"] if lab.broker.running() else None
    return lab.vsfwd(what)


def _called(what: str) -> str:
    return f"the {what}" if what in _ALONE else f"the vsfwd of {what}"


@main.command()
@click.argument("vm")
@click.argument("host")
@click.option(
    "--unannounced", is_flag=True, help="As by a hypervisor that says nothing: with its policy, and no flow."
)
@click.pass_obj
def migrate(name: str, vm: str, host: str, unannounced: bool) -> None:
    """Move VM to HOST, while it runs."""
    lab = Lab.attach(name)
    with step(f"{vm} moves from {lab.vm(vm).host} to {lab.host(host).name}"):
        lab.migrate(vm, host, announced=not unannounced)


@main.command()
@click.pass_obj
def down(name: str) -> None:
    """Remove the lab, or what a killed run left of one."""
    with step(f"removing lab {name!r}"):
        there = take_down(name)
    if not there:
        click.echo(f"lab {name!r} was not up", err=True)


def describe(lab: Lab) -> dict[str, Any]:
    """The answer of `status --json`; scripts rely on its keys."""
    layout, access = lab.layout, lab.access
    return {
        "name": layout.name,
        "directory": str(layout.directory),
        "manager": {
            "url": access.url,
            "ca": str(access.ca),
            "user": access.user,
            "password": access.password,
            "running": lab.manager.process() is not None,
        },
        "broker": {"url": lab.broker.url, "api_url": lab.broker.api_url, "running": lab.broker.running()},
        "segments": {
            segment.name: {"vni" if layout.transport is Transport.OVERLAY else "vlan": segment.number}
            for segment in layout.segments
        },
        "clusters": layout.clusters,
        "datacenters": layout.datacenters,
        "hosts": {
            host.name: {
                "id": host.id,
                "namespace": host.namespace,
                "address": host.address,
                "pid": process.pid if (process := lab.vsfwd(host.name)) else None,
                "socket": str(host.socket),
                "pins": str(host.pins),
                "log": str(host.log),
                "agents": agents.running(host),
                "guests": str(host.guests),
            }
            for host in layout.hosts
        },
        "vms": {
            vm.name: {
                "id": vm.id,
                "vnic": vm.vnic,
                "namespace": vm.namespace,
                "host": vm.host,
                "device": vm.device,
                "mac": vm.mac,
                "addresses": [vm.v4, vm.v6],
                "tags": [str(tag) for tag in vm.tags],
                "segment": vm.segment,
            }
            for vm in layout.vms
        },
    }


def _show(lab: Lab) -> None:
    console = Console()
    access = lab.access
    facts = Table.grid(padding=(0, 2))
    facts.add_row("manager", access.url if lab.manager.process() else f"{access.url} (stopped)")
    facts.add_row("", f"user {access.user}, password {access.password}")
    facts.add_row("", f"CA {access.ca}")
    facts.add_row("broker", lab.broker.url if lab.broker.running() else f"{lab.broker.url} (stopped)")
    console.print(facts)
    hosts = Table("host", "vsfwd", "agents", "socket", box=None, padding=(0, 2, 0, 0))
    for host in lab.layout.hosts:
        process = lab.vsfwd(host.name)
        vsfwd = f"pid {process.pid}" if process else "not running"
        gone = [f"no {name}" for name, pid in agents.running(host).items() if pid is None]
        hosts.add_row(host.name, vsfwd, "\n".join(gone) or "running", str(host.socket))
    console.print(hosts)
    vms = Table("VM", "host", "segment", "addresses", "tags", box=None, padding=(0, 2, 0, 0))
    for vm in lab.layout.vms:
        vms.add_row(vm.name, vm.host, vm.segment, f"{vm.v4} {vm.v6}", " ".join(map(str, vm.tags)))
    if lab.layout.vms:
        console.print(vms)


if __name__ == "__main__":
    main(prog_name="./run lab")
