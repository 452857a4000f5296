"""`vsfwctl export`, `apply`, `confirm`, `roll-back` and `import`: the policy of the manager as a file."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from vsfwd import policyfile
from vsfwd.rest import Denied, Login, Rest, Unreachable, Unusable
from vsfwd.shell import EXIT_REFUSED, EXIT_UNREACHABLE, end, printable

POLICY: Final = "/api/v1/vsfw/policy"
PUBLISH: Final = "/api/v1/vsfw/publish"
EXIT_USAGE: Final = 2
EXIT_PARTLY: Final = 4
"""Imported, and something was left out."""
_OPTIONS: Final = (
    click.option(
        "--manager",
        metavar="URL",
        envvar="VSFWCTL_MANAGER",
        help="https://HOST:PORT  [env: VSFWCTL_MANAGER]",
    ),
    click.option(
        "--ca", metavar="FILE", envvar="VSFWCTL_CA", help="Certificates to verify it by.  [env: VSFWCTL_CA]"
    ),
    click.option(
        "--user",
        metavar="NAME",
        envvar="VSFWCTL_USER",
        help="Who asks. The password is in VSFWCTL_PASSWORD, or asked for; an API token in VSFWCTL_TOKEN "
        "takes the place of both.  [env: VSFWCTL_USER]",
    ),
    click.option(
        "--config",
        metavar="FILE",
        envvar="VSFWCTL_CONFIG",
        type=click.Path(path_type=Path),
        help="TOML with manager, ca, user, password, token.  [env: VSFWCTL_CONFIG; default: "
        "~/.config/vsfwctl/manager.toml]",
    ),
)
_SIGNS: Final = {"+": ("green", "added"), "~": ("yellow", "changed"), "-": ("red", "removed")}


def asks_manager(command: Callable[..., None]) -> Callable[..., None]:
    """Calls `command` with `rest`; ends the program with a message and the exit status that says why."""

    @functools.wraps(command)
    def asking(
        manager: str | None, ca: str | None, user: str | None, config: Path | None, **arguments: Any
    ) -> None:
        try:
            rest = Rest(_with_password(Login.of(manager, ca, user, config)))
        except Unusable as error:
            end(str(error), EXIT_USAGE)
        try:
            command(rest=rest, **arguments)
        except Unreachable as error:
            end(str(error), EXIT_UNREACHABLE)
        except Denied as error:
            end(str(error), EXIT_REFUSED)
        finally:
            rest.close()

    for option in reversed(_OPTIONS):
        asking = option(asking)
    return asking


def _with_password(login: Login) -> Login:
    if login.password or login.token:
        return login
    if not sys.stdin.isatty():
        raise Unusable(f"no password for {login.user}: set VSFWCTL_PASSWORD or VSFWCTL_TOKEN")
    password = click.prompt(f"password of {login.user}", hide_input=True, err=True)
    return Login(login.manager, login.ca, login.user, password)


@contextmanager
def under_way(what: str) -> Iterator[None]:
    """Says so at a terminal, until it is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


@click.command()
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
        end(f"{output}: {error.strerror}", EXIT_REFUSED)


@click.command(name="apply")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--diff", is_flag=True, help="Say of each object what changes.")
@click.option(
    "--confirm",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help="Undone after that time, unless `vsfwctl confirm` comes first.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks_manager
def apply_(rest: Rest, file: str, dry_run: bool, diff: bool, confirm: int | None, yes: bool) -> None:
    """Make the policy what FILE says (- is standard input): one publish, all of it or nothing.

    What is in the policy and not in FILE is removed, but for what is predefined. What would change is shown
    and asked about first; if somebody changes the policy meanwhile, nothing happens.
    """
    must_not_ask(yes or dry_run, file)
    document = read_file(file)
    with under_way("comparing"):
        found = rest.call("POST", f"{POLICY}/diff", document)
    show(found["results"], diff)
    settle(found, dry_run, yes)
    with under_way("publishing"):
        rest.call("PUT", POLICY, document, digest=found["digest"], confirm_within=confirm)
    click.echo("published")
    if confirm is not None:
        click.echo(f"undone in {confirm} s, unless you say: vsfwctl confirm")


@click.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Say what would change and be left out, and change nothing.")
@click.option("--diff", is_flag=True, help="Say of each object what changes.")
@click.option("--partly", is_flag=True, help="Also without rules that keep something out.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@asks_manager
def import_(rest: Rest, file: str, dry_run: bool, diff: bool, partly: bool, yes: bool) -> None:
    """Take what an NSX manager exported, in FILE as it answered GET /policy/api/v1/infra?filter=... (- is
    standard input).

    What has a counterpart here is taken, all at once, and what is here besides stays. Everything that has
    none is told in a line; the exit status is 4 then, also of a dry run. Where a rule that drops, rejects,
    jumps or excludes has none, nothing is taken unless you say --partly: the rules below it would decide.
    """
    must_not_ask(yes or dry_run, file)
    tree = read_file(file)
    with under_way("comparing"):
        found = rest.call("POST", f"{POLICY}/import/diff", tree, partly=partly)
    show(found["results"], diff)
    show_left_out(found)
    status = EXIT_PARTLY if found["left_out"] else 0
    settle(found, dry_run, yes, status)
    with under_way("publishing"):
        rest.call("POST", f"{POLICY}/import", tree, digest=found["digest"], partly=partly)
    click.echo("published")
    sys.exit(status)


@click.command()
@asks_manager
def confirm(rest: Rest) -> None:
    """What was published with --confirm stays."""
    rest.call("POST", PUBLISH, action="confirm")
    click.echo("confirmed")


@click.command()
@asks_manager
def roll_back(rest: Rest) -> None:
    """What was published with --confirm is undone now."""
    rest.call("POST", PUBLISH, action="roll_back")
    click.echo("undone")


def must_not_ask(settled: bool, file: str) -> None:
    if not settled and (file == "-" or not sys.stdin.isatty()):
        raise click.UsageError("there is nobody to ask: say --yes, or --dry-run")


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


def settle(found: Any, dry_run: bool, yes: bool, status: int = 0) -> None:
    """Ends the program where nothing is to be published, with `status` if that is no refusal."""
    if "refused" in found:
        end(f"{found['refused']}; nothing is changed", EXIT_REFUSED)
    if dry_run or not found["results"]:
        sys.exit(status)
    if not yes:
        click.confirm("publish this?", abort=True)


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
    if found["metadata"]:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(found["metadata"].items()))
        click.echo(printable(f"of no account here: {counts}"))
    for each in found["left_out"]:
        line = f"left out  {each['path']}  {each['what']}  {each['why']}"
        click.secho(printable(line), fg="yellow")
    if found["left_out"]:
        click.echo(f"{len(found['left_out'])} left out")


def _lines(before: Any, after: Any) -> Iterator[str]:
    old, new = (
        [] if side is None else policyfile.write(side, as_json=False).splitlines() for side in (before, after)
    )
    for line in unified_diff(old, new, lineterm="", n=2):
        if not line.startswith(("---", "+++", "@@")):
            yield line


COMMANDS: Final = (export, apply_, import_, confirm, roll_back)
