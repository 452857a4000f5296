"""`vsfwctl trace`: the way of a packet from a VM, as the manager's policy decides it: a traceflow, made, read
and taken away again."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

import click

from vsfwd.ctl.manager import asks_manager, under_way
from vsfwd.ctl.shell import EXIT_REFUSED, as_json, end, print_json, print_table, printable, wide_console
from vsfwd.nearest import meant
from vsfwd.policy.model import ICMP, ICMPV6, TCP, UDP, is_uuid
from vsfwd.rest import Rest

TRACEFLOWS: Final = "/api/v1/traceflows"
_FABRIC: Final = "/api/v1/fabric"
EXIT_STOPPED: Final = 6
"""The packet does not get there, or nobody knows who gets it."""
_ACK: Final = 0x10
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}
_ENDS: Final = {"DROP": "dropped", "REJECT": "rejected", "ALLOW": "allowed"}


@click.command(short_help="Which rules decide about a packet on its way.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option(
    "--proto",
    metavar="NAME|NUMBER",
    help="tcp, udp, icmp, or a number.  [default: tcp with --port, else an echo request]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Of DST.")
@click.option("--sport", type=click.IntRange(0, 65535), help="Where rules name source ports.")
@click.option("--from", "address", metavar="ADDRESS", help="What SRC sends from, in place of its own.")
@click.option("-6", "ipv6", is_flag=True, help="IPv6, where names have addresses of both families.")
@click.option("--midstream", is_flag=True, help="TCP from the middle of a connection nobody knows.")
@as_json
@asks_manager
def trace(
    rest: Rest,
    source: str,
    destination: str,
    proto: str | None,
    port: int | None,
    sport: int | None,
    address: str | None,
    ipv6: bool,
    midstream: bool,
    as_json: bool,
) -> None:
    """Which rules decide about a packet on its way from SRC to DST, and why. Nothing is sent.

    SRC is a VM, a vNIC or an address of one, DST one of these or any other address: names or ids. The exit
    status is 0 where the packet gets there, and 6 where it is stopped or nobody knows who gets it.
    """
    with under_way("asking"):
        vnic = _vnic(rest, source)
        sender = address or (source if _address(source) else None)
        target = _target(rest, destination, _family(sender, ipv6))
        packet = _packet(target, sender, proto, port, sport, midstream)
        result, seen = observed(rest, vnic["external_id"], packet)
    outcome = _outcome(result, seen)
    if as_json:
        print_json({"outcome": outcome, "traceflow": result, "observations": seen})
    else:
        _show(outcome, f"{source} to {destination}", result, seen)
    raise SystemExit(0 if outcome in ("delivered", "leaves") else EXIT_STOPPED)


def observed(rest: Rest, vnic: str, packet: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The traceflow of a packet that the vNIC sends, and what was seen of it. Nothing of it stays."""
    result = rest.call("POST", TRACEFLOWS, {"lport_id": vnic, "packet": packet})
    try:
        return result, rest.every(f"{TRACEFLOWS}/{result['id']}/observations")
    finally:
        rest.call("DELETE", f"{TRACEFLOWS}/{result['id']}")


def _address(said: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(said)
    except ValueError:
        return None


def _family(sender: str | None, ipv6: bool) -> int | None:
    """The one that is said; None where either will do."""
    if sender is None:
        return 6 if ipv6 else None
    if (found := _address(sender)) is None:
        raise click.UsageError(f"--from: {sender} is no address")
    return found.version


def _vnic(rest: Rest, said: str) -> Any:
    """The one vNIC that has this id, name of its VM, or address."""
    if address := _address(said):
        found = [vif for vif in rest.every(f"{_FABRIC}/vifs") if str(address) in _addresses(vif)]
    elif is_uuid(said):
        every = rest.every(f"{_FABRIC}/vifs")
        found = [vif for vif in every if said in (vif["external_id"], vif["owner_vm_id"])]
    else:
        vms = rest.every(f"{_FABRIC}/virtual-machines", display_name=said)
        found = [vif for vm in vms for vif in rest.every(f"{_FABRIC}/vifs", owner_vm_id=vm["external_id"])]
        if not vms:
            names = (vm["display_name"] for vm in rest.every(f"{_FABRIC}/virtual-machines"))
            end(f"{said}: no VM is called so{meant(said, names)}", EXIT_REFUSED)
    if len(found) != 1:
        ids = ", ".join(vif["external_id"] for vif in found)
        end(f"{said}: {f'several vNICs, say which: {ids}' if found else 'no vNIC has it'}", EXIT_REFUSED)
    return found[0]


def _addresses(vif: Any) -> list[str]:
    return [address for known in vif["ip_address_info"] for address in known["ip_addresses"]]


def _target(rest: Rest, said: str, family: int | None) -> IPv4Address | IPv6Address:
    if address := _address(said):
        return address
    known = sorted(map(ip_address, _addresses(_vnic(rest, said))), key=lambda each: each.version)
    for each in known:
        if family in (None, each.version) and not each.is_link_local:
            return each
    end(f"{said}: the manager knows no {f'IPv{family} ' if family else ''}address of it", EXIT_REFUSED)


def _packet(
    target: IPv4Address | IPv6Address,
    sender: str | None,
    proto: str | None,
    port: int | None,
    sport: int | None,
    midstream: bool,
) -> dict[str, Any]:
    """In NSX's shape (FieldsPacketData)."""
    echo = ICMP if target.version == 4 else ICMPV6
    name = (proto or ("icmp" if port is None else "tcp")).lower()
    number = (
        echo if name in ("icmp", "icmpv6") else _PROTOCOLS.get(name, int(name) if name.isdecimal() else -1)
    )
    if not 0 <= number <= 255:
        raise click.UsageError(f"--proto: {proto} is neither tcp, udp nor icmp nor a number")
    if (number in (TCP, UDP)) != (port is not None):
        raise click.UsageError("--port: tcp and udp have one, and nothing else")
    if midstream and number != TCP:
        raise click.UsageError("--midstream is about tcp")
    header = {"dst_ip": str(target)} | ({"src_ip": sender} if sender else {})
    field, protocol = ("ip_header", "protocol") if target.version == 4 else ("ipv6_header", "next_header")
    packet: dict[str, Any] = {field: header | {protocol: number}}
    if port is not None:
        ports = {"dst_port": port, "src_port": sport or 0} | ({"tcp_flags": _ACK} if midstream else {})
        packet["transport_header"] = {"tcp_header" if number == TCP else "udp_header": ports}
    return packet


def _outcome(result: Any, seen: list[Any]) -> str:
    if result["operation_state"] != "FINISHED":
        return "unclear"
    last = seen[-1]
    if last["resource_type"] == "TraceflowObservationDelivered":
        return "delivered" if last["component_type"] == "LS" else "leaves"
    return _ENDS[last["why"]["action"]]


def _show(outcome: str, what: str, result: Any, seen: list[Any]) -> None:
    console = wide_console()
    console.print(f"{outcome}  {printable(what)}", style="bold", markup=False, highlight=False)
    rows = [[printable(cell) for cell in _row(each)] for each in seen if not _says_nothing(each)]
    print_table(console, "steps", ("host", "where", "packet is", "by", "because"), rows)
    for line in result["analysis"]:
        console.print(printable(line), style="dim", markup=False, highlight=False)


def _says_nothing(seen: Any) -> bool:
    """What comes in somewhere, which the next line says, too."""
    return str(seen["resource_type"]).startswith("TraceflowObservationReceived")


def _row(seen: Any) -> tuple[str, str, str, str, str]:
    host, what = seen.get("transport_node_name", ""), str(seen["resource_type"])
    why = seen.get("why")
    if why is None:
        word = what.removeprefix("TraceflowObservation").removesuffix("Logical").lower()
        return host, seen["component_name"], word, "", ""
    rule = why.get("rule")
    by = f"{rule['rule_id']} {rule['display_name']!r} of {why['section']['display_name']!r}" if rule else ""
    because = [why["decided_by"]] if "decided_by" in why else []
    where = f"{seen.get('lport_name', '')} {why['direction'].lower()}"
    return host, where, _ENDS[why["action"]], by, "; ".join([*because, *_matches(why["matches"])])


def _matches(matches: list[Any]) -> Iterator[str]:
    """What the rule names that the packet is; ANY goes without saying."""
    for each in matches:
        if each["value"] != "ANY":
            named = each["value"].rpartition("/groups/")[2]
            reasons = each["reasons"][0] if each["reasons"] else []
            told = " and ".join(reason["what"] for reason in reasons)
            yield f"{each['field'].removesuffix('_groups')} {named}" + (f" ({told})" if told else "")
