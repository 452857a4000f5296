"""What the bytes of a frame say: a naive reader, written from the RFCs and the documents, one field at a
time.

It shares nothing with bpf/packet.h. A frame that is no packet a firewall can judge raises `Unreadable` with
everything that is wrong with it at the first place where something is: the datapath may name any of these."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.oracle.segments import Segment, read_segment
from tests.oracle.sums import is_intact

TCP: Final = 6
UDP: Final = 17
ICMP: Final = {4: 1, 6: 58}
ECHO: Final = {4: (8, 0), 6: (128, 129)}
"""Request and reply: RFC 792, RFC 4443."""
ERRORS: Final = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
"""Destination unreachable, packet too big, time exceeded, parameter problem: RFC 792, RFC 4443."""

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSIONS: Final = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION)
_MAX_EXTENSIONS: Final = 6
_MAX_WALK: Final = 23
"""Extension headers and options together."""
_TOO_MANY: Final = ("extensions", "header", "source_route", "short")
"""Or whatever is wrong with the last one."""
_MAX_HEADERS: Final = 512
"""Bytes, from the Ethernet header on."""
_IP_AT: Final = 14
_MAPPED: Final = bytes(10) + b"\xff\xff"
_HEADER_SIZE: Final = {TCP: 20, UDP: 8, ICMP[4]: 8, ICMP[6]: 8}


class Unreadable(Exception):
    def __init__(self, *faults: str) -> None:
        super().__init__(", ".join(faults))
        self.faults = frozenset(faults)


class Fragment(NamedTuple):
    """`key`: what says which packet it is a piece of, beside addresses. `start` and `end`: of its payload in
    that of the whole packet."""

    key: tuple[int, int]
    start: int
    end: int
    more: bool


class _Envelope(NamedTuple):
    """What IP says. `hops`: time to live. `extra`: it has options or extension headers, or is a fragment."""

    family: int
    source: bytes
    destination: bytes
    hops: int
    extra: bool
    fragment: Fragment | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Ports, type, code and id are 0 where there are none, as in a fragment behind the first. `quoted`: what
    an ICMP error quotes, from the IP header on, or what other ICMP says; `said`: what UDP does. `intact`: the
    checksum of TCP or ICMP is right, or has been left to the hardware."""

    family: int
    source: bytes
    destination: bytes
    hops: int
    extra: bool
    fragment: Fragment | None
    protocol: int
    sport: int = 0
    dport: int = 0
    segment: Segment | None = None
    type: int = 0
    code: int = 0
    id: int = 0
    mtu: int = 0
    quoted: bytes = b""
    said: bytes = b""
    intact: bool = True

    @property
    def is_icmp(self) -> bool:
        return self.protocol == ICMP[self.family]

    @property
    def is_echo(self) -> bool:
        return self.is_icmp and self.type in ECHO[self.family]

    @property
    def is_request(self) -> bool:
        return self.is_icmp and self.type == ECHO[self.family][0]

    @property
    def is_error(self) -> bool:
        return self.is_icmp and self.type in ERRORS[self.family]


def read(frame: bytes) -> Read | None:
    """The IP packet of an Ethernet frame; None for ARP."""
    if len(frame) < 14:
        raise Unreadable("short")
    ethertype = _number(frame, 12)
    if ethertype in (0x8100, 0x88A8):
        raise Unreadable("vlan_tag")
    if ethertype == 0x0806:
        return None
    if ethertype == 0x0800:
        return _read_ipv4(frame[14:])
    if ethertype == 0x86DD:
        return _read_ipv6(frame[14:])
    raise Unreadable("ethertype")


def read_quoted(packet: bytes, family: int) -> Read | None:
    """What an ICMP error quotes, as far as it names a flow: the IP header and 8 bytes behind it (RFC 792).
    There are no errors about later fragments (RFC 1122 3.2.2)."""
    least = {4: 20, 6: 40}[family]
    if len(packet) < least or packet[0] >> 4 != family:
        return None
    size = (packet[0] & 15) * 4 if family == 4 else least
    if size < least or len(packet) < size + 8 or (family == 4 and _number(packet, 6) & 0x1FFF):
        return None
    body = packet[size:]
    if family == 6:
        source, destination, protocol = packet[8:24], packet[24:40], packet[6]
    else:
        source, destination, protocol = packet[12:16], packet[16:20], packet[9]
    envelope = _Envelope(family, source, destination, 0, False)
    if protocol in (TCP, UDP):
        segment = Segment("ack", int.from_bytes(body[4:8], "big")) if protocol == TCP else None
        return Read(*envelope, protocol, _number(body, 0), _number(body, 2), segment)
    if protocol == ICMP[family]:
        return Read(*envelope, protocol, type=body[0], code=body[1], id=_number(body, 4))
    return Read(*envelope, protocol)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _read_ipv4(ip: bytes) -> Read:
    """RFC 791."""
    if len(ip) < 20:
        raise Unreadable("short")
    version, header, total = ip[0] >> 4, (ip[0] & 15) * 4, _number(ip, 2)
    if version != 4 or header < 20:
        raise Unreadable("header")
    if not header <= total <= len(ip):
        raise Unreadable("length")
    fragment, field = None, _number(ip, 6)
    if field & 0x3FFF:
        at = (field & 0x1FFF) * 8
        key = int.from_bytes(ip[4:6], "big"), ip[9]
        fragment = _checked(Fragment(key, at, at + total - header, bool(field & 0x2000)), at + total)
    _pass_ipv4_options(ip[20:header])
    extra = header > 20 or fragment is not None
    envelope = _Envelope(4, ip[12:16], ip[16:20], ip[8], extra, fragment)
    return _read_protocol(envelope, ip[9], ip[header:total])


def _checked(fragment: Fragment, whole: int) -> Fragment:
    """All but the last carry whole multiples of 8 bytes, and no packet is longer than its length can say.
    `whole`: how long it is at least."""
    size = fragment.end - fragment.start
    if not size or (fragment.more and size % 8) or whole > 65535:
        raise Unreadable("length")
    return fragment


def _pass_ipv4_options(options: bytes) -> None:
    """One is a single byte, or has a length that counts type and length too."""
    at = found = 0
    while at < len(options):
        found += 1
        if found > _MAX_WALK:
            raise Unreadable(*_TOO_MANY)
        kind = options[at]
        if kind == 0:
            return
        if kind == 1:
            at += 1
            continue
        if kind & 0x7F in (3, 9):  # LSRR and SSRR, copied or not
            raise Unreadable("source_route")
        if at + 2 > len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            raise Unreadable("header", "short")
        at += options[at + 1]


def _read_ipv6(ip: bytes) -> Read:
    """RFC 8200. Headers that lie behind the packet's own end are not there, whatever the frame holds."""
    if len(ip) < 40:
        raise Unreadable("short")
    if ip[0] >> 4 != 6:
        raise Unreadable("header")
    end = 40 + _number(ip, 4)
    if end > len(ip):
        raise Unreadable("length")
    source, destination = ip[8:24], ip[24:40]
    if _MAPPED in (source[:12], destination[:12]):
        raise Unreadable("mapped")
    protocol, at, fragment = _pass_extensions(ip[:end])
    envelope = _Envelope(6, source, destination, ip[7], at > 40, fragment)
    return _read_protocol(envelope, protocol, ip[at:end])


def _pass_extensions(ip: bytes) -> tuple[int, int, Fragment | None]:
    """The protocol, where it begins, and of what it is a piece. One piece that is all is none (RFC 6946)."""
    following, at, found, walked = ip[6], 40, 0, 0
    fragment, pieces = None, 0
    while following in _EXTENSIONS and not (fragment and fragment.start):
        found, walked = found + 1, walked + 1
        if found > _MAX_EXTENSIONS or (following == _HOP_BY_HOP and found > 1):
            raise Unreadable("extensions")
        if walked > _MAX_WALK:
            raise Unreadable(*_TOO_MANY)
        if at + 8 > len(ip):
            raise Unreadable(*("short", "extensions")[: 1 + pieces])
        if following == _FRAGMENT:
            if pieces:
                raise Unreadable("extensions")
            fragment, pieces = _read_fragment(ip, at), 1
            following, at = ip[at], at + 8
            continue
        size = 8 + 8 * ip[at + 1]
        if at + size > len(ip):
            raise Unreadable("short")
        if _IP_AT + at + size > _MAX_HEADERS:
            raise Unreadable("extensions")
        if following == _ROUTING and (ip[at + 2] == 0 or ip[at + 3] > 0):
            raise Unreadable("source_route")
        if following != _ROUTING:
            walked = _pass_ipv6_options(ip[at + 2 : at + size], walked)
        following, at = ip[at], at + size
    return following, at, fragment


def _read_fragment(ip: bytes, at: int) -> Fragment | None:
    """The header at `at`. No protocol in the key: RFC 8200 4.5. The length that a packet claims once it is
    put together does not count the two headers it has then no more."""
    start, more = _number(ip, at + 2) & ~7, bool(ip[at + 3] & 1)
    if not start and not more:
        return None
    size, id_ = len(ip) - at - 8, int.from_bytes(ip[at + 4 : at + 8], "big")
    return _checked(Fragment((id_, 0), start, start + size, more), start + len(ip) - 48)


def _pass_ipv6_options(options: bytes, walked: int) -> int:
    """Pad1 is one byte, the others have a length of what follows it. How many have been walked with these."""
    at = 0
    while at < len(options):
        walked += 1
        if walked > _MAX_WALK:
            raise Unreadable(*_TOO_MANY)
        if options[at] == 0:
            at += 1
            continue
        if at + 2 > len(options) or at + 2 + options[at + 1] > len(options):
            raise Unreadable("header", "short")
        at += 2 + options[at + 1]
    return walked


def _read_protocol(envelope: _Envelope, protocol: int, body: bytes) -> Read:
    """RFC 9293, RFC 768, RFC 792, RFC 4443."""
    family, fragment = envelope.family, envelope.fragment
    if fragment and fragment.start:
        return Read(*envelope, protocol)
    faults = []
    if protocol == ICMP[10 - family]:
        faults.append("icmp_family")
    if len(body) < _HEADER_SIZE.get(protocol, 0):
        faults.append("short")
    elif protocol == TCP and not 20 <= (body[12] >> 4) * 4 <= len(body):
        faults.append("header")
    elif protocol == UDP and not 8 <= _number(body, 4) <= (65535 if fragment else len(body)):
        faults.append("length")
    if faults:
        raise Unreadable(*faults)
    if protocol == TCP:
        segment = read_segment(body, cut=fragment is not None)
        if segment is None:
            raise Unreadable("tcp_flags")
        intact = is_intact(envelope.source + envelope.destination, TCP, body, 16)
        return Read(*envelope, TCP, _number(body, 0), _number(body, 2), segment, intact=intact)
    if protocol == UDP:
        return Read(*envelope, UDP, _number(body, 0), _number(body, 2), said=body[8:])
    if protocol == ICMP[family]:
        id_ = _number(body, 4)
        ends = envelope.source + envelope.destination if family == 6 else None
        intact = is_intact(ends, protocol, body, 2)
        mtu = int.from_bytes(body[4:8], "big")
        return Read(
            *envelope,
            protocol,
            type=body[0],
            code=body[1],
            id=id_,
            mtu=mtu,
            quoted=body[8:],
            intact=intact,
        )
    return Read(*envelope, protocol)
