"""What the manager says of moves, carried out by `move.Moves`, and what becomes of it said to the manager.

An offer takes as long as the policy that it names: what is said of other VMs is carried out meanwhile; what
is said of its own VM waits for it, unless it is that the move does not take place.

A host that has no broker at the moment goes on all the same: the manager finds out by the time that a step
may take, and the VM is the hypervisor's."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from vsfwd.datapath import DatapathError
from vsfwd.migration.move import Moves
from vsfwd.protocol.envelope import Refused
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

log = structlog.get_logger(log="vsfwd.migration")

_Said = MoveOffer | MoveOrder | MoveState | MoveAborted


class MoveOrders:
    """`tell` says something to the manager; it raises NotConnected."""

    def __init__(self, moves: Moves, tell: Callable[[Move], Awaitable[None]]) -> None:
        self._moves = moves
        self._tell = tell
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By VM: the last of what waits for an offer of it, or the offer."""
        moves.say = self.say

    async def take(self, said: Move) -> None:
        """From the manager."""
        if not isinstance(said, _Said):
            log.error("not for a host to hear", said=type(said).__name__)
            return
        before = self._under_way.get(said.vm)
        ends = isinstance(said, MoveAborted) and said.migration == self._moves.under_way(said.vm)
        if isinstance(said, MoveOffer) or (before and not ends):
            task = asyncio.create_task(self._in_turn(before, said), name=f"migration of {said.vm}")
            self._under_way[said.vm] = task
        else:
            await self._take(said)

    async def _in_turn(self, before: asyncio.Task[None] | None, said: _Said) -> None:
        if before:
            await asyncio.wait([before])
        try:
            await self._take(said)
        except Exception as error:
            log.error("migration: a mistake of ours", vm=said.vm, reason=repr(error), exc_info=error)
        finally:
            if self._under_way[said.vm] is asyncio.current_task():
                del self._under_way[said.vm]

    async def _take(self, said: _Said) -> None:
        step = _step(said)
        try:
            answers = await self._carry_out(step, said)
        except (Refused, DatapathError) as refused:
            log.error("step of a migration refused", vm=said.vm, step=str(step), reason=str(refused))
            answers = [MoveRefused(said.migration, said.vm, step, str(refused))]
        except Exception as error:
            reason = f"internal error: {error!r}"
            log.error(
                "step of a migration refused", vm=said.vm, step=str(step), reason=reason, exc_info=error
            )
            answers = [MoveRefused(said.migration, said.vm, step, reason)]
        for answer in answers:
            await self.say(answer)
        if any(isinstance(answer, MoveDone) and answer.final for answer in answers):
            with suppress(Refused, DatapathError):
                await self._moves.look()  # the VM may have been heard before

    async def say(self, said: Move) -> bool:
        """Whether the manager is told."""
        try:
            await self._tell(said)
        except NotConnected as error:
            log.warning("the manager is not told of a migration", said=type(said).__name__, reason=str(error))
            return False
        return True

    async def _carry_out(self, step: Step, said: _Said) -> Sequence[Move]:
        moves, vm = self._moves, said.vm
        if isinstance(said, MoveOffer):
            return [await moves.prepare(said)]
        if isinstance(said, MoveState):
            done = await moves.take(said)
            return [done] if done else []
        under_way = moves.under_way(vm)
        if isinstance(said, MoveAborted):
            # Where none is under way, an earlier daemon may have begun it.
            if said.migration == under_way or not (under_way or moves.is_over(said.migration)):
                await moves.abort(vm)
            return []
        if under_way and said.migration != under_way:
            raise Refused(f"migration: the VM is in {under_way} by now")
        if step is Step.EXPORT:
            return await moves.export(vm)
        if step is Step.FREEZE:
            frozen = await moves.freeze(vm)
            return [*await moves.export(vm), frozen]
        if step is Step.ACTIVATE:
            done = await moves.activate(vm)
            return [done] if done else []
        if step is Step.FINISH:
            await moves.finish(vm)
            return []
        raise Refused(f"step: {step} is not for the manager to order")


def _step(said: _Said) -> Step:
    if isinstance(said, MoveOffer):
        return Step.PREPARE
    if isinstance(said, MoveAborted):
        return Step.ABORT
    return said.step if isinstance(said, MoveOrder) else Step.IMPORT
