"""What a TCP segment says: RFC 9293 3.1, and the one option that a firewall has to know."""

from typing import Final, NamedTuple

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
KINDS: Final = {
    SYN: "syn",
    SYN | ACK: "syn-ack",
    ACK: "ack",
    FIN | ACK: "fin",
    RST: "rst",
    RST | ACK: "rst",
}
"""What a segment is by these flags; no other combination is one that TCP sends."""


class Segment(NamedTuple):
    """`length` counts data, SYN and FIN. `scale`: what a SYN offers to shift windows by. `cut`: the first
    fragment, so that `length` is the longest there can be."""

    kind: str
    seq: int
    ack: int = 0
    length: int = 0
    window: int = 0
    scale: int | None = None
    cut: bool = False


def read_segment(body: bytes, cut: bool) -> Segment | None:
    """None: nobody sends these flags. Of the first fragment of one that is `cut`, everything may follow."""
    kind, header = KINDS.get(body[13] & (FIN | SYN | RST | ACK)), (body[12] >> 4) * 4
    if kind is None:
        return None
    seq, ack, window = (int.from_bytes(body[at:end], "big") for at, end in ((4, 8), (8, 12), (14, 16)))
    length = (65535 if cut else len(body) - header) + (kind in ("syn", "syn-ack", "fin"))
    scale = _read_scale(body[20:header]) if kind.startswith("syn") else None
    return Segment(kind, seq, ack, length, window, scale, cut)


def _read_scale(options: bytes) -> int | None:
    """RFC 7323 2.2. Behind an option that is not as it should be nothing is read."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if options[at] == 3:
            return options[at + 2] if size == 3 and at + 3 <= len(options) else None
        if size < 2:
            return None
        at += size
    return None
