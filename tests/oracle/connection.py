"""A TCP connection seen from the middle: which segments it can have now, and what they make of it.

From RFC 9293 3.5 and 3.10.7, RFC 5961 3 to 5, RFC 5927 4.1, and the four bounds of van Rooij, "Real stateful
TCP packet filtering in IP Filter" (2000), as the head of bpf/conntrack.h states them. One `Side` for each
direction, in the order of the RFCs: everything modulo 2**32, nothing about time."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from tests.oracle.segments import Segment

OTHER: Final = {"in": "out", "out": "in"}
_MAX_SCALE: Final = 14
"""RFC 7323 2.3."""
_OLDEST: Final = 66_000
"""How far behind an acknowledgement may be however small the windows are."""


class Step(Enum):
    PASS = auto()
    STAY = auto()
    """It passes and changes nothing; no timer starts."""
    NEW = auto()
    """It begins another flow; this one has ended."""
    IMPOSSIBLE = auto()
    """Its flow cannot have sent it in this state."""
    OUTSIDE = auto()
    """Its flow cannot have sent these numbers."""


@dataclass(slots=True)
class Side:
    """`end`: behind the last it sent. `limit`: how far it may send. `window`: its largest, in units of
    `scale`, which None says it has not offered."""

    end: int
    limit: int
    window: int
    scale: int | None


@dataclass(slots=True)
class Connection:
    """`sides`: those that were heard. `unacknowledged`: by direction, the first number the other side has
    not acknowledged (SND.UNA)."""

    initiator: str
    state: str
    sides: dict[str, Side] = field(default_factory=dict)
    unacknowledged: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begun(cls, segment: Segment, direction: str) -> "Connection":
        """By a SYN, or picked up in the middle."""
        if segment.kind == "syn":
            connection = cls(direction, "syn_sent")
            connection._open(segment, direction)
        else:
            connection = cls(direction, "established")
            connection._pick_up(segment, direction)
        return connection

    def follow(self, segment: Segment, direction: str) -> Step:
        side = "initiator" if direction == self.initiator else "responder"
        following = _following(self.state, side, segment.kind)
        if isinstance(following, Step):
            return following
        act = {"rst": self._reset, "syn": self._synchronize, "syn-ack": self._synchronize}
        step = act.get(segment.kind, self._carry)(segment, direction)
        if step is None:
            self.state = following
        return step or Step.PASS

    def is_under_way(self, seq: int, direction: str) -> bool:
        """Whether an ICMP error may be about a segment that begins there: sent, and not acknowledged. Of
        a connection picked up whose other side was never heard: sent not long ago."""
        if direction not in self.sides:
            return False
        end = self.sides[direction].end
        if OTHER[direction] in self.sides or self.state == "syn_sent":
            oldest = self.unacknowledged[direction]
        else:
            oldest = end - _OLDEST
        return _least(oldest, seq) and _least(seq, end)

    def _carry(self, segment: Segment, direction: str) -> Step | None:
        """Data, acknowledgements, FIN."""
        if direction not in self.sides:
            self._pick_up(segment, direction)
            # What the other has acknowledged before it was heard could be anything.
            self.unacknowledged[direction] = segment.seq
        elif not self._fits(segment, direction):
            return Step.OUTSIDE
        sender, other = self.sides[direction], OTHER[direction]
        end = _end(segment)
        if segment.cut and not _least(end, sender.limit):
            end = sender.limit  # more may follow, but no more than was offered
        sender.end = _most(sender.end, end)
        sender.window = max(sender.window, segment.window)
        self.unacknowledged[other] = _most(self.unacknowledged[other], segment.ack)
        if other in self.sides:
            # A closed window is probed with one byte (RFC 9293 3.8.6.1).
            offered = (segment.window << self._shift(direction)) or 1
            self.sides[other].limit = _most(self.sides[other].limit, segment.ack + offered)
        return None

    def _fits(self, segment: Segment, direction: str) -> bool:
        """I to IV."""
        sender, receiver = self.sides[direction], self.sides.get(OTHER[direction])
        if receiver is None:
            return True
        oldest = max(sender.window << self._shift(direction), _OLDEST)
        window = receiver.window << self._shift(OTHER[direction])
        return (
            _least(segment.seq, sender.limit)
            and _least(sender.end - window, _end(segment))
            and _least(segment.ack, receiver.end)
            and _least(receiver.end - oldest, segment.ack)
        )

    def _reset(self, segment: Segment, direction: str) -> Step | None:
        """Only the number its receiver waits for, or the one that follows what its sender has sent."""
        if self.state == "syn_sent" and direction != self.initiator:
            return None if segment.ack == self.sides[self.initiator].end else Step.OUTSIDE
        if len(self.sides) < 2 and self.state != "syn_sent":
            return None
        sender = self.sides[direction]
        if segment.seq == sender.end:
            return None
        if self.state == "syn_sent":
            return Step.STAY
        waited_for = self.unacknowledged[direction]
        if segment.seq == waited_for:
            return None
        near = _least(waited_for, segment.seq) and _least(segment.seq, sender.limit)
        return Step.STAY if near else Step.OUTSIDE

    def _synchronize(self, segment: Segment, direction: str) -> Step | None:
        """SYN or SYN-ACK. What a SYN-ACK acknowledges must be a SYN that was sent."""
        other, acknowledges = OTHER[direction], segment.kind == "syn-ack"
        if acknowledges:
            sent = self.sides[other].end
            if not (_least(self.unacknowledged[other], segment.ack) and _least(segment.ack, sent)):
                return Step.OUTSIDE
        if self.state != "syn_recv":
            self._open(segment, direction)
        elif _end(segment) != self.sides[direction].end:
            return Step.STAY
        if acknowledges:
            self.unacknowledged[other] = segment.ack
            self.sides[other].limit = (segment.ack + segment.window) % 2**32
        return None

    def _open(self, segment: Segment, direction: str) -> None:
        """The window of a SYN is never scaled (RFC 7323 2.2); here it counts in whole units all the same.
        What the SYN of the other has offered may be sent at once."""
        scale = None if segment.scale is None else min(segment.scale, _MAX_SCALE)
        window = (segment.window or 1) >> (scale or 0) or 1
        other = self.sides.get(OTHER[direction])
        offered = other.window << (other.scale or 0) if other else 0
        self.sides[direction] = Side(_end(segment), (_end(segment) + offered) % 2**32, window, scale)
        self.unacknowledged[direction] = segment.seq

    def _pick_up(self, segment: Segment, direction: str) -> None:
        """Its scale and its limit could be any."""
        end, largest = _end(segment), 65535 << _MAX_SCALE
        self.sides[direction] = Side(end, (end + largest) % 2**32, 65535, _MAX_SCALE)
        self.unacknowledged[OTHER[direction]] = segment.ack

    def _shift(self, direction: str) -> int:
        """Both have offered to scale, or none does."""
        scales = [side.scale for side in self.sides.values()]
        return 0 if None in scales else self.sides[direction].scale or 0


def _following(state: str, side: str, kind: str) -> str | Step:
    """RFC 9293's drawing (3.3.2) from the middle: the next state of what fits, or what becomes of the
    segment in this state whatever its numbers are. A FIN counts when it is seen."""
    if state == "closed" or state == "fin_wait":
        if kind == "syn":
            return Step.NEW
        if kind == "rst" and state == "fin_wait":
            return "closed"
        return Step.STAY if state == "closed" or kind == "syn-ack" else "fin_wait"
    if kind == "rst":
        return "closed"
    if state == "syn_sent":
        if side == "initiator":
            return "syn_sent" if kind == "syn" else Step.IMPOSSIBLE
        return "syn_recv" if kind in ("syn", "syn-ack") else Step.STAY
    if state == "syn_recv":
        return _in_handshake(side, kind)
    if kind in ("syn", "syn-ack"):
        return Step.STAY  # the receiver answers with a challenge (RFC 5961 4)
    if kind == "ack" or state == f"closing_{side}":
        return state
    return "fin_wait" if state.startswith("closing") else f"closing_{side}"


def _in_handshake(side: str, kind: str) -> str | Step:
    """Both have sent a SYN. What the initiator acknowledges is the other's; that one may speak before (RFC
    7413)."""
    if kind == "syn" or (side == "responder" and kind == "syn-ack"):
        return "syn_recv"
    if kind == "fin":
        return f"closing_{side}"
    return "syn_recv" if side == "responder" else "established"


def _end(segment: Segment) -> int:
    return (segment.seq + segment.length) % 2**32


def _least(a: int, b: int) -> bool:
    """a <= b, as sequence numbers go."""
    return (b - a) % 2**32 <= 2**31


def _most(a: int, b: int) -> int:
    return a if _least(b, a) else b % 2**32
