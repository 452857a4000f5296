"""`vsfwctl export`, `apply`, `confirm`, `roll-back` and `import`: the policy of the manager as a file."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any, Final, NoReturn

import click

from vsfwd.ctl import policyfile
from vsfwd.ctl.fleet.hosts import HOSTS, no_broker
from vsfwd.ctl.manager import asks_manager, under_way
from vsfwd.ctl.shell import EXIT_REFUSED, EXIT_USAGE, as_json, end, print_json, printable
from vsfwd.rest import Denied, Rest, Unreachable

POLICY: Final = "/api/v1/vsfw/policy"
PUBLISH: Final = "/api/v1/vsfw/publish"
EXIT_PARTLY: Final = 4
"""Imported, and something was left out."""
EXIT_WOULD_CHANGE: Final = 5
"""Of a dry run with --exit-code."""
_SIGNS: Final = {"+": ("green", "added"), "~": ("yellow", "changed"), "-": ("red", "removed")}


@dataclass(frozen=True)
class Way:
    """How what a file says is taken."""

    dry_run: bool
    exit_code: bool
    diff: bool
    confirm: int | None
    yes: bool
    as_json: bool

    def check(self, file: str) -> None:
        if self.exit_code and not self.dry_run:
            raise click.UsageError("--exit-code is about a --dry-run")
        if not (self.yes or self.dry_run) and (self.as_json or file == "-" or not sys.stdin.isatty()):
            raise click.UsageError("there is nobody to ask: say --yes, or --dry-run")


_OPTIONS: Final = (
    click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing."),
    click.option(
        "--exit-code", is_flag=True, help="With --dry-run: exit status 5 if something would change."
    ),
    click.option("--diff", is_flag=True, help="Say of each object what changes."),
    click.option(
        "--confirm",
        type=click.IntRange(1, 86400),
        metavar="SECONDS",
        help="Undone after that time, unless `vsfwctl confirm` comes first.",
    ),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    as_json,
)


def takes_file(command: Callable[..., None]) -> Callable[..., None]:
    """Calls `command` with `way` and the `file` it is about."""

    @functools.wraps(command)
    def taking(
        file: str,
        dry_run: bool,
        exit_code: bool,
        diff: bool,
        confirm: int | None,
        yes: bool,
        as_json: bool,
        **arguments: Any,
    ) -> None:
        way = Way(dry_run, exit_code, diff, confirm, yes, as_json)
        way.check(file)
        command(way=way, file=file, **arguments)

    for option in reversed(_OPTIONS):
        taking = option(taking)
    return click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))(taking)


@click.command(short_help="The policy as a file, for `apply`.")
@click.option("--format", type=click.Choice(["yaml", "json"]), help="[default: json for *.json, else yaml]")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="[default: the terminal]"
)
@asks_manager
def export(rest: Rest, format: str | None, output: str | None) -> None:
    """The policy as a file, for `apply`: services, schedulers, session timers, groups, sections with their
    rules, the exclusion list. Inventory, segments and users are no part of it."""
    as_json = format == "json" if format else str(output).endswith(".json")
    with under_way("reading the policy"):
        text = policyfile.write(rest.call("GET", POLICY), as_json=as_json)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with click.open_file(output, "w", encoding="utf-8", atomic=True) as file:
            file.write(text)
    except OSError as error:
        end(f"{output}: {error.strerror}", EXIT_USAGE)


@click.command(name="apply", short_help="Make the policy what a file says.")
@takes_file
@asks_manager
def apply_(rest: Rest, file: str, way: Way) -> None:
    """Make the policy what FILE says (- is standard input): one publish, all of it or nothing.

    What is in the policy and not in FILE is removed, but for what is predefined. What would change is shown
    and asked about first; if somebody changes the policy meanwhile, nothing happens.
    """
    take(rest, way, "PUT", POLICY, read_file(file))


@click.command(name="import", short_help="Take what an NSX manager exported.")
@click.option("--partly", is_flag=True, help="Also without rules that keep something out.")
@takes_file
@asks_manager
def import_(rest: Rest, file: str, way: Way, partly: bool) -> None:
    """Take what an NSX manager exported, in FILE as it answered GET /policy/api/v1/infra?filter=... (- is
    standard input).

    What has a counterpart here is taken, all at once, and what is here besides stays. Everything that has
    none is told in a line; the exit status is 4 then, also of a dry run. Where a rule that drops, rejects,
    jumps or excludes has none, nothing is taken unless you say --partly: the rules below it would decide.
    """
    document = read_file(file)
    if "version" in document and "resource_type" not in document:
        end(f"{file}: an export of this manager, not of NSX; use apply", EXIT_USAGE)
    take(rest, way, "POST", f"{POLICY}/import", document, partly=partly)


@click.command()
@as_json
@asks_manager
def confirm(rest: Rest, as_json: bool) -> None:
    """What was published with --confirm stays."""
    rest.call("POST", PUBLISH, action="confirm")
    say("confirmed", as_json)


@click.command()
@as_json
@asks_manager
def roll_back(rest: Rest, as_json: bool) -> None:
    """What was published with --confirm is undone now."""
    rest.call("POST", PUBLISH, action="roll_back")
    say("undone", as_json)


def say(outcome: str, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": outcome})
    else:
        click.echo(outcome)


def read_file(file: str) -> dict[str, Any]:
    try:
        with click.open_file(file, encoding="utf-8") as opened:
            text = opened.read(policyfile.MAX_BYTES + 1)
        if len(text) > policyfile.MAX_BYTES:
            raise policyfile.Unreadable(f"{file}: more than {policyfile.MAX_BYTES} bytes")
        with under_way(f"reading {file}"):
            return policyfile.read(file, text)
    except OSError as error:
        end(f"{file}: {error.strerror}", EXIT_USAGE)
    except UnicodeDecodeError:
        end(f"{file}: not UTF-8", EXIT_USAGE)
    except policyfile.Unreadable as error:
        end(str(error), EXIT_USAGE)


def take(rest: Rest, way: Way, method: str, path: str, document: Any, **query: object) -> NoReturn:
    """Show what would change, ask, publish exactly that, and end with the status that says what became of
    it. Raises Denied, with --json once that is told."""
    try:
        _take(rest, way, method, path, document, query)
    except Denied as error:
        if way.as_json:
            _print_outcome(way, {"results": [], "refused": str(error)}, "refused")
        raise


def _take(rest: Rest, way: Way, method: str, path: str, document: Any, query: dict[str, object]) -> NoReturn:
    with under_way("comparing"):
        found = rest.call("POST", f"{path}/diff", document, **query)
    digest = found.pop("digest")
    if not way.as_json:
        if way.dry_run or "refused" not in found:  # what is refused changes nothing
            show(found["results"], way.diff)
        show_left_out(found)
    status = EXIT_PARTLY if found.get("left_out") else 0
    if "refused" in found:
        _end(way, found, "refused", EXIT_REFUSED)
    if not found["results"]:
        _end(way, found, "unchanged", status)
    if way.dry_run:
        _end(way, found, "dry run", status or (EXIT_WOULD_CHANGE if way.exit_code else 0))
    if not way.yes:
        click.confirm("publish this?", abort=True)
    with under_way("publishing"):
        rest.call(method, path, document, digest=digest, confirm_within=way.confirm, **query)
        away = "" if way.as_json else _away(rest)
    _end(way, found | {"away": away} if away else found, "published", status)


def _away(rest: Rest) -> str:
    """How many hosts have not been sent what was published, and why; what is published is, whoever may ask
    for hosts or not."""
    try:
        hosts = rest.every(HOSTS, included_fields="connected,no_broker")
    except (Denied, Unreachable):
        return ""
    away = [host for host in hosts if not host["connected"]]
    if not away:
        return ""
    none = f"; the manager has {why}" if (why := no_broker(away[0])) else ""
    return f"{len(away)} of {len(hosts)} hosts are not connected and get it when they are{none}"


def _end(way: Way, found: Any, outcome: str, status: int) -> NoReturn:
    if way.as_json:
        _print_outcome(way, found, outcome)
    if outcome == "refused":
        end(f"{found['refused']}; nothing is changed", status)
    if outcome == "published" and not way.as_json:
        click.echo("published")
        if "away" in found:
            click.echo(printable(found["away"]))
        if way.confirm is not None:
            click.echo(f"undone in {way.confirm} s, unless you say: vsfwctl confirm")
    sys.exit(status)


def _print_outcome(way: Way, found: Any, outcome: str) -> None:
    print_json({"outcome": outcome, "confirm_within": way.confirm, **found})


def show(results: Sequence[Any], diff: bool) -> None:
    """A line for each object, with `diff` more, and how many."""
    counts = dict.fromkeys(_SIGNS, 0)
    for each in results:
        sign = "+" if each["before"] is None else "-" if each["after"] is None else "~"
        counts[sign] += 1
        click.secho(f"{sign} {printable(each['path'])}", fg=_SIGNS[sign][0], bold=True)
        for line in _lines(each["before"], each["after"]) if diff else ():
            click.secho(f"    {printable(line)}", fg={"+": "green", "-": "red"}.get(line[0]))
    told = ", ".join(f"{count} {_SIGNS[sign][1]}" for sign, count in counts.items() if count)
    click.echo(told or "no difference")


def show_left_out(found: Any) -> None:
    """Of an import; a document leaves nothing out."""
    if found.get("metadata"):
        counts = ", ".join(f"{name} {count}" for name, count in sorted(found["metadata"].items()))
        click.echo(printable(f"of no account here: {counts}"))
    left_out = found.get("left_out", ())
    for each in left_out:
        line = f"left out  {each['path']}  {each['what']}  {each['why']}"
        click.secho(printable(line), fg="yellow")
    if left_out:
        click.echo(f"{len(left_out)} left out")


def _lines(before: Any, after: Any) -> Iterator[str]:
    old, new = (
        [] if side is None else policyfile.write(side, as_json=False).splitlines() for side in (before, after)
    )
    for line in unified_diff(old, new, lineterm="", n=2):
        if not line.startswith(("---", "+++", "@@")):
            yield line


COMMANDS: Final = (export, apply_, import_, confirm, roll_back)
