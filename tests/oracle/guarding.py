"""What nobody sends who means well, whatever the rules say: asked of the first packet of a flow and of
what has no flow."""

from typing import Final

from tests.oracle.reading import ICMP, UDP, Read
from vsfwd.policy.model import Vnic

_DHCP: Final = {4: (67, 68), 6: (547, 546)}
"""Server and client: RFC 2131, RFC 8415."""
_ADVERTISEMENT: Final = {4: 9, 6: 134}
_REDIRECT: Final = {4: 5, 6: 137}
_DISCOVERY: Final = range(133, 138)
_MLD_QUERY: Final = 130
_MLD_OTHER: Final = (131, 132, 143)


def guarded(packet: Read, direction: str, vnic: Vnic | None = None) -> str | None:
    """The reason to drop it, where the port is not marked as a router."""
    if _is_martian(packet.source, packet.destination):
        return "address"
    if packet.protocol == ICMP[6] and _is_not_on_link(packet):
        return "not_on_link"
    redirects = packet.is_icmp and packet.type == _REDIRECT[packet.family]
    return "redirect" if redirects and direction == "out" and not (vnic and vnic.router) else None


def asks_too_small(error: Read) -> bool:
    """RFC 791: 68 bytes; RFC 8200 5: 1,280. An IPv4 router that knows no MTU says 0 (RFC 1191)."""
    if error.family == 6:
        return error.type == 2 and error.mtu < 1280
    return (error.type, error.code) == (3, 4) and 0 < error.mtu & 0xFFFF < 68


def rogue(packet: Read, direction: str, vnic: Vnic | None = None) -> str | None:
    """The reason to drop what only a DHCP server or a router may say or hear, where the port is not
    marked as one."""
    if packet.protocol == UDP:
        server, client = _DHCP[packet.family]
        local, remote = (packet.dport, packet.sport) if direction == "in" else (packet.sport, packet.dport)
        serves = local == server or remote == client
        return "rogue_dhcp" if serves and not (vnic and vnic.dhcp_server) else None
    advertises = packet.is_icmp and packet.type == _ADVERTISEMENT[packet.family]
    return "rogue_ra" if advertises and direction == "out" and not (vnic and vnic.router) else None


def _is_martian(source: bytes, destination: bytes) -> bool:
    """RFC 1812 5.3.7, RFC 4291 2.5 and 2.7: from a group, from or to the loopback, to nobody, to oneself."""
    if source == destination:
        return True
    if len(source) == 4:
        from_group = 224 <= source[0] < 240 or source == b"\xff" * 4
        return from_group or 127 in (source[0], destination[0]) or destination == bytes(4)
    loopback = bytes(15) + b"\x01"
    return source[0] == 0xFF or loopback in (source, destination) or destination == bytes(16)


def _is_not_on_link(packet: Read) -> bool:
    """RFC 4861 6.1, 7.1 and 8.1, RFC 6980; RFC 2710 3 and 4."""
    if packet.type in _DISCOVERY:
        return packet.hops != 255 or packet.extra
    if packet.type == _MLD_QUERY and not (packet.source[0] == 0xFE and packet.source[1] >> 6 == 2):
        return True
    return packet.type in (_MLD_QUERY, *_MLD_OTHER) and packet.hops != 1
