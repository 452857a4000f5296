"""What a run found: the table for people, bench.json for programs, bench.png for a glance.

Every part of the bench hands in `Figure`s; this module knows nothing about how they were measured.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.ratios import Estimate, Target

WIDTH: Final = 150
RATIO: Final = "×"
LOAD_BEFORE: Final = os.getloadavg()[0]
MET: Final = {True: "met", False: "NOT MET", None: "too few rounds"}
COUNTED: Final = {"fleet": "hosts", "motion": "flows, vNICs"}
"""What the size of a part's figures is a number of, where it is not rules."""
BY_THE_INTERVAL: Final = "met by its interval"


@dataclass(frozen=True)
class Figure:
    """One line of the report: a value with its interval, and what it is to reach, if anything. `part` is
    one of `__main__.PARTS`; `group` gathers lines, `name` tells them apart, `size` is the number of rules, or
    of what `COUNTED` says."""

    part: str
    group: str
    name: str
    size: int
    unit: str
    value: Estimate
    target: Target | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    """What was measured, by variant, in the order of the rounds."""

    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.target.met(self.value)
        text = BY_THE_INTERVAL if met and not self.target.reached(self.value.median) else MET[met]
        return f"{self.target.text}: {text}"


def machine() -> dict[str, str | float]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": round(LOAD_BEFORE, 2),
    }


def show(figures: Sequence[Figure]) -> None:
    """The table, on standard output."""
    console = Console(file=sys.stdout, width=WIDTH, highlight=False)
    console.print("Machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()))
    console.print(
        "Median and its 95 % interval (order statistics). A target is met if the interval reaches it."
    )
    for part in dict.fromkeys(figure.part for figure in figures):
        console.print(_table(part, [figure for figure in figures if figure.part == part]))


def _table(part: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=part, title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("")
    for heading in (COUNTED.get(part, "rules"), "median", "95 % interval", "unit", "rounds"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    table.add_column("target")
    previous = None
    for figure in figures:
        if previous not in (None, figure.group):
            table.add_section()
        value = figure.value
        interval = (
            "" if value.low is None or value.high is None else f"{_text(value.low)} – {_text(value.high)}"
        )
        table.add_row(
            figure.group if figure.group != previous else "",
            figure.name,
            f"{figure.size:,}" if figure.size else "",
            _text(value.median),
            interval,
            figure.unit,
            str(value.samples),
            figure.verdict(),
        )
        previous = figure.group
    return table


def _text(value: float) -> str:
    """Three figures or so, whatever the unit."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"


def write(figures: Sequence[Figure], directory: Path, arguments: Sequence[str]) -> None:
    """bench.json and bench.png; `arguments` are those of `./run bench`."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine(),
        "arguments": list(arguments),
        "figures": [
            asdict(figure) | {"met": figure.target.met(figure.value) if figure.target else None}
            for figure in figures
        ],
    }
    (directory / "bench.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _plot(figures, directory / "bench.png")


def _plot(figures: Sequence[Figure], path: Path) -> None:
    """One picture a group: value over the number of rules, a line for each name, whiskers for the
    interval."""
    # Imported here: it takes a second, and only this needs it.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((figure.part, figure.group) for figure in figures))
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    picture, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 4 * rows), squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    for axis, (part, group) in zip(axes.flat, groups, strict=False):
        members = [figure for figure in figures if (figure.part, figure.group) == (part, group)]
        # What has no size has no place on the axis, and what ratios are of has another unit.
        members = [figure for figure in members if figure.size]
        members = [figure for figure in members if figure.unit == members[-1].unit]
        for name in dict.fromkeys(figure.name for figure in members):
            _line(axis, name, [figure for figure in members if figure.name == name])
        axis.set(
            title=f"{part}: {group}", xlabel=COUNTED.get(part, "rules"), xscale="log", ylabel=members[-1].unit
        )
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    picture.tight_layout()
    picture.savefig(path, dpi=110)
    pyplot.close(picture)


def _line(axis, name: str, figures: Sequence[Figure]) -> None:  # type: ignore[no-untyped-def]
    middle = [figure.value.median for figure in figures]
    below = [value - (figure.value.low or value) for value, figure in zip(middle, figures, strict=True)]
    above = [(figure.value.high or value) - value for value, figure in zip(middle, figures, strict=True)]
    axis.errorbar(
        [figure.size for figure in figures], middle, [below, above], label=name, marker="o", capsize=3
    )
