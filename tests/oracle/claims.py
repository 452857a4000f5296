"""What a workload says about itself: ARP, neighbour discovery, DHCP requests; true or not, whole or not."""

from random import Random
from struct import pack
from typing import Final

from tests.oracle import frames
from tests.oracle.reading import ICMP, UDP

BROADCAST: Final = b"\xff" * 6
ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ALL_NODES: Final = bytes.fromhex("ff02") + bytes(13) + b"\x01"
_SERVERS: Final = bytes.fromhex("ff02") + bytes(11) + b"\x01\0\x02"
"""Of DHCPv6: RFC 8415 7.1."""
_TYPES: Final = (133, 135, 136)


def random_claim(rng: Random, mac: bytes, own: tuple[bytes, bytes], others: list[bytes]) -> bytes:
    """A frame out of the vNIC with this MAC address and these addresses, IPv4 and IPv6."""
    sender = mac if rng.random() < 0.9 else frames.PEER_MAC
    said = mac if rng.random() < 0.8 else frames.PEER_MAC
    made = bytes.fromhex("fe80") + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    kind = rng.choice(("arp", "discovery", "discovery", "dhcp", "dhcpv6"))
    if kind == "arp":
        return frames.ethernet(BROADCAST, sender, _arp(rng, said, own[0], others), 0x0806)
    if kind == "dhcp":
        return frames.ethernet(BROADCAST, sender, _dhcp(rng, said, own[0]))
    claimed = [own[1], own[1], made, rng.choice([a for a in others if len(a) == 16])]
    source, target = (rng.choice((*claimed, bytes(16))) for _ in range(2))
    if kind == "dhcpv6":
        body = frames.udp(source, _SERVERS, (546, 547), bytes(8))
        return frames.ethernet(ALL_NODES_MAC, sender, frames.ip(source, _SERVERS, UDP, body))
    return frames.ethernet(ALL_NODES_MAC, sender, _discovery(rng, said, source, target))


def _arp(rng: Random, said: bytes, own: bytes, others: list[bytes]) -> bytes:
    other = rng.choice([address for address in others if len(address) == 4])
    sender = rng.choice((own, own, other, bytes(4)))
    hardware = rng.choice((1, 1, 1, 1, 6))
    arp = pack("!HHBBH6s4s6s4s", hardware, 0x0800, 6, 4, rng.choice((1, 2)), said, sender, bytes(6), other)
    return arp if rng.random() < 0.9 else arp[: rng.choice((14, 20, 27))]


def _dhcp(rng: Random, said: bytes, own: bytes) -> bytes:
    message = pack("!BBBB", 1, 1, 6, 0) + bytes(24) + said + bytes(rng.choice((0, 10, 200)))
    if rng.random() < 0.1:
        message = message[: rng.choice((0, 28, 33))]
    source, to = rng.choice((bytes(4), bytes(4), own)), b"\xff" * 4
    return frames.ip(source, to, UDP, frames.udp(source, to, (68, 67), message))


def _discovery(rng: Random, said: bytes, source: bytes, target: bytes) -> bytes:
    kind = rng.choice(_TYPES)
    option = pack("!BB6s", rng.choice((1, 2)), 1, said)
    nonce = pack("!BB6s", 14, 1, rng.randbytes(6))
    broken = rng.choice((pack("!BB6s", 14, 0, bytes(6)), pack("!BB14s", 1, 2, said), option[:4], nonce * 5))
    options = rng.choice((b"", option, option, nonce + option, option * 2, nonce * 3 + option, broken))
    data = options if kind == 133 else target + options
    hops = 255 if rng.random() < 0.9 else 64
    body = frames.icmp(source, _ALL_NODES, kind, 0, bytes(4), data)
    return frames.ip(source, _ALL_NODES, ICMP[6], body, hops=hops)
