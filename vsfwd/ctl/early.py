"""`vsfwctl early`: packets dropped on XDP, before anything else of the kernel has work with them."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

import vsfwd.ipc.interface as api
from vsfwd.ctl.shell import as_json, ask, print_json, print_table, wide_console
from vsfwd.policy.model import parse_address


@click.group(short_help="Drops by source address at a device, before any rule.")
def early() -> None:
    """Drops by source address at a device, before any rule: a list of prefixes and a rate.

    On an uplink it sees what comes to the host, on the device of a vNIC what the workload sends. Meant for a
    flood: on a vNIC it slows down large transfers (see vsfwd/ctl/README.md).
    """


def _prefixes(_: click.Context, __: click.Parameter, said: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for each in said:
            parse_address(each)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return said


@early.command()
@click.argument("device")
@click.option(
    "--block",
    multiple=True,
    metavar="PREFIX",
    callback=_prefixes,
    help="Drop what comes from here. May be repeated.",
)
@click.option("--rate", type=click.IntRange(1), metavar="PPS", help="Packets a second from one source.")
@click.option(
    "--burst", type=click.IntRange(1), metavar="N", help="Packets at once from one source. [default: PPS]"
)
@click.pass_obj
def attach(socket: Path, device: str, block: tuple[str, ...], rate: int | None, burst: int | None) -> None:
    """Drop at DEVICE, in place of what is dropped there already."""
    if not block and rate is None:
        raise click.UsageError("say --block or --rate, or both")
    if burst is not None and rate is None:
        raise click.UsageError("--burst is of a --rate")
    rate = rate or 0
    ask(
        socket,
        lambda proxy: proxy.AttachEarlyDrop(
            device=device, blocked=list(block), rate=rate, burst=rate if burst is None else burst
        ),
    )


@early.command()
@click.argument("device")
@click.pass_obj
def detach(socket: Path, device: str) -> None:
    """Drop nothing early at DEVICE any more."""
    ask(socket, lambda proxy: proxy.DetachEarlyDrop(device=device))


@early.command()
@as_json
@click.pass_obj
def show(socket: Path, as_json: bool) -> None:
    """What is dropped early, and how much of it."""
    drops: list[api.EarlyDrop] = ask(socket, lambda proxy: proxy.EarlyDrops())["early"]
    if as_json:
        print_json(drops)
        return
    early_table(wide_console(), drops)


def early_table(console: Console, drops: Sequence[api.EarlyDrop]) -> None:
    print_table(
        console,
        "early drops",
        ("early drop", "mode", "prefixes", "rate", "burst", "passed", "dropped by prefix", "dropped by rate"),
        [
            (
                drop.device,
                drop.mode,
                len(drop.blocked),
                drop.rate or "any",
                drop.burst or "any",
                drop.passed,
                drop.dropped_blocked,
                drop.dropped_rate,
            )
            for drop in drops
        ],
    )
