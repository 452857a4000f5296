"""Floods: frames of one kind, each of another flow than all before it.

The tuples differ in two words that keep their sum, so every checksum of the first frame is right in all."""

import struct
from collections.abc import Iterator
from typing import Final

from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.harness.packets import ip, tcp, udp

KINDS: Final = ("syn", "udp", "fragment", "echo")
FIRST: Final = 0x0B00
MOST: Final = 0x7E00 - FIRST
_LAST: Final = 0xFFFF - FIRST
_ETHERNET: Final = 14


def frames(kind: str, macs: tuple[str, str], source: str, destination: str, count: int) -> Iterator[bytes]:
    """From `macs[0]` to `macs[1]`. Echo requests come from `source` and can be answered; the others come from
    all over the world, IPv4 from 11.0.0.0 up."""
    assert count <= MOST, f"there are {MOST} tuples"
    ipv6 = ":" in destination
    world = f"fd00::{FIRST:x}:{_LAST:x}" if ipv6 else f"{FIRST >> 8}.0.{_LAST >> 8}.{_LAST & 0xFF}"
    frame = bytearray(bytes(Ether(src=macs[0], dst=macs[1]) / _first(kind, source, world, destination)))
    source_ends, payload = (20, 40) if ipv6 else (12, 20)
    # Of an echo request identifier and sequence number vary, of others the last four bytes of the source.
    varies = _ETHERNET + (payload + 4 if kind == "echo" else source_ends)
    for number in range(FIRST, FIRST + count):
        struct.pack_into("!HH", frame, varies, number, 0xFFFF - number)
        yield bytes(frame)


def _first(kind: str, source: str, world: str, destination: str) -> Packet:
    ipv6 = ":" in destination
    if kind == "echo":
        request = ICMPv6EchoRequest if ipv6 else ICMP
        return ip(source, destination) / request(id=FIRST, seq=_LAST) / Raw(b"data")
    if kind == "syn":
        return tcp(world, destination)
    if kind == "udp":
        return udp(world, destination)
    assert kind == "fragment"
    if not ipv6:
        fragment = udp(world, destination, data=24)
        fragment.flags = "MF"
        return fragment
    return (
        ip(world, destination, nh=44)
        / IPv6ExtHdrFragment(m=1, nh=17)
        / Raw(bytes(udp(world, destination).payload))
    )
