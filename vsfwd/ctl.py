"""vsfwctl: what this host enforces, at the shell. A client of the local socket like any other.

Tables are for people; `--json` is for scripts and has the field names of `ipc.interface`. Exit status: 0
done, 1 the daemon says no (nothing of that name, contradiction), 2 wrong usage, 3 no daemon answers."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from asyncvarlink import VarlinkErrorReply
from rich.console import Console
from rich.table import Table

import vsfwd.ipc.interface as api
from vsfwd.ipc import SOCKET
from vsfwd.ipc.client import Unreachable, ask

T = TypeVar("T")
EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3
_LAST_PASSED_OVER: Final = 10
_PIPE_WIDTH: Final = 500
_NEVER_FOLDED: Final = (
    "#",
    "id",
    "action",
    "dir",
    "packets",
    "bytes",
    "sessions",
    "slot",
    "state",
    "protocol",
)

as_json = click.option("--json", "as_json", is_flag=True, help="JSON with stable keys instead of a table.")
one_vnic = click.option(
    "--vnic", metavar="VNIC|VM", help="Only this vNIC, or the vNICs of this VM (id or name)."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=SOCKET,
    show_default=True,
    envvar="VSFWD_SOCKET",
    help="Socket of the daemon to ask.",
)
@click.version_option(package_name="vsfwd", prog_name="vsfwctl")
@click.pass_context
def main(context: click.Context, socket: Path) -> None:
    """What the firewall of this host enforces."""
    context.obj = socket


@main.command()
@as_json
@click.pass_obj
def status(socket: Path, as_json: bool) -> None:
    """The daemon, its policy, its link to the manager, its vNICs."""
    host: api.HostStatus = _ask(socket, lambda proxy: proxy.Status())["status"]
    if as_json:
        _print_json(host)
        return
    console = _console()
    facts = {
        "vsfwd": f"{host.version} on host {host.host_id}",
        "policy": f"epoch {host.epoch}, generation {host.generation}, digest {host.digest[:12]}",
        "realised": f"{host.realised_at or 'before this start'}"
        + (f", {host.age_s} s ago, in {host.duration_us / 1000:.1f} ms" if host.realised_at else ""),
        "broker": host.broker or f"not connected ({host.broker_error or 'not tried yet'})",
        "messages": f"{host.messages_applied} applied, {host.messages_duplicate} duplicate, "
        f"{host.messages_refused} refused",
        "tables": f"{host.image.rules} rules, {host.image.rows} rows, {host.image.hosts} hosts, "
        f"{host.image.prefixes} prefixes",
        **host.datapath,
    }
    for name, value in facts.items():
        console.print(f"[bold]{name:>12}[/]  {value}", highlight=False, soft_wrap=True)
    _table(
        console,
        ("slot", "vNIC", "VM", "device", "state", "addresses"),
        [(v.slot, v.vnic, v.vm_name, v.device, v.state, "\n".join(v.addresses)) for v in host.vnics],
    )
    if host.alarms:
        alarms = [
            (a.severity, a.event_type, a.vm_name or a.entity, a.description, a.since) for a in host.alarms
        ]
        _table(console, ("alarm", "event", "VM", "what", "since"), alarms)
    if host.refusals:
        _table(console, ("not in force", "id", "why"), [(r.kind, r.id, r.reason) for r in host.refusals])


@main.command()
@one_vnic
@as_json
@click.pass_obj
def rules(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Rules in the order they are evaluated, for each vNIC."""
    parts: list[api.VnicRules] = _ask(socket, lambda proxy: _all(proxy.Rules(vnic=vnic)))
    merged: dict[str, dict[str, Any]] = {}
    for part in parts:
        known = merged.setdefault(part.vnic, {**asdict(part), "rules": []})
        known["rules"] += [asdict(rule) for rule in part.rules]
    if as_json:
        _print_json(list(merged.values()))
        return
    console = _console()
    columns = (
        "position",
        "id",
        "name",
        "section",
        "action",
        "direction",
        "sources",
        "destinations",
        "services",
        "tracking",
        "existing_flows",
    )
    hits = ("packets", "bytes", "sessions")
    for entry in merged.values():
        console.print(
            f"[bold]{entry['vm_name'] or 'no policy yet'}[/]  vNIC {entry['vnic']} on {entry['device']}"
            + ("  [bold]excluded: none of these is enforced[/]" if entry["excluded"] else "")
        )
        rows = [[row[name] for name in (*columns, *hits)] for row in entry["rules"]]
        _table(console, ("#", *columns[1:5], "dir", *columns[6:-1], "on change", *hits), rows)


@main.command()
@as_json
@click.pass_obj
def addrsets(socket: Path, as_json: bool) -> None:
    """Groups with the addresses they stand for."""
    sets: list[api.Addrset] = [
        one for part in _ask(socket, lambda proxy: _all(proxy.Addrsets())) for one in part
    ]
    if as_json:
        _print_json(sets)
        return
    rows = [
        (
            one.name,
            one.id,
            "\n".join(one.addresses),
            "\n".join(f"{vm}: {', '.join(of)}" for vm, of in one.members.items()),
        )
        for one in sets
    ]
    _table(_console(), ("group", "id", "lists", "members"), rows)


@main.command()
@one_vnic
@as_json
@click.pass_obj
def flows(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Connections the kernel tracks."""
    found: list[api.FlowRow] = [
        flow for part in _ask(socket, lambda proxy: _all(proxy.Flows(vnic=vnic))) for flow in part
    ]
    if as_json:
        _print_json(found)
        return
    _table(
        _console(),
        ("VM", "dir", "protocol", "local", "remote", "state", "rule", "packets", "bytes", "ends in s"),
        [
            (
                flow.vm_name or flow.vnic,
                flow.direction,
                flow.protocol,
                _endpoint(flow.local, flow.local_port),
                _endpoint(flow.remote, flow.remote_port),
                flow.state,
                flow.rule,
                flow.packets,
                flow.bytes,
                flow.expires_s,
            )
            for flow in found
        ],
    )


@main.command()
@as_json
@click.pass_obj
def stats(socket: Path, as_json: bool) -> None:
    """Hits of every rule, and what was dropped on every vNIC and why."""
    host: api.HostStats = _ask(socket, lambda proxy: proxy.Stats())["stats"]
    if as_json:
        _print_json(host)
        return
    console = _console()
    hit = [(r.id, r.name, r.packets, r.bytes, r.sessions, r.suppressed) for r in host.rules]
    _table(console, ("rule", "name", "packets", "bytes", "sessions", "not logged"), hit)
    drops = [(d.vm_name or d.vnic, reason, n) for d in host.drops for reason, n in d.reasons.items()]
    _table(console, ("VM", "dropped because", "packets"), drops)
    if host.unfiltered:
        rows = [(one.vm_name or one.vnic, one.packets) for one in host.unfiltered]
        _table(console, ("VM", "passed because excluded"), rows)


@main.command()
@click.option("--vnic", metavar="VNIC|VM", required=True, help="The vNIC it passes.")
@click.option("--in", "direction", flag_value="in", help="Towards the workload.")
@click.option("--out", "direction", flag_value="out", help="From the workload.")
@click.option("--proto", required=True, metavar="NAME|NUMBER", help="tcp, udp, icmp, icmpv6, or a number.")
@click.option("--src", required=True, metavar="ADDRESS")
@click.option("--dst", required=True, metavar="ADDRESS")
@click.option("--dport", type=click.IntRange(0, 65535))
@click.option("--icmp-type", type=click.IntRange(0, 255))
@click.option("--icmp-code", type=click.IntRange(0, 255))
@click.option("--midstream", is_flag=True, help="TCP from the middle of a connection nobody knows.")
@as_json
@click.pass_obj
def explain(
    socket: Path,
    vnic: str,
    direction: str | None,
    proto: str,
    src: str,
    dst: str,
    dport: int | None,
    icmp_type: int | None,
    icmp_code: int | None,
    midstream: bool,
    as_json: bool,
) -> None:
    """Which rule decides on the first packet of a session. Nothing is sent."""
    if direction is None:
        raise click.UsageError("say --in or --out")
    packet = api.PacketSpec(direction, proto, src, dst, dport, icmp_type, icmp_code, midstream)
    answer: api.Explanation = _ask(socket, lambda proxy: proxy.Explain(vnic=vnic, packet=packet))[
        "explanation"
    ]
    if as_json:
        _print_json(answer)
        return
    console = _console()
    by = f"rule {answer.rule} {answer.name!r} of section {answer.section!r}" if answer.rule else answer.name
    console.print(
        f"[bold]{answer.action}[/]  {answer.vm_name or answer.vnic} {direction}: {by}", highlight=False
    )
    passed = answer.passed_over
    if len(passed) > _LAST_PASSED_OVER:
        console.print(f"… {len(passed) - _LAST_PASSED_OVER} rules above these do not match either")
    last = passed[-_LAST_PASSED_OVER:]
    _table(console, ("passed over", "name", "does not match by"), [(p.rule, p.name, p.field) for p in last])


def _ask(socket: Path, question: Callable[[Any], Awaitable[T]]) -> Any:
    """The answer, or the end of the program with a message that says what to do next."""
    try:
        return ask(socket, question)
    except Unreachable as error:
        _end(str(error), EXIT_UNREACHABLE)
    except (api.NotFound, api.Refused) as error:
        _end(str(error.parameters["reason"]), EXIT_REFUSED)
    except VarlinkErrorReply as error:
        _end(f"{error.name}: {error}", EXIT_REFUSED)


def _end(message: str, code: int) -> None:
    click.echo(f"vsfwctl: {message}", err=True)
    sys.exit(code)


async def _all(stream: AsyncIterator[dict[str, T]]) -> list[T]:
    return [reply["part"] async for reply in stream]


def _endpoint(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _print_json(value: object) -> None:
    plain = [_plain(one) for one in value] if isinstance(value, list) else _plain(value)
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _console() -> Console:
    """As wide as the terminal; into a pipe nothing is folded."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def _table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _NEVER_FOLDED)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table if rows else f"[dim]no {columns[0]}[/]", highlight=False)


if __name__ == "__main__":
    main()
