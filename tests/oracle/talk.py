"""One conversation as a workload has it: what its next packet would be, and what somebody might send
instead."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random
from struct import pack
from typing import Final

from tests.oracle import frames
from tests.oracle.reading import ECHO, ERRORS, ICMP, TCP, UDP
from tests.oracle.segments import ACK, FIN, RST, SYN

OTHER: Final = {"in": "out", "out": "in"}
PSH: Final = 0x08
_OPEN: Final = (("initiator", SYN), ("responder", SYN | ACK), ("initiator", ACK))
_BOTH_OPEN: Final = (
    *(("initiator", SYN), ("responder", SYN), ("initiator", SYN | ACK), ("responder", SYN | ACK)),
    ("initiator", ACK),
)
_DATA: Final = (
    *(("initiator", PSH | ACK), ("responder", ACK), ("responder", PSH | ACK), ("initiator", ACK)),
    *(("responder", PSH | ACK), ("responder", PSH | ACK), ("initiator", ACK)),
)
_CLOSE: Final = (("initiator", FIN | ACK), ("responder", ACK), ("responder", FIN | ACK), ("initiator", ACK))
_CLOSED: Final = (("responder", FIN | ACK), ("initiator", FIN | ACK), ("responder", ACK))
_EARLY: Final = (("initiator", SYN | PSH), *_OPEN[1:2], *(("responder", PSH | ACK),) * 2)
Script = tuple[tuple[str, int], ...]
_SCRIPTS: Final[tuple[Script, ...]] = (
    *((*_OPEN, *_DATA, *_CLOSE), (*_OPEN, *_DATA, *_CLOSED), (*_BOTH_OPEN, *_DATA, *_CLOSE)),
    *((*_OPEN, *_DATA, *_DATA, ("initiator", RST)), (*_OPEN, *_DATA, ("responder", RST | ACK))),
    *((("initiator", SYN), ("responder", RST | ACK)), (*_DATA, *_DATA, *_CLOSE)),
    (*(("initiator", PSH | ACK),) * 3, *(("responder", PSH | ACK),) * 3, *_DATA, *_CLOSED),
    *((*_EARLY, *_OPEN[2:], *_DATA, *_CLOSE), (*_EARLY, *_CLOSED)),
)
"""Connections: as they should be, opened by both, reset, refused, one that was under way before, and such
whose data is there before the handshake has ended (RFC 7413)."""
ONE_OPENS: Final = tuple(
    script for script in _SCRIPTS if script[0][1] & SYN and ("responder", SYN) not in script
)
_NUMBERS: Final = (0, 1000, 2**31 - 20, 2**32 - 20)
_WINDOWS: Final = (0, 0, 1, 500, 8192, 65535, 65535)
_SCALES: Final = (None, None, 0, 2, 7, 14, 15)
_STRAY_FLAGS: Final = (
    *(SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, SYN | RST, FIN, 0),
    *(SYN, SYN | ACK, ACK, FIN | ACK, RST | ACK, 0xFF),
)
_OFFSETS: Final = (0, 0, 0, 0, 30, 500, 65535, 66_000, 2**30, 2**31)
_OTHER_TYPES: Final = {4: (13, 14, 5, 9, 10, 17), 6: (130, 131, 133, 134, 135, 136, 137, 143)}


def packed(text: str) -> bytes:
    return ip_address(text).packed


@dataclass
class Talk:
    """Seen from the workload at `port`. ICMP echo has its identifier as `rport`."""

    port: str
    family: int
    protocol: int
    local: bytes
    remote: bytes
    lport: int
    rport: int
    initiator: str
    seq: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 2**32 - 20})
    """What each direction sends next, and offers to take; `scale`, by which its SYN says windows are."""
    window: dict[str, int] = field(default_factory=lambda: {"in": 65535, "out": 65535})
    scale: dict[str, int | None] = field(default_factory=lambda: {"in": None, "out": None})
    windows: tuple[int, ...] = _WINDOWS
    """What each side of its connections may offer."""
    scripts: tuple[Script, ...] = _SCRIPTS
    """What its connections may be."""
    script: Script = ()
    at: int = 0
    last: tuple[str, bytes] | None = None

    def next(self, rng: Random) -> tuple[str, bytes]:
        if self.protocol == TCP:
            return self._next_segment(rng)
        direction = rng.choice(("in", "out"))
        if self.protocol == ICMP[self.family]:
            return direction, self._echo(direction, request=direction == self.initiator)
        return direction, self._datagram(direction, bytes(rng.choice((0, 8, 40))))

    def stray(self, rng: Random) -> tuple[str, bytes]:
        """What it would not send now, or nobody ever."""
        direction = rng.choice(("in", "out"))
        if self.protocol == TCP:
            flags = rng.choice(_STRAY_FLAGS)
            offsets = self._offset(rng, direction), self._offset(rng, OTHER[direction])
            window = rng.choice((None, None, 0, 65535))
            data = bytes(rng.choice((0, 0, 10)))
            return direction, self._segment(direction, flags, data, *offsets, window)
        if self.protocol == ICMP[self.family]:
            if rng.random() < 0.5:
                return direction, self._echo(direction, request=rng.random() < 0.5)
            hops = rng.choice((255, 255, 64, 1))
            return direction, self._icmp(
                direction, rng.choice(_OTHER_TYPES[self.family]), 0, bytes(4), hops=hops
            )
        return direction, self._datagram(direction, b"")

    def _offset(self, rng: Random, direction: str) -> int:
        """How far from what it would send now: nothing, the bounds of what fits and what is beside them,
        or to the number 0."""
        other = OTHER[direction]
        scales = self.scale.values()
        bounds = [
            self.window[side] << (0 if None in scales else min(self.scale[side] or 0, 14))
            for side in (direction, other)
        ]
        far = rng.choice((*_OFFSETS, *bounds))
        if rng.random() < 0.1:
            return -self.seq[direction]
        return rng.choice((far, -far)) + rng.choice((0, 0, 0, 1, -1))

    def pieces(self, rng: Random) -> tuple[str, list[bytes]]:
        """A packet in fragments: as they should be, or with a gap, an overlap, one twice, out of order."""
        direction = rng.choice(("in", "out"))
        packet, id_ = self._plain(direction, bytes(rng.choice((40, 64, 200)))), rng.randrange(8)
        size = len(packet) - (40 if self.family == 6 else 20)
        ends = sorted(rng.sample(range(8, size, 8), rng.choice((1, 1, 2, 3))))
        spans = list(zip([0, *ends], [*ends, size], strict=True))
        at = rng.randrange(len(spans))
        trouble = rng.choice(("", "", "", "", "gap", "overlap", "twice", "order"))
        if trouble == "gap":
            del spans[at]
        elif trouble == "overlap":
            spans[at] = max(0, spans[at][0] - 8), spans[at][1]
        elif trouble == "twice":
            spans.insert(rng.randrange(len(spans)), spans[at])
        elif trouble == "order":
            rng.shuffle(spans)
        return direction, [frames.piece(packet, a, b, b < size, id_) for a, b in spans]

    def neighbour(self, rng: Random) -> "Talk":
        """One that differs in a port, an address, the protocol or the direction."""
        other = replace(self, seq=dict(self.seq))
        what = rng.choice(("lport", "rport", "protocol", "ends"))
        if what == "ends":
            other.local, other.remote = self.remote, self.local
        elif what == "protocol":
            other.protocol = rng.choice((TCP, UDP, ICMP[self.family], 47))
        else:
            setattr(other, what, getattr(self, what) ^ 1)
        return other

    def error(self, rng: Random) -> tuple[str, bytes]:
        """An ICMP error about what has been on its way, or might have been."""
        direction = rng.choice(("in", "out"))
        way = OTHER[direction] if rng.random() < 0.8 else direction
        about = self if rng.random() < 0.8 else self.neighbour(rng)
        quoted = about.stray(rng)[1] if rng.random() < 0.2 else about._plain(way)
        size = 40 if self.family == 6 else 20
        quoted = quoted[: size + rng.choice((8, 8, 8, 20, 20, 7))]
        to = quoted[8:24] if self.family == 6 else quoted[12:16]
        if rng.random() < 0.1:
            quoted = _spoilt(rng, quoted)
        if rng.random() < 0.1:
            to = rng.choice((self.local, self.remote))
        source = rng.choice((self.local if direction == "out" else self.remote, packed(_ROUTER[self.family])))
        kind = rng.choice(ERRORS[self.family])
        mtu = rng.choice((1400, 1280, 1279, 68, 67, 0))
        body = frames.icmp(source, to, kind, rng.choice((0, 1, 4)), pack("!I", mtu), quoted)
        return direction, frames.ip(source, to, ICMP[self.family], body)

    def with_extra(self, rng: Random, direction: str) -> bytes:
        """With IPv4 options or IPv6 extension headers in between."""
        source, destination = self._ends(direction)
        body = self._plain(direction)[40 if self.family == 6 else 20 :]
        if self.family == 4:
            options = rng.choice(_OPTIONS)
            return frames.ip(source, destination, self.protocol, body, options)
        kinds = [rng.choice((0, 43, 60, 60, 60)) for _ in range(rng.choice((1, 1, 2, 3, 6, 7)))]
        chain = b"".join(_extension(following, rng) for following in (*kinds[1:], self.protocol))
        return frames.ip(source, destination, kinds[0], body, chain)

    def _ends(self, direction: str) -> tuple[bytes, bytes]:
        return (self.remote, self.local) if direction == "in" else (self.local, self.remote)

    def _ports(self, direction: str) -> tuple[int, int]:
        return (self.rport, self.lport) if direction == "in" else (self.lport, self.rport)

    def _plain(self, direction: str, data: bytes = b"") -> bytes:
        """A packet of it, wherever it stands."""
        if self.protocol == TCP:
            return self._segment(direction, ACK, data)
        if self.protocol == ICMP[self.family]:
            return self._echo(direction, direction == self.initiator, data)
        return self._datagram(direction, data)

    def _next_segment(self, rng: Random) -> tuple[str, bytes]:
        """The script of a connection, now and then the last segment again, in the end a new connection."""
        if self.last and rng.random() < 0.1:
            return self.last
        if self.at == len(self.script):
            self._connect(rng)
        side, flags = self.script[self.at]
        again = flags & SYN and (side, SYN) in self.script[: self.at]  # a SYN-ACK has the number of its SYN
        self.at += 1
        direction = self.initiator if side == "initiator" else OTHER[self.initiator]
        data = bytes(rng.choice((1, 30))) if flags & PSH else b""
        options = _options(rng, self.scale[direction]) if flags & SYN else b""
        window = 0 if rng.random() < 0.05 and 0 in self.windows else None
        packet = self._segment(direction, flags, data, -1 if again else 0, window=window, options=options)
        self.seq[direction] += len(data) + (bool(flags & (SYN | FIN)) and not again)
        self.last = direction, packet
        return self.last

    def _connect(self, rng: Random) -> None:
        self.at, self.script = 0, rng.choice(self.scripts)
        self.seq = {d: rng.choice(_NUMBERS) for d in ("in", "out")}
        self.window = {d: rng.choice(self.windows) for d in ("in", "out")}
        self.scale = {d: rng.choice(_SCALES) for d in ("in", "out")}

    def _segment(
        self,
        direction: str,
        flags: int,
        data: bytes,
        seq: int = 0,
        ack: int = 0,
        window: int | None = None,
        options: bytes = b"",
    ) -> bytes:
        source, destination = self._ends(direction)
        numbers = self.seq[direction] + seq, self.seq[OTHER[direction]] + ack if flags & ACK else 0
        offered = self.window[direction] if window is None else window
        ports = self._ports(direction)
        body = frames.tcp(source, destination, ports, flags, *numbers, data, window=offered, options=options)
        return frames.ip(source, destination, TCP, body)

    def _datagram(self, direction: str, data: bytes) -> bytes:
        source, destination = self._ends(direction)
        body = data
        if self.protocol == UDP:
            body = frames.udp(source, destination, self._ports(direction), data)
        return frames.ip(source, destination, self.protocol, body)

    def _echo(self, direction: str, request: bool, data: bytes = b"data") -> bytes:
        type_ = ECHO[self.family][0 if request else 1]
        return self._icmp(direction, type_, 0, pack("!HH", self.rport, 1), data)

    def _icmp(
        self, direction: str, type_: int, code: int, rest: bytes, data: bytes = b"", *, hops: int = 64
    ) -> bytes:
        source, destination = self._ends(direction)
        body = frames.icmp(source, destination, type_, code, rest, data)
        return frames.ip(source, destination, ICMP[self.family], body, hops=hops)


_ROUTER: Final = {4: "192.0.2.254", 6: "2001:db8::fe"}


# Router alert, LSRR and SSRR, record route, padding, an end before the end, and lengths that lie.
_OPTIONS: Final = (
    *(b"\x94\x04\0\0", b"\x83\x07\x04\0\0\0\0\0", b"\x01\x89\x03\0", b"\x07\x03\0\0", b"\x01" * 4),
    *(b"\x01" * 24, b"\x00\x83\x03\x04", b"\x94\x01\0\0", b"\x94\x05\0\0", b"\x01\x01\x01\x94"),
)


def _options(rng: Random, scale: int | None) -> bytes:
    """Of a SYN: how large segments may be (RFC 9293 3.7.1), and the scale, in odd places too. Without one:
    none, or what looks like one."""
    if scale is None:
        options = rng.choice((b"", b"", b"\2\4\5\xb4", b"\0\3\3\7", b"\3\4\7", b"\2\0\3\3\7", b"\1\1\3\3"))
    else:
        options = rng.choice((b"", b"\1", b"\2\4\5\xb4\1", b"\2\4\5\xb4" + b"\1" * 16)) + bytes([3, 3, scale])
        options += rng.choice((b"", b"\0\3\3\1"))
    return (
        options + bytes(-len(options) % 4)
        if scale is not None
        else options.rjust(-(-len(options) // 4) * 4, b"\1")
    )


def _spoilt(rng: Random, quoted: bytes) -> bytes:
    """Another version or header length, a fragment."""
    at, value = rng.choice(((0, 0x65), (0, 0x40), (0, 0x46), (6, 0x20), (7, 0x01)))
    return quoted[:at] + bytes([value]) + quoted[at + 1 :]


def _extension(following: int, rng: Random) -> bytes:
    """PadN or Pad1 (RFC 8200 4.2), a router alert, an option that is too long. As a routing header: of
    type 1 or 0."""
    words = rng.choice((0, 0, 1, 4))
    size = 6 + 8 * words
    padding = bytes([1, size - 2])
    content = rng.choice(
        (padding, padding, b"", b"\x05\x02\0\0" + bytes([1, size - 6]), bytes([1, size - 1]))
    )
    return bytes([following, words]) + content.ljust(size, b"\0")
