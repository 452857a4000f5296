"""`vsfwctl lint`: what is in the manager's policy and does nothing, or more than it should."""

import sys
from typing import Any, Final

import click

from vsfwd.ctl.manager import asks_manager, under_way
from vsfwd.ctl.shell import as_json, print_json, print_table, printable, wide_console
from vsfwd.rest import Rest

ANALYSIS: Final = "/policy/api/v1/infra/rule-analysis"
KINDS: Final = (
    *("SHADOWED", "REDUNDANT", "TOO_WIDE", "NO_NEIGHBOURS", "MATCHES_NOTHING", "APPLIED_TO_NOTHING"),
    *("NEVER_HIT", "UNREPORTED_HOST", "EMPTY_GROUP", "UNUSED_GROUP", "UNUSED_SERVICE", "LOOKALIKE"),
)
EXIT_FOUND: Final = 7
_NEAR: Final = "/infra/domains/default/"
"""What every path of a rule or a group begins with: not shown in the table."""
_MOST: Final = 3
"""Other objects that the table names for one finding; JSON has more."""


@click.command(short_help="What in the policy does nothing, or too much.")
@click.option(
    "--kind",
    type=click.Choice(KINDS, case_sensitive=False),
    metavar="KIND",
    help=f"Only findings of this kind: {', '.join(KINDS)}.",
)
@click.option(
    "--unhit-days",
    type=click.IntRange(0),
    metavar="DAYS",
    help="A rule is never hit that was not for so long (30); 0: that never was.",
)
@click.option("--exit-code", is_flag=True, help=f"Exit status {EXIT_FOUND} if there is a finding.")
@as_json
@asks_manager
def lint(rest: Rest, kind: str | None, unhit_days: int | None, exit_code: bool, as_json: bool) -> None:
    """Rules that never decide, that nobody would miss, that are never hit, that allow too much or apply to
    nothing; groups that are empty; what nothing uses; hosts that do not say what was hit. With why, and what
    to do."""
    with under_way("reading the policy"):
        found = rest.every(ANALYSIS, kind=kind, unhit_days=unhit_days)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if exit_code and found:
        sys.exit(EXIT_FOUND)


def _print(found: list[Any]) -> None:
    rows = [
        [each["kind"], _short(each["path"]), each["why"], _others(each), each["next_step"]] for each in found
    ]
    columns = ("finding", "object", "why", "because of", "next step")
    print_table(wide_console(), "findings", columns, [[printable(cell) for cell in row] for row in rows])


def _short(path: str) -> str:
    return path.removeprefix(_NEAR)


def _others(finding: Any) -> str:
    named = [_short(each["path"]) for each in finding["others"][:_MOST]]
    more = finding["others_count"] - len(named)
    return ", ".join([*named, *([f"and {more} more"] if more else [])])
