"""What decides on a packet before any rule for packets is asked: whose frame it is in, rules for that frame,
SpoofGuard, and who may be a DHCP server or a router.

A packet is given by its addresses; the frame it comes in follows from the policy, as far as nobody says
otherwise. Like `evaluate` for reading and not for speed: `vsfwctl explain` asks."""

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Address, Frame, Packet, PassedOver, Verdict, evaluate_frame, owner_of
from vsfwd.policy.model import ICMPV6, UDP, Action, Direction, SpoofGuard, Vnic

NOBODYS_MAC: Final = ""
_ETHERTYPES: Final = {4: 0x0800, 6: 0x86DD}
_DHCP: Final = {4: (68, 67), 6: (546, 547)}
"""Ports of client and server."""
_ND_ROUTER_ADVERTISEMENT: Final = 134
_FROM_NOBODY: Final = (131, 132, 133, 135, 143)
"""ICMPv6 that has no source address yet (RFC 4862, RFC 3590): multicast reports, solicitations of routers,
and of neighbours, which is duplicate address detection."""


@dataclass(frozen=True)
class Wire:
    """What is said about the frame. A MAC address that is not: the vNIC's own; at the other end that of the
    vNIC whose address it is, or one that no rule names. `claimed`: the address that ARP or a neighbour
    advertisement says is its sender's; an unspecified one, as of a probe (RFC 5227), claims nothing."""

    source: str | None = None
    destination: str | None = None
    vlan: int | None = None
    claimed: Address | None = None


@dataclass(frozen=True)
class Ahead:
    """`frame_rule`: the Ethernet rule that the frame matches; `monitored`: the one that it would have matched
    first, were that enforced. `verdict` is None where rules for packets are to be asked; `words` say why,
    where that is no rule."""

    frame_rule: int | None
    verdict: Verdict | None = None
    words: str = ""
    monitored: int | None = None

    @property
    def passed_over(self) -> list[PassedOver]:
        """The monitored rule, as `explain` has those for packets."""
        return [] if self.monitored is None else [PassedOver(self.monitored, "monitored")]


def judge(state: DesiredState, packet: Packet, vnic: str, direction: Direction, wire: Wire) -> Ahead:
    """Raises KeyError for a vNIC the state does not have."""
    frame = _frame_of(state, packet, vnic, direction, wire)
    first = judge_frame(state, frame, vnic, direction, wire.claimed)
    if first.verdict:
        return first
    port = state.vnics[vnic]
    if words := _spoofed(port, packet, direction) or _rogue(port, packet, direction):
        return replace(first, verdict=Verdict(Action.DROP, None), words=words)
    return first


def judge_frame(
    state: DesiredState, frame: Frame, vnic: str, direction: Direction, claimed: Address | None = None
) -> Ahead:
    """What there is to say of a frame as such. Raises KeyError for a vNIC the state does not have."""
    if words := _misdirected(state.vnics[vnic], frame, direction):
        return Ahead(None, Verdict(Action.DROP, None), words)
    verdict = evaluate_frame(state, frame, vnic, direction)
    rule, monitored = verdict.rule_id, verdict.monitored
    if verdict.action is not Action.ALLOW:
        return Ahead(rule, verdict, "" if rule else "no Ethernet rule allows its frame", monitored)
    if claimed and not claimed.is_unspecified and (words := _foreign(state.vnics[vnic], claimed, direction)):
        return Ahead(rule, Verdict(Action.DROP, None), words, monitored)
    return Ahead(rule, monitored=monitored)


def _frame_of(state: DesiredState, packet: Packet, vnic: str, direction: Direction, wire: Wire) -> Frame:
    port = state.vnics[vnic]
    peer = packet.destination if direction is Direction.OUT else packet.source
    owner = owner_of(state, peer, port)
    far = state.vnics[owner].mac if owner else NOBODYS_MAC
    source, destination = (port.mac, far) if direction is Direction.OUT else (far, port.mac)
    ethertype = _ETHERTYPES[packet.source.version]
    return Frame(wire.source or source, wire.destination or destination, ethertype, wire.vlan)


def _misdirected(vnic: Vnic, frame: Frame, direction: Direction) -> str:
    """Why the frame is dropped for its MAC address alone, or nothing: no Ethernet rule is asked about it.
    A device that is promiscuous hears what goes to others; the policy knows of none."""
    if direction is Direction.IN and frame.destination != vnic.mac and not _is_group(frame.destination):
        return f"not mine: {frame.destination} is not the vNIC's MAC address"
    if direction is Direction.OUT and _is_guarded(vnic) and frame.source != vnic.mac:
        return f"SpoofGuard: {frame.source} is not the vNIC's MAC address"
    return ""


def _is_group(mac: str) -> bool:
    return bool(int(mac[:2], 16) & 1)


def _is_guarded(vnic: Vnic) -> bool:
    return vnic.spoofguard is not SpoofGuard.DISABLED


def _spoofed(vnic: Vnic, packet: Packet, direction: Direction) -> str:
    """Why SpoofGuard drops it, or nothing."""
    return "" if _needs_no_trust(packet) else _foreign(vnic, packet.source, direction)


def _foreign(vnic: Vnic, address: Address, direction: Direction) -> str:
    """Why SpoofGuard does not let the vNIC say that this is its address, or nothing."""
    if direction is Direction.IN or not _is_guarded(vnic):
        return ""
    if address in (made_of(vnic.mac), *map(ip_address, vnic.addresses)):
        return ""
    return f"SpoofGuard: {address} is no address of the vNIC"


def _rogue(vnic: Vnic, packet: Packet, direction: Direction) -> str:
    """Why the vNIC may not say or hear this without being marked, or nothing: bpf/spoof.h, rogue()."""
    if packet.protocol == UDP and not vnic.dhcp_server:
        client, server = _DHCP[packet.source.version]
        out = direction is Direction.OUT
        own, peer = (packet.source_port, packet.port) if out else (packet.port, packet.source_port)
        if own == server or peer == client:
            return "rogue: the vNIC is not marked as a DHCP server"
    advertises = packet.protocol == ICMPV6 and packet.icmp_type == _ND_ROUTER_ADVERTISEMENT
    if advertises and direction is Direction.OUT and not vnic.router:
        return "rogue: the vNIC is not marked as a router"
    return ""


def made_of(mac: str) -> IPv6Address:
    """The link-local address that a MAC address makes (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    host = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + host)


def _needs_no_trust(packet: Packet) -> bool:
    """Whether it may come from an address that nobody has trusted yet, or from none: who asks for one."""
    if packet.protocol == UDP:
        asks = (packet.source_port, packet.port) == _DHCP[packet.source.version]
        nobody = packet.source.is_unspecified if packet.source.version == 4 else packet.source.is_link_local
        return asks and nobody
    return packet.protocol == ICMPV6 and packet.source.is_unspecified and packet.icmp_type in _FROM_NOBODY
