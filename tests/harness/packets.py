"""Packets, one line each, by scapy: an independent opinion of what bytes mean.

Every builder takes plain addresses and picks IPv4 or IPv6 by them; what it returns starts at the IP header.
The port a packet is given to puts the Ethernet header in front (tests/harness/datapath.py)."""

from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw


@dataclass(frozen=True)
class Net:
    """Addresses of one family: `here` and `twin` are vNICs of this host, `peer` is any other host, `forged`
    belongs to a vNIC elsewhere."""

    family: str
    here: str
    twin: str
    peer: str
    other: str
    everybody: str
    error: int
    """Type of "destination unreachable"."""


IPV4 = Net("ipv4", "10.0.0.1", "10.0.0.2", "10.0.9.9", "10.0.9.10", "0.0.0.0/0", 3)
IPV6 = Net("ipv6", "fd00::1", "fd00::2", "fd00::9:9", "fd00::9:a", "::/0", 1)


def ip(source: str, destination: str, **fields: int) -> Packet:
    return (IPv6 if ":" in source else IP)(src=source, dst=destination, **fields)


ISN = 1000
"""Initial sequence number of both sides."""


def tcp(
    source: str,
    destination: str,
    port: int = 80,
    flags: str = "S",
    *,
    sport: int = 1000,
    data: int = 0,
    seq: int | None = None,
    ack: int = ISN + 1,
    **fields: Any,
) -> Packet:
    """A segment of a connection on which nobody has sent data yet; `seq` and `ack` for one that goes on."""
    if seq is None:
        seq = ISN if "S" in flags else ISN + 1
    fields |= {"seq": seq % (1 << 32), "ack": ack % (1 << 32) if "A" in flags else 0}
    header = TCP(sport=sport, dport=port, flags=flags, **fields)
    return ip(source, destination) / header / Raw(bytes(data))


def udp(source: str, destination: str, port: int = 53, *, sport: int = 1000, data: int = 8) -> Packet:
    return ip(source, destination) / UDP(sport=sport, dport=port) / Raw(bytes(data))


def echo(source: str, destination: str, id: int = 7, *, reply: bool = False) -> Packet:
    if ":" in source:
        return ip(source, destination) / (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(
            id=id, data=b"data"
        )
    return ip(source, destination) / ICMP(type=0 if reply else 8, id=id) / Raw(b"data")


def other(source: str, destination: str, protocol: int) -> Packet:
    """A packet of a protocol without ports."""
    field = {"nh": protocol} if ":" in source else {"proto": protocol}
    return ip(source, destination, **field) / Raw(bytes(16))


def reply_to(packet: Packet, flags: str = "SA") -> Packet:
    """What the other end answers to a TCP, UDP or echo packet."""
    source, destination = packet.dst, packet.src
    if TCP in packet:
        return tcp(source, destination, packet[TCP].sport, flags, sport=packet[TCP].dport)
    if UDP in packet:
        return udp(source, destination, packet[UDP].sport, sport=packet[UDP].dport)
    if ICMP in packet:
        return echo(source, destination, packet[ICMP].id, reply=True)
    if ICMPv6EchoRequest in packet:
        return echo(source, destination, packet[ICMPv6EchoRequest].id, reply=True)
    return other(source, destination, packet.nh if IPv6 in packet else packet.proto)


def unreachable(source: str, quoted: Packet) -> Packet:
    """The ICMP error that `source` sends to the sender of `quoted`."""
    head = bytes(quoted)[: 48 if IPv6 in quoted else 28]
    if IPv6 in quoted:
        return ip(source, quoted.src) / ICMPv6DestUnreach(code=4) / Raw(head)
    return ip(source, quoted.src) / ICMP(type=3, code=3) / Raw(head)
