"""Which flow a packet belongs to, what it asks the rules, and what passes before there are any."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from tests.oracle.reading import ICMP, UDP, Read
from vsfwd.policy.evaluate import Packet

Key = tuple[int, bytes, int, bytes, int, bool]
DISCOVERY: Final = (133, 134, 135, 136)
"""Neighbour discovery: RFC 4861, without the redirect."""
CLIENT_AND_SERVER: Final = {4: (68, 67), 6: (546, 547)}
"""DHCP (RFC 2131) and DHCPv6 (RFC 8415)."""


def key_of(packet: Read, direction: str) -> Key:
    """The flow, seen from the workload; of an echo, its identifier and which way the request goes."""
    ends = [(packet.source, packet.sport), (packet.destination, packet.dport)]
    (remote, remote_port), (local, local_port) = ends if direction == "in" else reversed(ends)
    if packet.is_echo:
        request_in = packet.is_request == (direction == "in")
        return packet.protocol, remote, packet.id, local, 0, request_in
    return packet.protocol, remote, remote_port, local, local_port, False


def comes_up(packet: Read, direction: str) -> bool:
    """What a workload without a policy may do: neighbour discovery, and DHCP as a client."""
    if packet.is_icmp:
        return (
            packet.protocol == ICMP[6]
            and packet.type in DISCOVERY
            and (direction, packet.type) != ("out", 134)
        )
    ports = (packet.sport, packet.dport) if direction == "out" else (packet.dport, packet.sport)
    return packet.protocol == UDP and ports == CLIENT_AND_SERVER[packet.family]


@lru_cache(maxsize=1 << 12)
def address(raw: bytes) -> IPv4Address | IPv6Address:
    return ip_address(raw)


def question(packet: Read) -> Packet:
    """What the first packet of a flow asks the rules."""
    source, destination = address(packet.source), address(packet.destination)
    return Packet(
        source,
        destination,
        packet.protocol,
        packet.dport,
        packet.type,
        packet.code,
        source_port=packet.sport,
    )
