"""What a TCP segment does to its flow, as data: the programs look it up in `settings`, tests go through it.

Sides are the flow's: the initiator sent the first SYN. A cell says what becomes of a segment that fits its
flow (where sequence numbers are concerned, bpf/conntrack.h says what fits):

    a state   it passes, the flow is in that state and its timer starts
    -         it passes and changes nothing: whoever gets it has to cope (RFC 5961: a challenge ACK)
    drop      it cannot be, reason tcp-state
    new       it begins another connection with the same addresses and ports

RST stands for one with the exact sequence number that its receiver waits for; any other changes nothing.
Sources: RFC 9293 3.3.2 and 3.10.7; RFC 5961 3 to 5; simultaneous open, RFC 9293 3.5; a responder that speaks
before its SYN is acknowledged, RFC 7413 3."""

from typing import Final

from vsfwd.datapath.schema import SEGMENTS, STEPS, State, constant

TABLE: Final = """
state              side       SYN       SYN-ACK      ACK                FIN                RST
syn_sent           initiator  syn_sent  drop         drop               drop               closed
syn_sent           responder  syn_recv  syn_recv     -                  -                  closed
syn_recv           initiator  syn_recv  established  established        closing_initiator  closed
syn_recv           responder  syn_recv  syn_recv     syn_recv           closing_responder  closed
established        initiator  -         -            established        closing_initiator  closed
established        responder  -         -            established        closing_responder  closed
closing_initiator  initiator  -         -            closing_initiator  closing_initiator  closed
closing_initiator  responder  -         -            closing_initiator  fin_wait           closed
closing_responder  initiator  -         -            closing_responder  fin_wait           closed
closing_responder  responder  -         -            closing_responder  closing_responder  closed
fin_wait           initiator  new       -            fin_wait           fin_wait           closed
fin_wait           responder  new       -            fin_wait           fin_wait           closed
closed             initiator  new       -            -                  -                  -
closed             responder  new       -            -                  -                  -
"""

SIDES: Final = ("initiator", "responder")


def transitions() -> dict[tuple[str, str, str], str]:
    """By state, side and segment, what the cell says."""
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    return {
        (state, side, segment): cell
        for state, side, *cells in rows
        for segment, cell in zip(head[2:], cells, strict=True)
    }


def packed_transitions() -> bytes:
    """For `settings`. What the table does not name cannot be."""
    cells, segments = bytearray([STEPS["DROP"] << 4] * constant("TRANSITIONS")), constant("SEGMENTS")
    for (state, side, segment), cell in transitions().items():
        index = State[state.upper()] * 2 * segments + SIDES.index(side) * segments
        cells[index + SEGMENTS[segment.replace("-", "_")]] = _packed(cell)
    return bytes(cells)


def _packed(cell: str) -> int:
    words = {"-": STEPS["STAY"], "drop": STEPS["DROP"], "new": STEPS["NEW"]}
    return words[cell] << 4 if cell in words else STEPS["MOVE"] << 4 | State[cell.upper()]
