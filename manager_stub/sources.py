"""Whom an address counts as, where something is counted by address. Pure."""

from ipaddress import IPv6Address, ip_address
from typing import Final

_NETWORK_BITS: Final = 64


def source_of(address: str) -> str:
    """An IPv4 address is itself. An IPv6 address is its /64: a site has at least that much (RFC 6177), and
    one machine may take any address of it (RFC 8981)."""
    try:
        parsed = ip_address(address)
    except ValueError:  # not from a socket
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"
