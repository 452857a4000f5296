"""`vsfwctl migrate`: the steps of a live migration, for the hook of a hypervisor."""

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
from asyncvarlink import VarlinkErrorReply

import vsfwd.ipc.migration_interface as api
from vsfwd.ctl.shell import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    as_json,
    end,
    print_json,
    print_table,
    wide_console,
)
from vsfwd.ipc import client
from vsfwd.ipc.migration_interface import PART

_vm = click.argument("vm")


@click.group(short_help="Steps of a VM's move to another host, for a hypervisor's hook.")
def migrate() -> None:
    """Steps of a VM's move to another host, for a hypervisor's hook. VM is its id.

    Where the manager has been asked for the migration, a hook says `freeze` at the source when the VM stops
    there, and the rest happens by itself. Without a manager: `prepare` at both hosts with the same offer;
    `export` and `import` as often as there is time; `freeze`; `export` and `import` once more; `finish` at
    the source when the VM runs."""


@migrate.command()
@click.argument("offer", type=click.File())
@click.pass_obj
def prepare(socket: Path, offer: TextIO) -> None:
    """Get ready for OFFER, a file of JSON, or - for the standard input.

    It has: migration, vm, source, target (ids), source_key, target_key (as `status` shows them), vnics
    (each with vnic, vm, mac, device), and epoch and generation of the target's policy without which the VM
    must not run there."""
    try:
        said = json.load(offer)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="OFFER") from None
    _ask(socket, lambda proxy: proxy.Prepare(offer=said))


@migrate.command()
@_vm
@click.pass_obj
def freeze(socket: Path, vm: str) -> None:
    """At the source: from now on nothing passes."""
    _ask(socket, lambda proxy: proxy.Freeze(vm=vm))


@migrate.command()
@_vm
@click.argument("file", type=click.File("wb"), default="-")
@click.pass_obj
def export(socket: Path, vm: str, file: BinaryIO) -> None:
    """At the source: write what the VM takes along to FILE, sealed for the target. [default: standard
    output]"""

    async def read(proxy: Any) -> bytes:
        return b"".join([base64.b64decode(reply["part"]) async for reply in proxy.Export(vm=vm)])

    file.write(_ask(socket, read))


@migrate.command("import")
@_vm
@click.argument("file", type=click.File("rb"), default="-")
@as_json
@click.pass_obj
def import_(socket: Path, vm: str, file: BinaryIO, as_json: bool) -> None:
    """At the target: install what was exported to FILE. [default: standard input]"""
    whole = file.read()

    async def send(proxy: Any) -> api.Imported:
        for at in range(0, max(len(whole), 1), PART):
            part, more = base64.b64encode(whole[at : at + PART]).decode(), at + PART < len(whole)
            reply = await proxy.Import(vm=vm, part=part, more=more)
        imported: api.Imported = reply["imported"]
        return imported

    imported = _ask(socket, send)
    if as_json:
        print_json(imported)
    else:
        last = ", the last one" if imported.final else ""
        click.echo(f"round {imported.round}{last}: {imported.flows} flows are here")


@migrate.command()
@_vm
@click.pass_obj
def activate(socket: Path, vm: str) -> None:
    """At the target: the VM runs here, though it has not said so itself."""
    _ask(socket, lambda proxy: proxy.Activate(vm=vm))


@migrate.command()
@_vm
@click.pass_obj
def finish(socket: Path, vm: str) -> None:
    """At the source: the VM runs at the target."""
    _ask(socket, lambda proxy: proxy.Finish(vm=vm))


@migrate.command()
@_vm
@click.pass_obj
def abort(socket: Path, vm: str) -> None:
    """The VM stays where it is: the source goes on, the target forgets."""
    _ask(socket, lambda proxy: proxy.Abort(vm=vm))


@migrate.command()
@as_json
@click.pass_obj
def status(socket: Path, as_json: bool) -> None:
    """Moves that this host takes part in, and what an offer says of it."""
    found: api.MigrationStatus = _ask(socket, lambda proxy: proxy.Status())["status"]
    if as_json:
        print_json(found)
        return
    console = wide_console()
    console.print(f"host {found.host_id}\nkey  {found.key}", highlight=False, soft_wrap=True)
    rows = [
        (
            move.vm,
            move.role,
            move.step,
            move.rounds,
            move.flows,
            ", ".join(sorted(set(move.held.values()))),
            f"{move.age_s} s",
        )
        for move in found.migrations
    ]
    print_table(console, "moves", ("VM", "role", "step", "rounds", "flows", "held", "since"), rows)


def _ask(socket: Path, question: Callable[[Any], Awaitable[Any]]) -> Any:
    try:
        return client.ask(socket, question, api.MigrationInterface)
    except client.Unreachable as error:
        end(str(error), EXIT_UNREACHABLE)
    except api.Refused as error:
        end(str(error.parameters["reason"]), EXIT_REFUSED)
    except VarlinkErrorReply as error:
        end(f"{error.name}: only root moves VMs", EXIT_REFUSED)
