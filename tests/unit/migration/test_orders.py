"""What the manager says of moves is carried out, and what becomes of it is said to the manager."""

import asyncio
from typing import Any, cast
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from tests.harness.waiting import eventually
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
    MoveWanted,
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
    await eventually(lambda: not orders._under_way, "what was under way", 20)
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


class Slow(Stub):
    """An offer takes as long as `policy` is not here."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = asyncio.Event()

    async def prepare(self, offer: MoveOffer) -> Any:
        self.called.append("preparing")
        self.in_move = offer.migration
        await self.policy.wait()
        return await self._did("prepared", MoveDone(offer.migration, VM, Step.PREPARE))


async def test_nobody_waits_for_another_vm_s_offer() -> None:
    """It may take ten seconds, until its policy is here. What is said of its own VM meanwhile waits its turn,
    but that it does not take place after all."""
    moves, heard = Slow(), list[Move]()

    async def tell(move: Move) -> None:
        heard.append(move)

    orders = MoveOrders(cast(Moves, moves), tell)
    await orders.take(OFFER)
    await eventually(lambda: moves.called == ["preparing"], "the offer", 20)
    await orders.take(MoveOrder(ID, VM, Step.EXPORT))
    await orders.take(MoveOrder(ID, VM, Step.FINISH))
    await orders.take(MoveOrder(ID, str(uuid4()), Step.ACTIVATE))
    await orders.take(MoveAborted(ID, VM, "by hand"))
    assert moves.called == ["preparing", "activate", "abort"]
    moves.policy.set()
    await eventually(lambda: not orders._under_way, "what waited", 20)
    assert moves.called[3:] == ["prepared", "export", "finish"]
    assert heard[1:] == [MoveDone(ID, VM, Step.PREPARE), *PARTS]


async def test_what_is_said_after_an_offer_waits_for_what_waited_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The offer is over, but not what came second: the third comes after that."""
    moves, exported = Slow(), asyncio.Event()

    async def export(vm: str) -> Any:
        await moves._did("exporting")
        await exported.wait()
        return await moves._did("exported", PARTS)

    monkeypatch.setattr(moves, "export", export)
    orders = MoveOrders(cast(Moves, moves), AsyncMock())
    for said in (OFFER, MoveOrder(ID, VM, Step.EXPORT)):
        await orders.take(said)
    moves.policy.set()
    await eventually(lambda: "exporting" in moves.called, "the export", 20)
    await orders.take(MoveOrder(ID, VM, Step.FINISH))
    exported.set()
    await eventually(lambda: "finish" in moves.called, "the end", 20)
    assert moves.called == ["preparing", "prepared", "exporting", "exported", "finish"]
    await eventually(lambda: not orders._under_way, "what waited", 20)


async def test_o35_a_move_that_is_called_off_before_its_turn_is_called_off_in_it() -> None:
    """It is not the one that is being prepared, and that goes on."""
    moves, later = Slow(), str(uuid4())
    orders = MoveOrders(cast(Moves, moves), AsyncMock())
    for said in (OFFER, structs.replace(OFFER, migration=later)):
        await orders.take(said)
    await eventually(lambda: moves.called == ["preparing"], "the first offer", 20)
    await orders.take(MoveAborted(later, VM, "by hand"))
    moves.policy.set()
    await eventually(lambda: not orders._under_way, "what waited", 20)
    assert moves.called == ["preparing", "prepared", "preparing", "prepared", "abort"]


async def test_a_mistake_of_ours_ends_one_step_only() -> None:
    """O41. The manager hears of it, and does not wait for the time of the step; it is logged, and the VM's
    next step is taken."""
    moves = Stub()

    async def fails(offer: MoveOffer) -> Any:
        raise KeyError("no such vNIC")

    moves.prepare = fails  # type: ignore[method-assign]
    with capture_logs() as lines:
        heard = await after(moves, OFFER, MoveOrder(ID, VM, Step.FINISH))
    assert moves.called == ["finish"]
    assert heard == [MoveRefused(ID, VM, Step.PREPARE, "internal error: KeyError('no such vNIC')")]
    assert ["KeyError" in str(line["reason"]) for line in lines] == [True]


async def test_without_a_broker_steps_are_taken_all_the_same() -> None:
    """The VM does not wait for the manager."""

    async def tell(move: Move) -> None:
        raise NotConnected("no broker")

    moves = Stub()
    await MoveOrders(cast(Moves, moves), tell).take(MoveOrder(ID, VM, Step.ACTIVATE))
    assert moves.called == ["activate"]


async def test_who_says_something_hears_whether_the_manager_is_told() -> None:
    """A host that is told of no VM by anybody asks again."""
    heard: list[Move] = []

    async def tell(move: Move) -> None:
        if heard:
            raise NotConnected("no broker")
        heard.append(move)

    orders = MoveOrders(cast(Moves, Stub()), tell)
    assert [await orders.say(MoveWanted(VM, ())) for _ in range(2)] == [True, False]


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
