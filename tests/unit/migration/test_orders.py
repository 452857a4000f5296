"""What the manager says of moves is carried out, and what becomes of it is said to the manager."""

from typing import Any, cast
from uuid import uuid4

import pytest

from vsfwd.migration.move import Moves
from vsfwd.migration.orders import MoveOrders
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import (
    Move,
    MoveAborted,
    MoveDone,
    MoveOffer,
    MoveOrder,
    MoveRefused,
    MoveState,
    Step,
)
from vsfwd.relay import NotConnected

ID, VM, SOURCE, TARGET, VNIC = (str(uuid4()) for _ in range(5))
OFFER = MoveOffer(ID, VM, SOURCE, TARGET, b"s", b"t", (Binding(VNIC, VM, "02:00:00:00:00:01", "veth0"),))
PARTS = tuple(MoveState(ID, VM, 0, part, 2, b"x") for part in (0, 1))


class Stub:
    """Moves of which every step succeeds, or none."""

    def __init__(self, refusal: str = "") -> None:
        self.called: list[str] = []
        self.in_move = ID
        self.over: list[str] = []
        self._refusal = refusal

    async def _did(self, name: str, answer: Any = None) -> Any:
        self.called.append(name)
        if self._refusal:
            raise Refused(self._refusal)
        return answer

    async def prepare(self, offer: MoveOffer) -> Any:
        return await self._did("prepare", MoveDone(ID, VM, Step.PREPARE))

    async def freeze(self, vm: str) -> Any:
        return await self._did("freeze", MoveDone(ID, VM, Step.FREEZE))

    async def export(self, vm: str) -> Any:
        return await self._did("export", PARTS)

    async def take(self, part: MoveState) -> Any:
        done = MoveDone(ID, VM, Step.IMPORT, final=True) if part.part == 1 else None
        return await self._did("take", done)

    async def activate(self, vm: str) -> Any:
        return await self._did("activate", MoveDone(ID, VM, Step.ACTIVATE))

    async def finish(self, vm: str) -> None:
        await self._did("finish")

    async def abort(self, vm: str) -> None:
        await self._did("abort")

    def under_way(self, vm: str) -> str:
        return self.in_move

    def is_over(self, migration: str) -> bool:
        return migration in self.over

    async def look(self) -> None:
        await self._did("look")


async def after(moves: Stub, *said: Move) -> list[Move]:
    """What the manager hears."""
    heard: list[Move] = []

    async def tell(move: Move) -> None:
        heard.append(move)

    orders = MoveOrders(cast(Moves, moves), tell)
    for each in said:
        await orders.take(each)
    return heard


@pytest.mark.parametrize(
    ("said", "called", "heard"),
    [
        (OFFER, ["prepare"], [MoveDone(ID, VM, Step.PREPARE)]),
        (MoveOrder(ID, VM, Step.EXPORT), ["export"], [*PARTS]),
        (MoveOrder(ID, VM, Step.FREEZE), ["freeze", "export"], [*PARTS, MoveDone(ID, VM, Step.FREEZE)]),
        (PARTS[0], ["take"], []),
        (PARTS[1], ["take", "look"], [MoveDone(ID, VM, Step.IMPORT, final=True)]),
        (MoveOrder(ID, VM, Step.ACTIVATE), ["activate"], [MoveDone(ID, VM, Step.ACTIVATE)]),
        (MoveOrder(ID, VM, Step.FINISH), ["finish"], []),
        (MoveAborted(ID, VM, "by hand"), ["abort"], []),
        (MoveDone(ID, VM, Step.ACTIVATE), [], []),
    ],
)
async def test_each_word_of_the_manager_s_has_its_step(
    said: Move, called: list[str], heard: list[Move]
) -> None:
    """And each step its answer; what is for the manager to hear is heard by nobody here."""
    moves = Stub()
    assert await after(moves, said) == heard
    assert moves.called == called


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (OFFER, Step.PREPARE),
        (PARTS[1], Step.IMPORT),
        (MoveOrder(ID, VM, Step.FREEZE), Step.FREEZE),
        (MoveOrder(ID, VM, Step.IMPORT), Step.IMPORT),
        (MoveAborted(ID, VM, "by hand"), Step.ABORT),
    ],
)
async def test_o31_what_is_refused_is_said_with_its_reason(said: Move, step: Step) -> None:
    """So that the manager can call the move off."""
    (answer,) = await after(Stub("no slot is free"), said)
    assert isinstance(answer, MoveRefused)
    assert answer.step is step
    assert answer.reason


async def test_without_a_broker_steps_are_taken_all_the_same() -> None:
    """The VM does not wait for the manager."""

    async def tell(move: Move) -> None:
        raise NotConnected("no broker")

    moves = Stub()
    await MoveOrders(cast(Moves, moves), tell).take(MoveOrder(ID, VM, Step.ACTIVATE))
    assert moves.called == ["activate"]


async def test_o35_what_is_called_off_is_the_move_that_is_named() -> None:
    """And no other of that VM; what an earlier daemon began this one does not know by its id."""
    moves = Stub()
    await after(moves, MoveAborted(str(uuid4()), VM, "nobody has let the VM go"))
    assert moves.called == []
    moves.in_move, moves.over = "", [ID]
    await after(moves, MoveAborted(ID, VM, "it was over, and the VM has left"))
    assert moves.called == []
    await after(moves, MoveAborted(str(uuid4()), VM, "by hand"))
    assert moves.called == ["abort"]


async def test_an_order_is_for_the_move_that_it_names() -> None:
    """One that comes late ends no later move of that VM."""
    moves = Stub()
    moves.in_move = str(uuid4())
    (answer,) = await after(moves, MoveOrder(ID, VM, Step.FINISH))
    assert isinstance(answer, MoveRefused)
    assert moves.called == []
