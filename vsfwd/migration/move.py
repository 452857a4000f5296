"""Moves that this host takes part in, one for each VM.

    source    prepare ──► export (while it runs) ──► freeze ──► export (what has changed since) ──► finish
    target    prepare ──► import, round after round ──────────► import of the last round ──► active
    both      abort, at any time before the end: the source goes on, the target forgets

`Leaving` and `Coming` are the two parts; here is which of them a VM is in, and what happens by itself. The
caller says to the manager, or to the hypervisor, what a step answers; what nobody has asked for goes to
`say`. What is refused has changed nothing. The kernel holds vNICs whoever dies: a daemon that has forgotten
a move still activates or aborts what it finds held."""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

import structlog

from vsfwd.datapath import DatapathError, Hold
from vsfwd.datapath.departed import KEPT_S
from vsfwd.incidents import Cause
from vsfwd.migration import sealed
from vsfwd.migration.coming import LOOK_S, Coming
from vsfwd.migration.here import Here
from vsfwd.migration.leaving import Leaving
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import Move, MoveDone, MoveOffer, MoveState, MoveWanted, Step, in_parts

log = structlog.get_logger(log="vsfwd.migration")

COMING: Final = (Hold.WAITING, Hold.HEARD, Hold.DEAD)
_ROUND: Final = struct.Struct("<H")
PERIOD_S: Final = 1.0
HELD_LONG_S: Final = 60.0
"""After which a vNIC that is held is an alarm. It stays held. One of no move that is not here loses its
slot."""
REMEMBERED: Final = 1000
"""Moves that are over, so that nothing begins them again."""
MAX_WANTED: Final = 64
"""VMs that are asked about at once: a host that has just started runs all of its own."""


class MoveStatus(NamedTuple):
    """`flows`: exported or imported so far. `held`: why nothing passes, by vNIC."""

    migration: str
    vm: str
    role: str
    step: str
    rounds: int
    flows: int
    held: dict[str, str]
    age_s: int


class Moves:
    def __init__(self, here: Here) -> None:
        self._here = here
        self.say: Callable[[Move], Awaitable[bool]] = _to_nobody
        """Takes what the manager has not asked for: that a VM runs here now, and whose state is missing.
        Answers whether the manager is told."""
        self._moves: dict[str, Leaving | Coming] = {}
        self._preparing: dict[str, MoveOffer] = {}
        self._woken = asyncio.Event()
        self._looking = asyncio.Lock()
        self._over: deque[str] = deque(maxlen=REMEMBERED)
        self._held_since: dict[str, float] = {}
        self._reserved_since: dict[str, float] = {}
        """vNICs of no move that have a slot and are not here."""
        self._left: set[str] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._known: set[str] | None = None
        self._unasked: dict[str, float] = {}
        """vNICs of which the manager is not told yet that they have come, and until when it helps."""

    # ---- steps. All raise Refused ----

    async def prepare(self, offer: MoveOffer, *, hooked: bool = False) -> MoveDone:
        """Gets ready for the part that this host has. `hooked`: the hypervisor asks, not the manager."""
        part = self._part(offer)
        if offer.vm in self._preparing:
            raise Refused(f"vm: {offer.vm} is getting ready for {self._preparing[offer.vm].migration}")
        self._preparing[offer.vm] = offer
        try:
            await self._make_way(offer, part)
            move = await part.prepare(self._here, offer, hooked)
            if offer.migration in self._over:
                await move.abort()
                raise Refused(f"migration: {offer.migration} was aborted meanwhile")
            self._moves[offer.vm] = move
        finally:
            del self._preparing[offer.vm]
        if isinstance(move, Leaving):
            self._left -= set(move.vnics)
        log.info("VM is about to move", migration=offer.migration, vm=offer.vm, part=part.role)
        return MoveDone(offer.migration, offer.vm, Step.PREPARE)

    async def freeze(self, vm: str) -> MoveDone:
        """At the source: from now on nothing passes, and no flow changes."""
        return await self._leaving(vm).freeze()

    def follow_up(self, frozen: MoveDone) -> None:
        """At the source: the manager hears that the VM is frozen, and is sent the last round, while the
        hypervisor goes on. What the kernel has is read before anything else changes there. Whatever becomes
        of the round, the manager hears the rest: the VM has stopped here, and may run there."""
        task = asyncio.create_task(self._follow_up(frozen), name=f"last round of {frozen.vm}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow_up(self, frozen: MoveDone) -> None:
        parts: tuple[MoveState, ...] = ()
        try:
            parts = await self.export(frozen.vm)
        except (DatapathError, Refused) as error:
            log.error("the last round is not exported", vm=frozen.vm, reason=str(error))
        except Exception as error:
            reason = f"internal error: {error!r}"
            log.error("the last round is not exported", vm=frozen.vm, reason=reason, exc_info=error)
        for part in parts:
            await self.say(part)
        await self.say(frozen)

    async def export(self, vm: str) -> tuple[MoveState, ...]:
        """At the source: the next round, sealed for the target, in parts. The one after the freeze is the
        last."""
        move = self._leaving(vm)
        number, sealed_ = await move.export()
        return in_parts(move.offer.migration, vm, number, sealed_)

    async def take(self, part: MoveState) -> MoveDone | None:
        """At the target: with the last part of a round, all of it is installed. None: there are more to
        come."""
        done = await self._coming(part.vm).take(part)
        self.wake()  # the VM may have been heard already
        return done

    async def activate(self, vm: str) -> MoveDone | None:
        """At the target: the VM runs here, and all that its policy allows passes. None: of a move that only
        the kernel knows."""
        if vm not in self._moves:
            found = await self._here.held_of(vm, *COMING)
            if not found:
                raise Refused(f"vm: {vm} is not about to come to this host")
            await self._here.hold(found, Hold.NONE)
            log.info("VM runs here, after a move that an earlier daemon began", vm=vm)
            return None
        move = self._coming(vm)
        done = await move.activate()
        self._end(move)
        return done

    async def finish(self, vm: str) -> None:
        """At the source: the VM runs elsewhere, and its flows here are gone."""
        move = self._leaving(vm)
        await move.finish()
        self._left |= set(move.vnics)
        self._end(move)

    async def abort(self, vm: str) -> None:
        """The VM stays where it is: at the source all is as before, at the target nothing of it is left."""
        if offer := self._preparing.get(vm):
            self._over.append(offer.migration)  # `prepare` undoes what it has done
        elif move := self._moves.get(vm):
            await self._abort(move)
        else:
            await self._here.hold(await self._here.held_of(vm, Hold.FROZEN), Hold.NONE)
            coming = await self._here.held_of(vm, *COMING)
            await self._here.clear(coming)
            await self._here.hold(coming, Hold.NONE)
        log.info("move aborted", vm=vm)

    async def _abort(self, move: Leaving | Coming) -> None:
        await move.abort()
        self._end(move)

    async def export_whole(self, vm: str) -> bytes:
        """At the source: a round for a channel of the hypervisor's."""
        number, whole = await self._leaving(vm).export()
        return _ROUND.pack(number) + whole

    async def take_whole(self, vm: str, whole: bytes) -> MoveDone:
        """At the target: such a round."""
        if len(whole) < _ROUND.size:
            raise Refused("state: not what a vsfwd exports")
        (number,) = _ROUND.unpack_from(whole)
        done = await self._coming(vm).take_round(number, whole[_ROUND.size :])
        self.wake()
        return done

    def of_manager(self, vm: str) -> str:
        """The id of a migration of which the manager has to hear the steps; empty: there is none."""
        move = self._moves.get(vm)
        return move.offer.migration if move and not move.hooked else ""

    def under_way(self, vm: str) -> str:
        """The id of the migration that the VM is in; empty: there is none."""
        if offer := self._preparing.get(vm):
            return offer.migration
        return self._moves[vm].offer.migration if vm in self._moves else ""

    def is_over(self, migration: str) -> bool:
        return migration in self._over

    @property
    def host(self) -> str:
        return self._here.host

    def key(self) -> bytes:
        """Of this host, as an offer has it."""
        return sealed.public_der(self._here.key().public_key())

    def status(self) -> list[MoveStatus]:
        held, now = self._here.datapath.held, time.monotonic()
        return [
            MoveStatus(
                move.offer.migration,
                vm,
                move.role,
                str(move.step),
                move.rounds,
                move.flows,
                {vnic: held[vnic].name.lower() for vnic in move.vnics if vnic in held},
                int(now - move.began),
            )
            for vm, move in self._moves.items()
        ]

    # ---- which move it is ----

    def _part(self, offer: MoveOffer) -> type[Leaving] | type[Coming]:
        parts: dict[str, type[Leaving] | type[Coming]] = {offer.source: Leaving, offer.target: Coming}
        part = parts.get(self._here.host)
        if part is None:
            raise Refused(f"offer: from {offer.source} to {offer.target}, and this is host {self._here.host}")
        if offer.migration in self._over:
            raise Refused(f"migration: {offer.migration} is over")
        keys = {"source": offer.source_key, "target": offer.target_key}
        for whose, der in keys.items():
            sealed.load_public(der, whose)
        if self.key() != keys[part.role]:
            raise Refused(f"key of the {part.role}: this host has another one")
        return part

    async def _make_way(self, offer: MoveOffer, part: type[Leaving] | type[Coming]) -> None:
        """A new move of a VM says what became of the one before."""
        before = self._moves.get(offer.vm)
        if before is None:
            return
        if before.offer.migration == offer.migration:
            raise Refused(f"migration: {offer.migration} is under way already")
        if isinstance(before, part) or (isinstance(before, Leaving) and before.step is not Step.FREEZE):
            await self._abort(before)  # of one that was never frozen nobody knows that it was there
        elif isinstance(before, Leaving):
            await self.finish(offer.vm)  # it comes back, so it was there
        elif not before.offer.running and not await before.is_alive():
            raise Refused("offer: the VM is still to come here, and is to leave")
        else:
            await self.activate(offer.vm)

    def _leaving(self, vm: str) -> Leaving:
        move = self._moves.get(vm)
        if not isinstance(move, Leaving):
            raise Refused(f"vm: {vm} is not about to leave this host")
        return move

    def _coming(self, vm: str) -> Coming:
        move = self._moves.get(vm)
        if not isinstance(move, Coming):
            raise Refused(f"vm: {vm} is not about to come to this host")
        return move

    def _end(self, move: Leaving | Coming) -> None:
        self._over.append(move.offer.migration)
        if self._known is not None and isinstance(move, Coming):
            self._known |= set(move.vnics)  # what has come since the last look, and was announced
        if self._moves.get(move.offer.vm) is move:
            del self._moves[move.offer.vm]

    # ---- what happens by itself ----

    async def watch(self) -> NoReturn:
        while True:
            try:
                await self.look()
            except (DatapathError, Refused) as error:
                log.error("moves not looked after; tried again", reason=str(error))
            coming = any(isinstance(move, Coming) for move in self._moves.values())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S if coming else PERIOD_S)
            self._woken.clear()

    def wake(self) -> None:
        """It is worth a look."""
        self._woken.set()

    async def look(self) -> None:
        """VMs that say themselves that they run here, vNICs that are here at last, and those that nobody
        announced. One look at a time: what it finds is said once."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        for move in list(self._moves.values()):
            try:
                if isinstance(move, Coming):
                    await self._look_after(move)
                is_late = time.monotonic() - move.began >= move.offer.lives_s
                if is_late and self._moves.get(move.offer.vm) is move:
                    await self._lose(move)
            except (DatapathError, Refused) as error:  # the others are looked after all the same
                log.error("move not looked after; tried again", vm=move.offer.vm, reason=str(error))
        await self._here.apply_thread(self._here.datapath.departed.expire)
        held, now = await self._here.held(), time.monotonic()
        self._left &= held.keys()
        left = {vnic for vnic in self._left if held[vnic] == Hold.FROZEN}
        self._held_since = {vnic: self._held_since.get(vnic, now) for vnic in held.keys() - left}
        await self._give_up_reserved()
        await self._ask_about_strangers()

    async def _give_up_reserved(self) -> None:
        """Slots of vNICs that no move brings any more: they have gone while they were held, or have not come
        when their VM did, or an earlier daemon knew why."""
        reserved, now = await self._here.reserved(), time.monotonic()
        expected = {vnic for move in self._moves.values() for vnic in move.vnics}
        expected |= {each.vnic for offer in self._preparing.values() for each in offer.vnics}
        since = self._reserved_since
        self._reserved_since = {vnic: since.get(vnic, now) for vnic in reserved - expected}
        late = [vnic for vnic, began in self._reserved_since.items() if now - began > HELD_LONG_S]
        if late:
            log.warning("vNICs have not come, and their slots are given up", vnics=late)
            await self._here.apply_thread(self._here.give_up, late)

    async def _look_after(self, move: Coming) -> None:
        try:
            await move.settle()
        except Refused as refused:
            log.error("what the VM takes along is not installed", vm=move.offer.vm, reason=str(refused))
            await move.forget()
        if await move.is_alive():
            done = await move.activate()
            self._end(move)
            if not move.hooked:
                await self.say(done)

    async def _lose(self, move: Leaving | Coming) -> None:
        """Nobody has said how it ended. At the target nothing is left of it: a VM that appears yet is one
        that nobody has announced. What is frozen at the source stays so, since the VM may run elsewhere. The
        manager's last word counts, should it come: the move is not over."""
        if isinstance(move, Coming):
            await move.abort()
        if self._moves.get(move.offer.vm) is move:
            del self._moves[move.offer.vm]
        lost = f"migration {move.offer.migration} is lost: its end is unknown after {move.offer.lives_s} s"
        log.error("move given up", vm=move.offer.vm, part=move.role, reason=lost)
        for vnic in move.vnics:
            self._here.incidents.note(failed(vnic), lost)

    async def _ask_about_strangers(self) -> None:
        """What their VMs had may be at another host, which keeps it for a while. Until then, whom the manager
        was not asked about is asked about later: there is no broker, there are many, or nobody has said yet
        which VM it is."""
        now, known, self._known = time.monotonic(), self._known, set(await self._here.attached())
        if known is None:
            return  # what was attached when the daemon came
        expected = {vnic for move in self._moves.values() for vnic in move.vnics}
        until = dict.fromkeys(self._known - known, now + KEPT_S) | self._unasked
        strange = {vnic: until[vnic] for vnic in self._known - expected if until.get(vnic, now) > now}
        self._unasked = strange
        by_vm: dict[str, list[Binding]] = {}
        for binding in self._here.bindings() if strange else ():
            if binding.vnic in strange and binding.vm and binding.vm not in self._moves:
                by_vm.setdefault(binding.vm, []).append(binding)
        for vm, found in list(by_vm.items())[:MAX_WANTED]:
            if await self.say(MoveWanted(vm, tuple(found))):
                for each in found:
                    del strange[each.vnic]

    def held_long(self) -> Mapping[str, str]:
        """vNICs that are held for longer than a move takes, and in words why."""
        now, held = time.monotonic(), self._here.datapath.held
        return {
            vnic: f"nothing has passed for {now - since:.0f} s, since its VM is "
            + ("leaving" if held[vnic] == Hold.FROZEN else "to come")
            for vnic, since in self._held_since.items()
            if now - since > HELD_LONG_S and vnic in held
        }


def failed(vnic: str) -> Cause:
    """The alarm, in NSX's words."""
    return Cause("dfw_vmotion_failure", "CRITICAL", vnic)


async def _to_nobody(move: Move) -> bool:
    log.debug("nobody is told", said=type(move).__name__)
    return False
