"""What the kernel makes of an image, in Python: the lookups of bpf/dfw.c and bpf/classify.h, without a
kernel."""

from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address

from vsfwd.image import OWNER_NONE, HostEntry, HostKey, Image, PrefixKey, VnicRows
from vsfwd.policy.evaluate import Packet, Verdict
from vsfwd.policy.model import Action, Direction, Tracking

POINT_BASE = {6: 0, 17: 65536, 1: 2 * 65536, 58: 3 * 65536}


def classify(image: Image, slot: int, direction: Direction, packet: Packet) -> Verdict:
    """The verdict of the lowest bit set in all four rows, unless the vNIC is excluded."""
    if image.vnics[slot].excluded:
        return Verdict(Action.ALLOW, None)
    row = matching(image, slot, direction, packet)
    if not row:
        return Verdict(Action.DROP, None)
    rule = image.rules[(row & -row).bit_length() - 1]
    if packet.midstream and rule.tracking is Tracking.STRICT:
        return Verdict(Action.DROP, rule.id, no_state=True)
    return Verdict(rule.action, rule.id)


def matching(image: Image, slot: int, direction: Direction, packet: Packet) -> int:
    """The AND of the four rows: all rules that match."""
    rows = image.vnics[slot]
    source = _find(image, rows.segment, packet.source)
    destination = _find(image, rows.segment, packet.destination)
    forged = direction is Direction.OUT and source.owner not in (OWNER_NONE, slot + 1)
    return (
        image.rows[source.literal if forged else source.source]
        & image.rows[destination.destination]
        & image.rows[_service(image, packet)]
        & image.rows[_applied(rows, direction, packet)]
    )


def address_key(address: IPv4Address | IPv6Address) -> int:
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def service_point(packet: Packet) -> int:
    if packet.protocol in (6, 17):
        return POINT_BASE[packet.protocol] + packet.port
    if packet.protocol in (1, 58):
        return POINT_BASE[packet.protocol] + (packet.icmp_type << 8 | packet.icmp_code)
    return 4 * 65536 + packet.protocol


def _find(image: Image, segment: int, address: IPv4Address | IPv6Address) -> HostEntry:
    key = address_key(address)
    for host in (HostKey(segment, key), HostKey(0, key)):
        if host in image.hosts:
            return image.hosts[host]
    for length in range(address.max_prefixlen, -1, -1):
        shift = address.max_prefixlen - length
        entry = image.prefixes.get(PrefixKey(address.version, length, key >> shift << shift))
        if entry:
            return HostEntry(entry.source, entry.destination, entry.source, OWNER_NONE)
    raise AssertionError("the image has no root")


def _service(image: Image, packet: Packet) -> int:
    point = service_point(packet)
    found = image.services[bisect_right(image.services, point, key=lambda entry: entry.first) - 1]
    assert found.first <= point <= found.last
    return found.row


def _applied(rows: VnicRows, direction: Direction, packet: Packet) -> int:
    if direction is Direction.IN:
        return rows.in_ipv4 if packet.source.version == 4 else rows.in_ipv6
    return rows.out_ipv4 if packet.source.version == 4 else rows.out_ipv6
