"""Moves on the wire: what hosts and manager say to each other when a VM changes host."""

import pytest

from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import (
    MAX_PART,
    MAX_PARTS,
    Move,
    MoveAborted,
    MoveDone,
    MoveOffer,
    MoveOrder,
    MoveRefused,
    MoveState,
    MoveWanted,
    Step,
    decode,
    encode,
    in_parts,
)

ID, VM, VNIC = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
BINDING = Binding(VNIC, VM, "02:00:00:00:00:01", "tap0")


def offer(**fields: object) -> MoveOffer:
    given = {"source": "a", "target": "b", "source_key": b"a", "target_key": b"b", "vnics": (BINDING,)}
    return MoveOffer(ID, VM, **given | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "move",
    [
        offer(epoch=1, generation=9, running=True),
        MoveOrder(ID, VM, Step.EXPORT),
        MoveState(ID, VM, 0, 1, 2, b"\0\1"),
        MoveDone(ID, VM, Step.IMPORT, 1, 10_000, True),
        MoveRefused(ID, VM, Step.PREPARE, "no free slot"),
        MoveAborted(ID, VM, "cancelled"),
        MoveWanted(VM, (BINDING,)),
    ],
    ids=lambda move: type(move).__name__,
)
def test_what_is_said_is_heard(move: Move) -> None:
    """Each kind is known by itself."""
    assert decode(encode(move)) == move


@pytest.mark.parametrize("body", [b"", b"junk", b"\x81\xa4type\xa5offer", b"\xc1" * 100])
def test_what_is_no_move_is_refused(body: bytes) -> None:
    """With a reason, and no other end."""
    with pytest.raises(Refused, match=r"^move: "):
        decode(body)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"target": "a"}, "is the source"),
        ({"vnics": ()}, "vnics"),
        ({"vnics": (Binding(VNIC, ID, "", ""),)}, "not the VM that moves"),
        ({"vnics": (Binding("eth0", VM, "", ""),)}, r"vnics\[0\].vnic"),
    ],
)
def test_an_offer_that_contradicts_itself_is_refused(fields: dict[str, object], what: str) -> None:
    """The text names the field."""
    body = encode(offer()) if fields == {"vnics": ()} else b""
    with pytest.raises((Refused, ValueError), match=what):
        decode(body.replace(b"\xa5vnics\x91", b"\xa5vnics\x90")) if body else offer(**fields)


def test_a_round_travels_in_parts_that_hold_nobody_up() -> None:
    """No part is over 256 KiB, and together they are the round."""
    sealed = bytes(range(256)) * 4096
    parts = in_parts(ID, VM, 7, sealed)
    assert [(part.part, part.parts, part.round) for part in parts] == [(n, 4, 7) for n in range(4)]
    assert max(len(part.data) for part in parts) == MAX_PART
    assert b"".join(part.data for part in parts) == sealed
    with pytest.raises(Refused, match="over the limit"):
        in_parts(ID, VM, 0, bytes(MAX_PART * MAX_PARTS + 1))
