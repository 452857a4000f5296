"""vsfwctl: what this host enforces, at the shell, as a client of the local socket like any other; and, in
`policy`, the manager's policy as a file, in `lint` what is wrong with it, in `trace` what it does to a
packet, in `fleet` the manager's hosts.

Tables are for people; `--json` is for scripts and has the field names of `ipc.interface`. `STATUSES` has the
exit statuses, `manual` makes a manual page of all this."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

import click

import vsfwd.ipc.interface as api
from vsfwd.ctl.bus import bus
from vsfwd.ctl.early import early, early_table
from vsfwd.ctl.enrol import enroll
from vsfwd.ctl.fleet import COMMANDS as FLEET
from vsfwd.ctl.lint import lint
from vsfwd.ctl.migrate import migrate
from vsfwd.ctl.policy import COMMANDS
from vsfwd.ctl.shell import as_json, ask, print_json, print_table, wide_console
from vsfwd.ctl.trace import trace
from vsfwd.ctl.vnic import vnic as vnic_group
from vsfwd.ipc import SOCKET
from vsfwd.policy.model import is_mac

T = TypeVar("T")
_LAST_PASSED_OVER: Final = 10

WHOM: Final = """\b
addresses, addrsets, bus, early, explain, flows, metrics, migrate, reload,
rules, stats, status, timers and vnic ask the daemon of this host; alarms,
apply, components, confirm, enroll, export, hosts, import, lint, migrations,
roll-back, tokens and trace ask the manager, from anywhere."""
STATUSES: Final = {
    0: "done",
    1: "refused, or nothing of that name",
    2: "wrong usage, settings, or a file that cannot be read",
    3: "no daemon or manager answers",
    4: "an import left something out",
    5: "of apply or import with --dry-run and --exit-code: something would change",
    6: "of trace: the packet is stopped, or nobody knows who gets it",
    7: "of lint with --exit-code: there is a finding",
}
"""How a command ends."""
_EPILOG: Final = f"""{WHOM}

Exit status: {"; ".join(f"{code} {text}" for code, text in STATUSES.items())}.

\b
Completion: eval "$(_VSFWCTL_COMPLETE=bash_source vsfwctl)"
"""

one_vnic = click.option(
    "--vnic", metavar="VNIC|VM", help="Only this vNIC, or the vNICs of this VM (id or name)."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=SOCKET,
    show_default=True,
    envvar="VSFWD_SOCKET",
    show_envvar=True,
    help="Socket of the daemon to ask.",
)
@click.version_option(package_name="vsfwd", prog_name="vsfwctl")
@click.pass_context
def main(context: click.Context, socket: Path) -> None:
    """What the firewall of this host enforces, and the manager's policy and hosts."""
    context.obj = socket


@main.command()
@as_json
@click.pass_obj
def status(socket: Path, as_json: bool) -> None:
    """The daemon, its policy, its link to the manager, its vNICs."""
    host: api.HostStatus = ask(socket, lambda proxy: proxy.Status())["status"]
    if as_json:
        print_json(host)
        return
    console = wide_console()
    facts = {
        "vsfwd": f"{host.version} on host {host.host_id}",
        "policy": f"epoch {host.epoch}, generation {host.generation}, digest {host.digest[:12]}"
        + (f"; not on disk: {host.not_saved}" if host.not_saved else ""),
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
    print_table(
        console,
        "vNICs",
        ("slot", "vNIC", "VM", "device", "state", "generation", "addresses"),
        [
            (v.slot, v.vnic, v.vm_name, v.device, v.state, v.generation, "\n".join(v.addresses))
            for v in host.vnics
        ],
    )
    if unattached := [(v.device, v.vnic, v.why) for v in host.vnics if v.why]:
        print_table(console, "vNICs", ("not attached", "vNIC", "why"), unattached)
    if host.alarms:
        alarms = [
            (a.severity, a.event_type, a.vm_name or a.entity, a.description, a.since) for a in host.alarms
        ]
        print_table(console, "alarms", ("alarm", "event", "VM", "what", "since"), alarms)
    if host.early:
        early_table(console, host.early)
    if host.refusals:
        refused = [(r.kind, r.id, r.reason) for r in host.refusals]
        print_table(console, "refusals", ("not in force", "id", "why"), refused)


@main.command()
@as_json
@click.pass_obj
def reload(socket: Path, as_json: bool) -> None:
    """Have the daemon read its configuration again. What needs a restart is named; one with a mistake is
    refused, and all stays as it was."""
    done: api.Reloaded = ask(socket, lambda proxy: proxy.Reload())["reloaded"]
    if as_json:
        print_json(done)
        return
    click.echo(f"taken: {', '.join(done.taken) or 'nothing has changed that is taken by reload'}")
    if done.needs_restart:
        click.echo(f"needs a restart: {', '.join(done.needs_restart)}")


@main.command()
@one_vnic
@as_json
@click.pass_obj
def rules(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Rules in the order they are evaluated, for each vNIC. Packets, bytes and sessions are counted for the
    host: what a rule did on all its vNICs."""
    parts: list[api.VnicRules] = ask(socket, lambda proxy: _all(proxy.Rules(vnic=vnic)))
    merged: dict[str, dict[str, Any]] = {}
    for part in parts:
        known = merged.setdefault(part.vnic, {**asdict(part), "rules": []})
        known["rules"] += [asdict(rule) for rule in part.rules]
    if as_json:
        print_json(list(merged.values()))
        return
    console = wide_console()
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
        counted = [f"{name}, host" for name in hits]
        titles = ("#", *columns[1:5], "dir", *columns[6:-1], "on change", *counted)
        print_table(console, "rules", titles, rows)


@main.command()
@as_json
@click.pass_obj
def addrsets(socket: Path, as_json: bool) -> None:
    """Groups with the addresses they stand for."""
    sets: list[api.Addrset] = [
        one for part in ask(socket, lambda proxy: _all(proxy.Addrsets())) for one in part
    ]
    if as_json:
        print_json(sets)
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
    print_table(wide_console(), "groups", ("group", "id", "lists", "members"), rows)


@main.command()
@one_vnic
@as_json
@click.pass_obj
def flows(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Connections the kernel tracks."""
    found: list[api.FlowRow] = [
        flow for part in ask(socket, lambda proxy: _all(proxy.Flows(vnic=vnic))) for flow in part
    ]
    if as_json:
        print_json(found)
        return
    print_table(
        wide_console(),
        "flows",
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
@one_vnic
@as_json
@click.pass_obj
def addresses(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Addresses the vNICs have, and those they were seen with."""
    found: list[api.AddressRow] = [
        row for part in ask(socket, lambda proxy: _all(proxy.Addresses(vnic=vnic))) for row in part
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        (row.vm_name or row.vnic, row.address, row.source, row.state, row.expires_s or "") for row in found
    ]
    print_table(wide_console(), "addresses", ("VM", "address", "source", "state", "ends in s"), rows)


@main.command()
@one_vnic
@as_json
@click.pass_obj
def timers(socket: Path, vnic: str | None, as_json: bool) -> None:
    """Seconds that flows live after a packet, for each vNIC."""
    found: list[api.TimersRow] = [
        row for part in ask(socket, lambda proxy: _all(proxy.Timers(vnic=vnic))) for row in part
    ]
    if as_json:
        print_json(found)
        return
    console = wide_console()
    for row in found:
        console.print(f"[bold]{row.vm_name or 'no policy yet'}[/]  vNIC {row.vnic}  profile {row.profile}")
        print_table(console, "timers", ("timer", "seconds"), list(row.timers.items()))


@main.command()
@as_json
@click.pass_obj
def stats(socket: Path, as_json: bool) -> None:
    """Hits of every rule, and what was dropped on every vNIC and why."""
    host: api.HostStats = ask(socket, lambda proxy: proxy.Stats())["stats"]
    if as_json:
        print_json(host)
        return
    console = wide_console()
    hit = [(r.id, r.name, r.packets, r.bytes, r.sessions, r.suppressed) for r in host.rules]
    print_table(console, "rules", ("rule", "name", "packets", "bytes", "sessions", "not logged"), hit)
    drops = [(d.vm_name or d.vnic, reason, n) for d in host.drops for reason, n in d.reasons.items()]
    print_table(console, "drops", ("VM", "dropped because", "packets"), drops)
    if host.unfiltered:
        rows = [(one.vm_name or one.vnic, one.packets) for one in host.unfiltered]
        print_table(console, "packets", ("VM", "passed because excluded"), rows)


@main.command()
@click.pass_obj
def metrics(socket: Path) -> None:
    """Status and counters of this host, for Prometheus.

    In its text format, which node_exporter's textfile collector takes."""
    from vsfwd.ctl.metrics import exposed  # no other command waits for its library

    async def both(proxy: Any) -> tuple[api.HostStatus, api.HostStats]:
        return (await proxy.Status())["status"], (await proxy.Stats())["stats"]

    click.echo(exposed(*ask(socket, both)), nl=False)


def _protocol(_: click.Context, __: click.Parameter, said: str) -> str:
    if said.lower() in ("tcp", "udp", "icmp", "icmpv6") or (said.isdecimal() and int(said) <= 255):
        return said
    raise click.BadParameter(f"{said!r} is neither tcp, udp, icmp, icmpv6 nor a number")


def _mac(_: click.Context, __: click.Parameter, said: str | None) -> str | None:
    if said is not None and not is_mac(said):
        raise click.BadParameter(f"{said!r} is not a MAC address as 02:00:00:00:00:01")
    return said


def _address(_: click.Context, __: click.Parameter, said: str) -> str:
    try:
        return str(ip_address(said))
    except ValueError:
        raise click.BadParameter(f"{said!r} is no address") from None


@main.command(short_help="What decides on the first packet of a session.")
@click.option("--vnic", metavar="VNIC|VM", required=True, help="The vNIC it passes.")
@click.option("--in", "direction", flag_value="in", help="Towards the workload.")
@click.option("--out", "direction", flag_value="out", help="From the workload.")
@click.option(
    "--proto",
    required=True,
    metavar="NAME|NUMBER",
    callback=_protocol,
    help="tcp, udp, icmp, icmpv6, or a number.",
)
@click.option("--src", required=True, metavar="ADDRESS", callback=_address)
@click.option("--dst", required=True, metavar="ADDRESS", callback=_address)
@click.option("--dport", type=click.IntRange(0, 65535))
@click.option("--sport", type=click.IntRange(0, 65535), help="Where rules name source ports.")
@click.option("--icmp-type", type=click.IntRange(0, 255), help="[default: an echo request]")
@click.option("--icmp-code", type=click.IntRange(0, 255))
@click.option(
    "--src-mac", metavar="MAC", callback=_mac, help="Where rules are for frames, or SpoofGuard is on."
)
@click.option("--dst-mac", metavar="MAC", callback=_mac)
@click.option("--vlan", type=click.IntRange(0, 4095), help="Of its tag.")
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
    sport: int | None,
    icmp_type: int | None,
    icmp_code: int | None,
    src_mac: str | None,
    dst_mac: str | None,
    vlan: int | None,
    midstream: bool,
    as_json: bool,
) -> None:
    """What decides on the first packet of a session: an Ethernet rule, SpoofGuard, or a rule for packets.
    Nothing is sent.

    MAC addresses that are not given are those the policy knows."""
    if direction is None:
        raise click.UsageError("say --in or --out")
    if dport is None and proto.lower() in ("tcp", "udp", "6", "17"):
        raise click.UsageError("say --dport: tcp and udp have one")
    packet = api.PacketSpec(
        direction, proto, src, dst, dport, icmp_type, icmp_code, midstream, sport, src_mac, dst_mac, vlan
    )
    answer: api.Explanation = ask(socket, lambda proxy: proxy.Explain(vnic=vnic, packet=packet))[
        "explanation"
    ]
    if as_json:
        print_json(answer)
        return
    console = wide_console()
    by = f"rule {answer.rule} {answer.name!r} of section {answer.section!r}" if answer.rule else answer.name
    console.print(
        f"[bold]{answer.action}[/]  {answer.vm_name or answer.vnic} {direction}: {by}", highlight=False
    )
    if answer.frame_rule is not None and answer.frame_rule != answer.rule:
        console.print(f"its frame: allowed by rule {answer.frame_rule}", highlight=False)
    passed = [(str(over.rule), over.name, over.field) for over in answer.passed_over]
    if len(passed) > _LAST_PASSED_OVER:
        more = len(passed) - _LAST_PASSED_OVER
        passed = [("…", f"{more} more", ""), *passed[-_LAST_PASSED_OVER:]]
    if passed:
        print_table(console, "rules", ("passed over", "name", "because of"), passed)


async def _all(stream: AsyncIterator[dict[str, T]]) -> list[T]:
    return [reply["part"] async for reply in stream]


def _endpoint(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


for command in (bus, early, enroll, *COMMANDS, *FLEET, lint, migrate, trace, vnic_group):
    main.add_command(command)
