"""What a frame says about who has which address. Pure, and for hostile input: bytes in, claims
or nothing out.

ARP and neighbour discovery count when the vNIC speaks of its own MAC address; a lease counts when it is an
acknowledgement to that MAC address. That the vNIC has asked for it is known to the programs, which show
nothing else. An ARP probe claims nothing yet; duplicate address detection does, since a host may say nothing
else of its address for as long as it knows its neighbours."""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vsfwd.protocol.messages import Claim, Source, is_host_address

_ETHERNET: Final = 14
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ARP_ETHERNET_IPV4: Final = bytes.fromhex("000108000604")
_UDP: Final = 17
_ICMPV6: Final = 58
_ND_ROUTER_SOLICITATION, _ND_SOLICITATION, _ND_ADVERTISEMENT = 133, 135, 136
_DHCP_FIXED: Final = 240
"""Bytes of a DHCP message before its options, the magic cookie included (RFC 2131, RFC 2132)."""
_DHCP_COOKIE: Final = b"\x63\x82\x53\x63"
_DHCP_TYPE, _DHCP_LEASE, _DHCP_ACK = 53, 51, 5
_DHCPV6_REPLY, _DHCPV6_IA_NA, _DHCPV6_ADDRESS = 7, 3, 5
_FOREVER: Final = 0xFFFF_FFFF


def claims(frame: bytes, direction: str, mac: bytes, now: int) -> list[Claim]:
    """The addresses that `frame`, sent (out) or received (in) by the vNIC with `mac`, gives it. `now`:
    seconds since 1970, from which leases run."""
    try:
        found = _sent(frame, mac) if direction == "out" else _received(frame, mac, now)
    except IndexError:  # it ends before what it says it has
        return []
    return [claim for claim in found if is_host_address(claim.address)]


def _sent(frame: bytes, mac: bytes) -> list[Claim]:
    if _bytes(frame, 6, 6) != mac:
        return []
    ethertype = frame[12:14]
    if ethertype == _ARP and frame[14:20] == _ARP_ETHERNET_IPV4 and _bytes(frame, 22, 6) == mac:
        return [Claim(str(IPv4Address(_bytes(frame, 28, 4))), Source.ARP)]
    if ethertype != _IPV6 or frame[20] != _ICMPV6 or frame[21] != 255:
        return []
    source, message = _bytes(frame, 22, 16), _ETHERNET + 40
    kind = frame[message]
    if kind == _ND_ADVERTISEMENT or (kind == _ND_SOLICITATION and not any(source)):
        return [Claim(_ipv6(_bytes(frame, message + 8, 16)), Source.ND)]
    return [Claim(_ipv6(source), Source.ND)] if kind in (_ND_SOLICITATION, _ND_ROUTER_SOLICITATION) else []


def _received(frame: bytes, mac: bytes, now: int) -> list[Claim]:
    server = frame[6:12].hex(":")
    if frame[12:14] == _IPV4 and frame[23] == _UDP:
        udp = _ETHERNET + (frame[14] & 15) * 4
        return _dhcp(frame[udp + 8 :], mac, server, now)
    if frame[12:14] == _IPV6 and frame[20] == _UDP and frame[:6] == mac:
        return _dhcpv6(frame[_ETHERNET + 48 :], server, now)
    return []


def _dhcp(message: bytes, mac: bytes, server: str, now: int) -> list[Claim]:
    fixed = _bytes(message, 0, _DHCP_FIXED)
    if fixed[:3] != b"\x02\x01\x06" or fixed[28:34] != mac or fixed[236:] != _DHCP_COOKIE:
        return []
    options: dict[int, bytes] = {}
    at = _DHCP_FIXED
    while message[at] != 255:
        if message[at] == 0:
            at += 1
            continue
        options[message[at]] = _bytes(message, at + 2, message[at + 1])
        at += 2 + message[at + 1]
    lease = options.get(_DHCP_LEASE, b"")
    if options.get(_DHCP_TYPE) != bytes([_DHCP_ACK]) or len(lease) != 4:
        return []
    return [Claim(str(IPv4Address(fixed[16:20])), Source.DHCP, _ends(lease, now), server)]


def _dhcpv6(message: bytes, server: str, now: int) -> list[Claim]:
    if message[0] != _DHCPV6_REPLY:
        return []
    return [
        Claim(_ipv6(address[:16]), Source.DHCPV6, _ends(address[20:24], now), server)
        for kind, associated in _dhcpv6_options(message[4:])
        if kind == _DHCPV6_IA_NA
        for inner, address in _dhcpv6_options(associated[12:])
        if inner == _DHCPV6_ADDRESS and len(address) >= 24 and any(address[20:24])
    ]


def _dhcpv6_options(content: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(content):
        kind, size = _number(content, at), _number(content, at + 2)
        found.append((kind, _bytes(content, at + 4, size)))
        at += 4 + size
    return found


def _ends(lease: bytes, now: int) -> int:
    seconds = int.from_bytes(lease, "big")
    return 0 if seconds == _FOREVER else now + seconds


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(_bytes(content, at, 2), "big")


def _bytes(content: bytes, at: int, size: int) -> bytes:
    """Raises IndexError where a slice would be shorter in silence."""
    if at + size > len(content):
        raise IndexError(at)
    return content[at : at + size]


def _ipv6(raw: bytes) -> str:
    return str(IPv6Address(raw))
