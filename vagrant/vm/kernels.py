"""What became of the datapath on other kernels: the table of README.md, from what `./run vm KERNEL...` found.

    python3 vagrant/vm/kernels.py JUNIT-FILE [NAME]

says how the tests of a run ended; with a NAME it notes the run in kernels.json, where the newest of a name
counts, and writes the table anew. What a run has found out are properties in its JUnit file
(tests/datapath/test_kernel.py). The status is 1 if a test did not pass. Needs nothing but Python: it runs
where no .venv is."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

README: Final = Path(__file__).parents[2] / "README.md"
RUNS: Final = Path(__file__).with_suffix(".json")
BEGIN: Final = "<!-- Made by ./run vm from vagrant/vm/kernels.json. -->\n"
END: Final = "<!-- End of what is made. -->\n"
NOTHING: Final = "–"
Run = Mapping[str, str]


def found(junit: str) -> dict[str, str]:
    """Of one run, each line of its column."""
    suites = list(ElementTree.fromstring(junit).iter("testsuite"))
    properties = (each for suite in suites for each in suite.iter("property"))
    lines = {each.attrib["name"]: each.attrib["value"] for each in properties}
    every, failed, errors, skipped = (
        sum(int(suite.attrib[count]) for suite in suites)
        for count in ("tests", "failures", "errors", "skipped")
    )
    counts = {"passed": every - failed - errors - skipped, "failed": failed + errors, "not for it": skipped}
    return {**lines, "tests": ", ".join(f"{count} {what}" for what, count in counts.items() if count)}


def passed(run: Run) -> bool:
    return "passed" in run["tests"] and "failed" not in run["tests"]


def table(runs: Mapping[str, Run]) -> str:
    """A column for each run, by version; a line for each thing that one of them told of."""
    columns = [runs[name] for name in sorted(runs, key=_version)]
    lines = list(dict.fromkeys(line for run in columns for line in run if line != "kernel"))
    lines.append(lines.pop(lines.index("tests")))
    rows = [[line, *(run.get(line, NOTHING).replace("|", r"\|") for run in columns)] for line in lines]
    head = ["", *(run["kernel"] for run in columns)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def _version(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", name.partition("@")[0])], name


def with_table(page: str, runs: Mapping[str, Run]) -> str:
    """The page, with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError("the page has no place for the table of kernels")
    return f"{before}{BEGIN}\n{table(runs)}\n{END}{after}"


def main(junit: str, name: str = "") -> int:
    run = found(Path(junit).read_text())
    print(run["tests"])
    if name:
        runs = {**json.loads(RUNS.read_text()), name: run}
        RUNS.write_text(json.dumps(dict(sorted(runs.items())), indent=2) + "\n")
        README.write_text(with_table(README.read_text(), runs))
    return 0 if passed(run) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
