"""What decides on a packet before any rule for packets is asked: rules for its frame, and SpoofGuard.

A packet is given by its addresses; the frame it comes in follows from the policy, as far as nobody says
otherwise. Like `evaluate` for reading and not for speed: `vsfwctl explain` asks."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, Packet, Verdict, evaluate_frame, owner_of
from vsfwd.policy.model import Action, Direction, SpoofGuard, Vnic

NOBODYS_MAC: Final = ""
_ETHERTYPES: Final = {4: 0x0800, 6: 0x86DD}


@dataclass(frozen=True)
class Wire:
    """What is said about the frame. A MAC address that is not: the vNIC's own; at the other end that of the
    vNIC whose address it is, or one that no rule names."""

    source: str | None = None
    destination: str | None = None
    vlan: int | None = None


@dataclass(frozen=True)
class Ahead:
    """`frame_rule`: the Ethernet rule that the frame matches. `verdict` is None where rules for packets are
    to be asked; `words` say why, where that is no rule."""

    frame_rule: int | None
    verdict: Verdict | None = None
    words: str = ""


def judge(state: DesiredState, packet: Packet, vnic: str, direction: Direction, wire: Wire) -> Ahead:
    """Raises KeyError for a vNIC the state does not have."""
    frame = _frame_of(state, packet, vnic, direction, wire)
    verdict = evaluate_frame(state, frame, vnic, direction)
    if verdict.action is not Action.ALLOW:
        return Ahead(verdict.rule_id, verdict, "" if verdict.rule_id else "no Ethernet rule allows its frame")
    if words := _spoofed(state.vnics[vnic], packet, frame, direction):
        return Ahead(verdict.rule_id, Verdict(Action.DROP, None), words)
    return Ahead(verdict.rule_id)


def _frame_of(state: DesiredState, packet: Packet, vnic: str, direction: Direction, wire: Wire) -> Frame:
    port = state.vnics[vnic]
    peer = packet.destination if direction is Direction.OUT else packet.source
    owner = owner_of(state, peer, port)
    far = state.vnics[owner].mac if owner else NOBODYS_MAC
    source, destination = (port.mac, far) if direction is Direction.OUT else (far, port.mac)
    ethertype = _ETHERTYPES[packet.source.version]
    return Frame(wire.source or source, wire.destination or destination, ethertype, wire.vlan)


def _spoofed(vnic: Vnic, packet: Packet, frame: Frame, direction: Direction) -> str:
    """Why SpoofGuard drops it, or nothing. Who asks for an address (DHCP, neighbour discovery) has none."""
    if direction is Direction.IN or vnic.spoofguard is SpoofGuard.DISABLED:
        return ""
    if frame.source != vnic.mac:
        return f"SpoofGuard: {frame.source} is not the vNIC's MAC address"
    if packet.source.is_unspecified or packet.source in map(ip_address, vnic.addresses):
        return ""
    return f"SpoofGuard: {packet.source} is no address of the vNIC"
