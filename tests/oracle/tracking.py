"""What a packet does to its flow, as the documents say it: the table of RFC 9293's connections seen from the
middle (drawn in bpf/conntrack.h, here typed from that drawing), and NSX's words for the others.

Time stands still in this model; what timers do is asked in tests/datapath."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from tests.oracle.reading import ACK, FIN, RST, SYN, TCP, Read
from vsfwd.policy.evaluate import Packet
from vsfwd.policy.model import ExistingFlows, Tracking

_OTHER: Final = {"in": "out", "out": "in"}


class Step(Enum):
    PASS = auto()
    NEW = auto()
    """It begins another flow; this one has ended."""
    IMPOSSIBLE = auto()
    """Its flow cannot have sent it now."""


@dataclass(slots=True)
class Flow:
    """`initiator` is the direction of its first packet, `asked` what that packet asked the rules, `rule`
    the one that allows it, `existing` what that one says of policies to come, and `policy` the last that
    let it pass. `answered`: both sides have spoken, of TCP since it was established. `orphan`: its rule
    was gone once."""

    protocol: int
    initiator: str
    asked: Packet
    state: str
    rule: int
    existing: ExistingFlows
    policy: int
    answered: bool = False
    orphan: bool = False
    packets: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    fins: set[str] = field(default_factory=set)


_TCP: Final = {
    ("syn_sent", "initiator"): {
        "syn": "syn_sent",
        "syn-ack": None,
        "syn-fin": None,
        "ack": None,
        "fin": None,
        "": None,
    },
    ("syn_sent", "responder"): {"syn": "syn_recv", "syn-ack": "syn_recv", "syn-fin": "syn_recv"},
    ("syn_recv", "initiator"): {"syn-ack": "established", "ack": "established", "fin": "closing"},
    ("syn_recv", "responder"): {},
    ("established", "initiator"): {"fin": "closing"},
    ("established", "responder"): {"fin": "closing"},
    ("closing", "initiator"): {"fin": "closing"},
    ("closing", "responder"): {"fin": "closing"},
    ("fin_wait", "initiator"): {"syn": "new"},
    ("fin_wait", "responder"): {"syn": "new"},
    ("closed", "initiator"): {"syn": "new"},
    ("closed", "responder"): {"syn": "new"},
}
"""State and side: what becomes of the state by which segment. None: impossible. Not named: the state
stays. Any RST closes."""


def begins_tcp(flags: int) -> bool:
    return flags & (SYN | ACK | RST | FIN) == SYN


def _kind(flags: int) -> str:
    """The column of the table; empty for what has neither SYN nor ACK."""
    if flags & SYN:
        return "syn-ack" if flags & ACK else "syn-fin" if flags & FIN else "syn"
    return "" if not flags & ACK else "fin" if flags & FIN else "ack"


def may_begin(packet: Read, tracking: Tracking) -> bool:
    """Whether a packet without a flow may pass under a rule: a strict one wants the SYN of a connection,
    a loose one takes an acknowledgement from its middle, a stateless one does not care."""
    if packet.protocol != TCP or tracking is Tracking.STATELESS or begins_tcp(packet.flags):
        return True
    return tracking is Tracking.LOOSE and packet.flags & (SYN | ACK | RST | FIN) == ACK


def first_state(packet: Read) -> str:
    if packet.protocol == TCP:
        return "syn_sent" if begins_tcp(packet.flags) else "established"
    return "echo" if packet.is_echo else "first"


def count(flow: Flow, direction: str) -> None:
    """One more packet of it has passed."""
    flow.packets[direction] += 1
    established = flow.protocol != TCP or flow.state in ("established", "closing", "fin_wait")
    flow.answered |= established and flow.packets[_OTHER[flow.initiator]] > 0


def follow(flow: Flow, packet: Read, direction: str) -> Step:
    """Moves the flow on."""
    if flow.protocol == TCP:
        return _follow_tcp(flow, packet.flags, direction)
    if flow.state in ("first", "single"):
        flow.state = "single" if direction == flow.initiator else "multiple"
    return Step.PASS


def _follow_tcp(flow: Flow, flags: int, direction: str) -> Step:
    side = "initiator" if direction == flow.initiator else "responder"
    if flags & RST:
        flow.state = "closed"
        return Step.PASS
    kind = _kind(flags)
    following = _TCP[flow.state, side].get(kind, flow.state)
    if following is None:
        return Step.IMPOSSIBLE
    if following == "new":
        return Step.NEW
    if kind == "fin" and following == "closing":
        flow.fins.add(direction)
        following = "fin_wait" if flow.fins == {"in", "out"} else "closing"
    flow.state = following
    return Step.PASS
