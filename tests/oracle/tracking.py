"""What a packet does to its flow, as the documents say it: RFC 9293's connections (`connection`), and NSX's
words for the others, and for how long each is remembered."""

from dataclasses import dataclass, field
from typing import Final

from tests.oracle.connection import OTHER, Connection, Step
from tests.oracle.reading import Read
from vsfwd.policy.evaluate import Packet
from vsfwd.policy.model import ExistingFlows, Tracking

TIMERS: Final = {
    "syn_sent": "tcp_first_packet",
    "syn_recv": "tcp_opening",
    "established": "tcp_established",
    "closing_initiator": "tcp_closing",
    "closing_responder": "tcp_closing",
    "fin_wait": "tcp_finwait",
    "closed": "tcp_closed",
    "first": "udp_first_packet",
    "single": "udp_single",
    "multiple": "udp_multiple",
    "echo": "icmp_first_packet",
}
"""Of what a flow has seen: NSX's."""
_UNANSWERED: Final = ("syn_sent", "syn_recv", "closed")


@dataclass(slots=True)
class Flow:
    """`initiator` is the direction of its first packet, `asked` what that packet asked the rules, `rule`
    the one that allows it, `existing` what that one says of policies to come, and `policy` the last that
    let it pass. `answered`: both sides have spoken, of TCP since it was established; who answers by
    closing has not yet, before the initiator's next packet. `orphan`: its rule was gone once."""

    protocol: int
    initiator: str
    asked: Packet
    rule: int
    existing: ExistingFlows
    policy: int
    seen: str
    """State of what is no TCP."""
    connection: Connection | None
    answered: bool = False
    orphan: bool = False
    ends: int = 0
    """In seconds; from then on it is missing."""
    packets: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})

    @property
    def state(self) -> str:
        return self.connection.state if self.connection else self.seen


def may_begin(packet: Read, tracking: Tracking) -> bool:
    """Whether a packet without a flow may pass under a rule: a strict one wants the SYN of a connection,
    a loose one takes an acknowledgement from its middle, a stateless one does not care."""
    if packet.segment is None or tracking is Tracking.STATELESS or packet.segment.kind == "syn":
        return True
    return tracking is Tracking.LOOSE and packet.segment.kind == "ack"


def count(flow: Flow, direction: str) -> None:
    """One more packet of it has passed."""
    flow.packets[direction] += 1
    established = flow.state not in _UNANSWERED
    closes = flow.connection is not None and direction != flow.initiator and flow.state != "established"
    flow.answered |= established and flow.packets[OTHER[flow.initiator]] > 0 and not closes


def follow(flow: Flow, packet: Read, direction: str) -> Step:
    """Moves the flow on."""
    if flow.connection:
        assert packet.segment
        return flow.connection.follow(packet.segment, direction)
    if flow.seen in ("first", "single"):
        flow.seen = "single" if direction == flow.initiator else "multiple"
    return Step.PASS
