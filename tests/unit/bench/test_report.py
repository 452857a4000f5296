"""The table, the JSON and the plot of the bench."""

import json

from tests.bench.ratios import Target, estimate
from tests.bench.report import RATIO, Figure, show, write

GOOD = Figure(
    "traffic",
    "one host, bulk TCP",
    "vsfwd ÷ none",
    10000,
    RATIO,
    estimate([0.97] * 6),
    Target("≥ 0.95", 0.95, True),
)
BAD = Figure("packet", "IPv4", "established", 16384, "ns", estimate([70.0] * 6), Target("≤ 60", 60, False))
OPEN = Figure("packet", "IPv4", "promotion", 16384, "ns", estimate([70.0]))


def test_the_table_says_what_was_met_and_what_was_not(capsys):
    """Median, interval, rounds and verdict stand in one line; the machine above."""
    show([GOOD, BAD, OPEN])
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if "vsfwd ÷ none" in line)
    for word in ("10,000", "0.970", "0.970 – 0.970", "6", "≥ 0.95: met"):
        assert word in line
    assert "≤ 60: NOT MET" in next(line for line in output.splitlines() if "established" in line)
    assert output.startswith("Machine: cores ")


def test_the_machine_is_not_named():
    """Cores and kernel, no host name: tables are published."""
    import platform

    from tests.bench.report import machine

    assert platform.node() not in machine().values()


def test_the_json_holds_every_figure_and_its_verdict(tmp_path):
    """A program finds the value, the interval, the target and whether it was met; the plot stands beside."""
    write([GOOD, BAD, OPEN], tmp_path, ["--quick"])
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["arguments"] == ["--quick"]
    assert [(figure["name"], figure["met"]) for figure in content["figures"]] == [
        ("vsfwd ÷ none", True),
        ("established", False),
        ("promotion", None),
    ]
    assert content["figures"][0]["value"] == {"median": 0.97, "low": 0.97, "high": 0.97, "samples": 6}
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_a_median_that_misses_is_not_called_met_without_saying_so():
    """The interval decides, and the table says when it alone does."""
    close = Figure(
        "packet", "IPv4", "new", 16, "ns", estimate([1.0, 1.0, 3, 3, 3, 3]), Target("≤ 2", 2, False)
    )
    assert close.verdict() == "≤ 2: met by its interval"
