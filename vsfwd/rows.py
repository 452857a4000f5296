"""Rows of what local clients are told, out of policy, image and datapath: values in, words out, no I/O."""

import ipaddress
from collections.abc import Mapping
from typing import Final

import vsfwd.ipc.interface as api
from vsfwd.datapath import EarlyDrop, Flow, RuleCounters
from vsfwd.image import Image, PrefixKey
from vsfwd.policy import evaluate
from vsfwd.policy.ahead import Wire
from vsfwd.policy.model import (
    ECHO_REQUEST,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Frames,
    Group,
    Match,
    Rule,
    Service,
    SessionTimers,
    Vnic,
    check_mac,
)
from vsfwd.protocol.messages import Claim

LAST_VLAN: Final = 4095
PROTOCOLS: Final = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}


def image_size(image: Image | None) -> api.ImageSize:
    if image is None:
        return api.ImageSize(0, 0, 0, 0)
    return api.ImageSize(len(image.rules), len(image.rows), len(image.hosts), len(image.prefixes))


def applied(image: Image | None, slot: int | None) -> list[int]:
    """Ids of the rules applied to a vNIC, in order, as the kernel's tables have them."""
    rows = image.vnics.get(slot) if image is not None and slot is not None else None
    if image is None or rows is None:
        return []
    bits = 0
    for row in (rows.in_ipv4, rows.in_ipv6, rows.out_ipv4, rows.out_ipv6, rows.frames_in, rows.frames_out):
        bits |= image.rows[row]
    lines = zip(image.rules, reversed(f"{bits:b}"), strict=False)
    return list(dict.fromkeys(entry.id for entry, bit in lines if bit == "1"))


def early_row(drop: EarlyDrop) -> api.EarlyDrop:
    return api.EarlyDrop(**{**vars(drop), "blocked": [_prefix(prefix) for prefix in drop.blocked]})


def _prefix(prefix: PrefixKey) -> str:
    if prefix.family == 4:
        return f"{ipaddress.IPv4Address(prefix.address & 0xFFFFFFFF)}/{prefix.length}"
    return f"{ipaddress.IPv6Address(prefix.address)}/{prefix.length}"


def rule_row(
    position: int, id: int, rule: Rule, groups: Mapping[str, Group], hits: RuleCounters | None
) -> api.RuleRow:
    return api.RuleRow(
        position=position,
        id=id,
        name=rule.name,
        section=rule.section,
        action=f"{rule.action} (monitored)" if rule.monitored else str(rule.action),
        direction=str(rule.direction),
        family=str(rule.family),
        sources=match_text(rule.sources, groups),
        destinations=match_text(rule.destinations, groups),
        services=frames_text(rule.frames) if rule.frames else services_text(rule.services),
        logged=rule.logged,
        tracking=str(rule.tracking),
        existing_flows=str(rule.existing_flows),
        packets=hits.packets if hits else 0,
        bytes=hits.bytes if hits else 0,
        sessions=hits.sessions if hits else 0,
    )


def rule_stats(id: int, rule: Rule, hits: RuleCounters) -> api.RuleStats:
    return api.RuleStats(id, rule.name, hits.packets, hits.bytes, hits.sessions, hits.suppressed)


def flow_row(vnic: str, vm_name: str, flow: Flow) -> api.FlowRow:
    return api.FlowRow(
        vnic=vnic,
        vm_name=vm_name,
        protocol=PROTOCOLS.get(flow.protocol, str(flow.protocol)),
        direction=flow.initiator,
        local=str(flow.local),
        local_port=flow.local_port,
        remote=str(flow.remote),
        remote_port=flow.remote_port,
        state=flow.state,
        rule=flow.rule_id,
        packets=flow.packets_in + flow.packets_out,
        bytes=flow.bytes_in + flow.bytes_out,
        expires_s=int(flow.expires_s),
    )


def address_rows(id: str, vnic: Vnic | None, learned: Mapping[str, Claim], now: int) -> list[api.AddressRow]:
    trusted = vnic.addresses if vnic else ()
    rows = []
    for address in dict.fromkeys((*trusted, *learned)):
        claim = learned.get(address)
        rows.append(
            api.AddressRow(
                vnic=id,
                vm_name=vnic.vm_name if vnic else "",
                address=address,
                source=str(claim.source) if claim else "policy",
                state="trusted" if address in trusted else "waiting",
                expires_s=claim.expires - now if claim and claim.expires else None,
            )
        )
    return rows


def timers_row(id: str, vnic: Vnic | None) -> api.TimersRow:
    timers = (vnic.timers if vnic else None) or SessionTimers()
    return api.TimersRow(id, vnic.vm_name if vnic else "", timers.profile, timers.seconds())


def match_text(match: Match | None, groups: Mapping[str, Group]) -> str:
    """Groups by name, addresses as they are: "web, 10.0.0.0/8"; negated "not web"; nothing at all is
    "nobody"."""
    if match is None:
        return "any"
    names = [groups[id].name if id in groups else id for id in match.groups]
    text = ", ".join([*names, *match.addresses]) or "nobody"
    return f"not {text}" if match.excluded else text


def services_text(services: tuple[Service, ...] | None) -> str:
    """As in "tcp/80,8000-8080, icmp/8, udp"."""
    return "any" if services is None else ", ".join(map(_service_text, services)) or "nothing"


def frames_text(frames: Frames) -> str:
    """As in "ethertype 0x0806,0x88cc vlan 10,20-29"."""
    types = "any"
    if frames.ethertypes is not None:
        types = ",".join(f"{ethertype:#06x}" for ethertype in frames.ethertypes) or "none"
    text = f"ethertype {types}"
    vlans = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in frames.vlans)
    return f"{text} vlan {vlans}" if vlans else text


def _service_text(service: Service) -> str:
    protocol = PROTOCOLS.get(service.protocol, f"protocol {service.protocol}")
    source = f" from {_ports_text(service.source_ports)}" if service.source_ports else ""
    alg = f" ({service.alg} alg)" if service.alg else ""
    if service.ports:
        return f"{protocol}/{_ports_text(service.ports)}{source}{alg}"
    if service.icmp_type is not None:
        code = "" if service.icmp_code is None else f".{service.icmp_code}"
        return f"{protocol}/{service.icmp_type}{code}"
    return f"{protocol}{source}"


def _ports_text(ports: tuple[tuple[int, int], ...]) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ports)


def wire_of(spec: api.PacketSpec) -> Wire:
    """Raises ValueError with the field in it."""
    for field in ("source_mac", "destination_mac"):
        if (mac := getattr(spec, field)) is not None:
            check_mac(field, mac)
    if spec.vlan is not None and not 0 <= spec.vlan <= LAST_VLAN:
        raise ValueError(f"vlan: {spec.vlan} is not in 0-{LAST_VLAN}")
    return Wire(spec.source_mac, spec.destination_mac, spec.vlan)


def packet_of(spec: api.PacketSpec) -> evaluate.Packet:
    """Raises ValueError with the field in it."""
    numbers = {name: number for number, name in PROTOCOLS.items()}
    protocol = numbers.get(spec.protocol.lower())
    if protocol is None:
        if not spec.protocol.isdecimal() or int(spec.protocol) > 255:
            raise ValueError(f"protocol: {spec.protocol!r} is neither {', '.join(numbers)} nor a number")
        protocol = int(spec.protocol)
    if protocol in (TCP, UDP) and spec.port is None:
        raise ValueError("port: tcp and udp need a destination port")
    return evaluate.Packet(
        source=ipaddress.ip_address(spec.source),
        destination=ipaddress.ip_address(spec.destination),
        protocol=protocol,
        port=spec.port or 0,
        icmp_type=ECHO_REQUEST.get(protocol, 0) if spec.icmp_type is None else spec.icmp_type,
        icmp_code=spec.icmp_code or 0,
        midstream=spec.midstream,
        source_port=spec.source_port or 0,
    )
