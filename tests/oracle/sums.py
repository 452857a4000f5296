"""Internet checksums: RFC 1071."""

from struct import pack


def sum_of(data: bytes) -> int:
    """The ones' complement sum of all 16-bit words; what is not all zero never sums up to zero."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big")
    return total % 0xFFFF or (0xFFFF if total else 0)


def is_intact(ends: bytes | None, protocol: int, body: bytes, at: int) -> bool:
    """All words together make 0xffff, with those of a pseudo header if there is one (`ends`: its addresses).
    A sender that leaves the rest to the hardware has written the sum of the pseudo header."""
    if ends is None:
        return sum_of(body) == 0xFFFF
    pseudo = ends + pack("!II", protocol, len(body))
    return sum_of(pseudo + body) == 0xFFFF or int.from_bytes(body[at : at + 2], "big") == sum_of(pseudo)
