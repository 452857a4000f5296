"""`./run bench`: measure, show the table, write bench.json and bench.png. How to read them is in
tests/bench/README.md."""

import signal
import sys
from pathlib import Path
from typing import Final

import click

from tests.bench import (
    compiler,
    early,
    fleet,
    flood,
    kernel,
    motion,
    packet,
    plugging,
    report,
    scenarios,
    start,
    update,
)
from tests.bench.rounds import Progress

PARTS: Final = ("traffic", "packet", "early", "start", "update", "compile", "flood", "fleet", "motion")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", type=click.Choice([*PARTS, "all"]), default="all")
@click.option("--quick", is_flag=True, help="About three minutes: 10,000 rules on one host, few rounds.")
@click.option(
    "--rounds", type=click.IntRange(1), help="Rounds of the figures that have a target; others take fewer."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default="build/bench", show_default=True
)
@click.option(
    "--moves",
    type=click.IntRange(1),
    help="Of `motion`, and as many vNICs that are plugged; 1,000 are its long form.",
)
def main(what: str, quick: bool, rounds: int | None, out: Path, moves: int | None) -> None:
    rounds = rounds or (6 if quick else 31)
    moves = moves or (rounds if quick else 100)
    parts = PARTS if what == "all" else (what,)
    planned = scenarios.quick(rounds) if quick else scenarios.full(rounds)
    fleets = fleet.SIZES[:1] if quick else fleet.SIZES
    sizes = (compiler.SMALL,) if quick else (compiler.SMALL, compiler.LARGE)
    seconds = {
        "traffic": scenarios.planned_s(planned),
        "packet": packet.planned_s(rounds),
        "early": early.planned_s(rounds),
        "start": start.planned_s(rounds),
        "update": update.planned_s(rounds),
        "compile": compiler.planned_s(sizes, rounds),
        "flood": flood.planned_s(rounds),
        "fleet": fleet.planned_s(fleets, rounds),
        "motion": motion.planned_s(moves) + plugging.planned_s(moves),
    }
    progress = Progress(sum(seconds[part] for part in parts))
    figures = []
    # The quick parts first: who waits half an hour has something to look at.
    with kernel.alone():
        if "packet" in parts:
            figures += packet.run(rounds, progress)
        if "early" in parts:
            figures += early.run(rounds, progress)
        if "start" in parts:
            figures += start.run(rounds, progress)
        if "update" in parts:
            figures += update.run(rounds, progress)
        if "compile" in parts:
            figures += compiler.run(sizes, rounds, progress)
        if "flood" in parts:
            figures += flood.run(rounds, progress)
        if "fleet" in parts:
            figures += fleet.run(fleets, rounds, not quick, progress)
        if "motion" in parts:
            figures += motion.run(moves, progress)
            figures += plugging.run(moves, progress)
        if "traffic" in parts:
            figures += scenarios.run(planned, progress)
    report.show(figures)
    report.write(figures, out, sys.argv[1:])
    click.echo(f"{out}/bench.json, {out}/bench.png")


if __name__ == "__main__":
    # A termination cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(prog_name="./run bench")
