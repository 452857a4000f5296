"""A move: a VM, from where, to where, and how far it has come. Pure.

preparing ──► prepared ──► frozen ──► transferred ──► active
    └────────────┴───────────┴────────────┴──► aborted, failed
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from manager_stub.hosts import vnics_of
from manager_stub.transaction import Row
from vsfwd.protocol.messages import Binding


class State(StrEnum):
    PREPARING = "preparing"
    """The target gets the policy, both hosts are asked, and a first round of what the VM takes along
    travels."""
    PREPARED = "prepared"
    """The VM may leave."""
    FROZEN = "frozen"
    """Nothing passes at the source any more; the last round travels."""
    TRANSFERRED = "transferred"
    """The target has all of it."""
    ACTIVE = "active"
    """The VM runs at the target."""
    ABORTED = "aborted"
    FAILED = "failed"


LIVES_S: Final[Mapping[State, float]] = {
    State.PREPARING: 20.0,
    State.PREPARED: 600.0,
    State.FROZEN: 60.0,
    State.TRANSFERRED: 60.0,
}
"""The states of a move that is not over, and how long one may last: memory of a VM takes minutes to copy,
what is frozen should take a second."""
LONGEST_S: Final = int(sum(LIVES_S.values()))

ARRIVES_S: Final = 60
"""Within which a host says which vNICs it has."""
KEPT: Final = 1000
"""Moves; the oldest that are over go."""


@dataclass(frozen=True)
class Move:
    """`vnics` as they were plugged at the source. `flows`: how many the target has taken over; `bytes`:
    of state that have passed. `pulled`: nobody said beforehand that the VM would move."""

    id: str
    vm: str
    source: str
    target: str
    vnics: tuple[Binding, ...]
    user: str
    begun_ms: int
    changed_ms: int
    state: State = State.PREPARING
    reason: str = ""
    flows: int = 0
    bytes: int = 0
    pulled: bool = False

    @property
    def is_open(self) -> bool:
        return self.state in LIVES_S

    @property
    def expires_ms(self) -> int:
        """0 when it is over."""
        return self.changed_ms + int(LIVES_S[self.state] * 1000) if self.is_open else 0

    def at(self, state: State, now_ms: int, reason: str = "") -> "Move":
        return replace(self, state=state, changed_ms=now_ms, reason=reason)


def move_row(move: Move) -> Row:
    return {**vars(move), "vnics": msgspec.json.encode(move.vnics).decode(), "state": str(move.state)}


def stored_move(row: Row) -> Move:
    vnics = msgspec.json.decode(row["vnics"], type=tuple[Binding, ...])
    return Move(**{**row, "vnics": vnics, "state": State(row["state"])})


def told(move: Move) -> dict[str, Any]:
    """As the audit log has it."""
    fields = ("vm", "source", "target", "state", "reason", "flows", "bytes", "pulled")
    return {field: getattr(move, field) for field in fields}


def arriving(moves: Mapping[str, Move], said: Mapping[str, Iterable[Binding]], now_ms: int) -> set[str]:
    """Moves that are over, and whose target has not said yet that the vNICs are plugged there: its word that
    the VM runs may be heard before that."""
    return {
        id
        for id, move in moves.items()
        if move.state is State.ACTIVE
        and now_ms < move.changed_ms + ARRIVES_S * 1000
        and not vnics_of(move.vnics) <= vnics_of(said.get(move.target, ()))
    }


def expected(moves: Mapping[str, Move], arriving: Set[str]) -> dict[str, frozenset[str]]:
    """By host, the vNICs that are about to be plugged there."""
    found: dict[str, frozenset[str]] = {}
    for move in moves.values():
        if move.is_open or move.id in arriving:
            found[move.target] = found.get(move.target, frozenset()) | vnics_of(move.vnics)
    return found
