"""What the kernel makes of an image, in Python: the lookups of bpf/dfw.c and bpf/classify.h, without a
kernel."""

from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address

from vsfwd.image import OWNER_NONE, HostEntry, HostKey, Image, PrefixKey, VnicRows
from vsfwd.policy.evaluate import Frame, Packet, Verdict
from vsfwd.policy.model import Action, Direction, Tracking

POINTS_SOURCE = 262400 + 65536 + 4097
POINT_BASE = {6: 0, 17: 65536, 1: 2 * 65536, 58: 3 * 65536}


def classify(image: Image, slot: int, direction: Direction, packet: Packet) -> Verdict:
    """The verdict of the lowest bit set in all four rows, unless the vNIC is excluded, or the rule is
    monitored or jumps."""
    rows = image.vnics[slot]
    if rows.excluded:
        return Verdict(Action.ALLOW, None)
    row, monitored, left_out = matching(image, slot, direction, packet), None, 0
    for _ in range(3):
        if not row:
            return Verdict(Action.DROP, None, monitored=monitored)
        rule = image.rules[(row & -row).bit_length() - 1]
        if rule.monitored:
            monitored = rule.id
            left_out |= 1
        elif rule.action is Action.JUMP_TO_APPLICATION:
            left_out |= 2
        elif packet.midstream and rule.tracking is Tracking.STRICT:
            return Verdict(Action.DROP, rule.id, no_state=True, monitored=monitored)
        else:
            return Verdict(rule.action, rule.id, monitored=monitored)
        way = (direction is Direction.OUT) * 2 + (packet.source.version == 6)
        row &= image.rows[rows.again[(left_out - 1) * 4 + way]]
    raise AssertionError("three searches are enough")


def matching(image: Image, slot: int, direction: Direction, packet: Packet) -> int:
    """The AND of the four rows: all rules that match."""
    rows = image.vnics[slot]
    source = _find(image, rows.segment, packet.source)
    destination = _find(image, rows.segment, packet.destination)
    forged = direction is Direction.OUT and source.owner not in (OWNER_NONE, slot + 1)
    found = (
        image.rows[source.literal if forged else source.source]
        & image.rows[destination.destination]
        & image.rows[_service(image, packet)]
        & image.rows[_applied(rows, direction, packet)]
    )
    if rows.source_ports and packet.protocol in (6, 17):
        found &= image.rows[_row_at(image, POINTS_SOURCE + packet.source_port)]
    return found


def classify_frame(image: Image, slot: int, direction: Direction, frame: Frame) -> Verdict:
    """The same, for a frame: what no Ethernet rule matches passes on if it is known and bears no tag."""
    rows = image.vnics[slot]
    if rows.excluded:
        return Verdict(Action.ALLOW, None)
    bits = 0
    applied = rows.frames_in if direction is Direction.IN else rows.frames_out
    if applied and frame.ethertype >= 0x600 and frame.ethertype not in (0x8100, 0x88A8):
        source, destination = _find_mac(image, frame.source), _find_mac(image, frame.destination)
        forged = direction is Direction.OUT and source.owner not in (OWNER_NONE, slot + 1)
        bits = (
            image.rows[source.literal if forged else source.source]
            & image.rows[destination.destination]
            & image.rows[_row_at(image, 262400 + frame.ethertype)]
            & image.rows[_row_at(image, 262400 + 65536 + (4096 if frame.vlan is None else frame.vlan))]
            & image.rows[applied]
        )
    monitored = None
    if bits and image.rules[(bits & -bits).bit_length() - 1].monitored:
        monitored = image.rules[(bits & -bits).bit_length() - 1].id
        bits &= image.rows[rows.frames_again[direction is Direction.OUT]]
    if bits:
        rule = image.rules[(bits & -bits).bit_length() - 1]
        return Verdict(rule.action, rule.id, monitored=monitored)
    known = frame.ethertype in (0x0800, 0x0806, 0x86DD) and frame.vlan is None
    return Verdict(Action.ALLOW if known else Action.DROP, None, monitored=monitored)


def _find_mac(image: Image, mac: str) -> HostEntry:
    known = image.hosts.get(HostKey(0xFFFFFFFF, int(mac.replace(":", ""), 16)))
    return known or image.hosts[HostKey(0xFFFFFFFF, 1 << 96)]


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
    return _row_at(image, service_point(packet))


def _row_at(image: Image, point: int) -> int:
    found = image.services[bisect_right(image.services, point, key=lambda entry: entry.first) - 1]
    assert found.first <= point <= found.last
    return found.row


def _applied(rows: VnicRows, direction: Direction, packet: Packet) -> int:
    if direction is Direction.IN:
        return rows.in_ipv4 if packet.source.version == 4 else rows.in_ipv6
    return rows.out_ipv4 if packet.source.version == 4 else rows.out_ipv6
