"""What hosts and manager say to each other when a VM changes host.

- manager to both: MoveOffer, who moves where; the target gets ready, or refuses
- manager to a host: MoveOrder, to freeze, export, activate or finish
- source to manager to target: MoveState, what the VM takes along, in parts, sealed for the target
- host to manager: MoveDone, a step is done; MoveRefused, it is not, and why
- either way: MoveAborted, it does not take place: the source goes on, the target forgets
- host to manager: MoveWanted, a VM has appeared whose state may be elsewhere

To hosts it travels on the queues for everything else (`topology.app_queue`), to the manager on one of its own
(`topology.MOVE_QUEUE`): bulk never delays policy. In
msgpack, since JSON would make the bytes of a state a third longer. What the parts of a state hold is the
two hosts' matter (`vsfwd.migration`): the manager passes them on and cannot read them."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from vsfwd.policy.model import is_uuid
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding

MAX_PART: Final = 256 * 1024
"""Bytes of state in one message, so that no other waits long behind it."""
MAX_PARTS: Final = 128
"""Of one round: 32 MiB, some 600,000 flows."""
MAX_VNICS: Final = 10
"""Of a VM: ESXi."""
MAX_ROUNDS: Final = 64
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Key = Annotated[bytes, msgspec.Meta(max_length=256)]


class Step(StrEnum):
    """Of a move, in their order. `ABORT` may come at any time before the end: it is said by MoveAborted, not
    by an order, and named where a host refuses that."""

    PREPARE = "prepare"
    FREEZE = "freeze"
    EXPORT = "export"
    IMPORT = "import"
    ACTIVATE = "activate"
    FINISH = "finish"
    ABORT = "abort"


class _Of(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`migration` is the id of one move, never used again; `vm` the VM that moves."""

    migration: str
    vm: str

    def __post_init__(self) -> None:
        for field in ("migration", "vm"):
            _check_uuid(field, getattr(self, field))


class MoveOffer(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="offer"):
    """To both hosts. `vnics` as they are plugged at the source. The keys are those of the hosts'
    certificates (SubjectPublicKeyInfo, DER): the source signs with its own and seals for the target's.
    `epoch` and `generation`: the oldest policy of the target under which the VM may run there. `running`:
    the VM runs at the target already, since nobody announced the move. `lives_s`: a host that has not heard
    by then how it ended does not wait any longer."""

    source: str
    target: str
    source_key: _Key
    target_key: _Key
    vnics: Annotated[tuple[Binding, ...], msgspec.Meta(min_length=1, max_length=MAX_VNICS)]
    epoch: _Number = 0
    generation: _Number = 0
    running: bool = False
    lives_s: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 900

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == self.target:
            raise ValueError(f"target: {self.target!r} is the source")
        for number, binding in enumerate(self.vnics):
            _check_uuid(f"vnics[{number}].vnic", binding.vnic)
            if binding.vm != self.vm:
                raise ValueError(f"vnics[{number}].vm: {binding.vm!r} is not the VM that moves")


class MoveOrder(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="order"):
    """The manager, to one of the hosts: do `step`, one of freeze, export, activate and finish."""

    step: Step


class MoveState(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="state"):
    """Part `part` of the `parts` of a round, sealed and signed as a whole."""

    round: Annotated[int, msgspec.Meta(ge=0, lt=MAX_ROUNDS)]
    part: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTS)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTS)]
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_PART)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part >= self.parts:
            raise ValueError(f"part: {self.part} of {self.parts}")


class MoveDone(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="done"):
    """A host: `step` is done. `round` and `flows`: of an export or import. `final`: it was the last round,
    made after the freeze."""

    step: Step
    round: _Number = 0
    flows: _Number = 0
    final: bool = False


class MoveRefused(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="refused"):
    """A host: `step` is not done, nothing has changed, and `reason` says why, for people."""

    step: Step
    reason: str


class MoveAborted(_Of, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="aborted"):
    """The move does not take place."""

    reason: str


class MoveWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="wanted"):
    """A host: this VM's vNICs have appeared here, and nobody has said that they would. If they were at
    another host, their state may be there."""

    vm: str
    vnics: Annotated[tuple[Binding, ...], msgspec.Meta(min_length=1, max_length=MAX_VNICS)]


Move = MoveOffer | MoveOrder | MoveState | MoveDone | MoveRefused | MoveAborted | MoveWanted
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Move] = msgspec.msgpack.Decoder(Move)


def encode(move: Move) -> bytes:
    return _encoder.encode(move)


def decode(body: bytes) -> Move:
    """Raises Refused."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Refused(f"move: {error}") from None


def in_parts(migration: str, vm: str, round: int, sealed: bytes) -> tuple[MoveState, ...]:
    """A round as it travels. Raises Refused when it is too large for the wire."""
    if len(sealed) > MAX_PARTS * MAX_PART:
        raise Refused(f"state: {len(sealed)} bytes are over the limit of {MAX_PARTS * MAX_PART}")
    chunks = [sealed[at : at + MAX_PART] for at in range(0, len(sealed), MAX_PART)]
    return tuple(
        MoveState(migration, vm, round, part, len(chunks), chunk) for part, chunk in enumerate(chunks)
    )


def _check_uuid(field: str, value: str) -> None:
    if not is_uuid(value):
        raise ValueError(f"{field}: {value[:64]!r} is not a UUID in lower case")
