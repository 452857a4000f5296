"""All moves, and the one way to bring one forward: by what an operator asks, and by what its two hosts say.

A move that cannot take place is vetoed before anything happens to the VM. One that has begun is kept, so a
manager that is started anew goes on with it; only what was still being prepared has failed then. A host is
believed about moves that it is part of, in its part: the source gives state, the target takes it.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import uuid4

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from manager_stub import audit
from manager_stub.checks import Conflict, Refused
from manager_stub.clock import now_ms
from manager_stub.enrolment.credentials import Credentials
from manager_stub.hosts import vnics_of
from manager_stub.levels import Position
from manager_stub.moves.letters import Letters
from manager_stub.moves.move import (
    KEPT,
    LONGEST_S,
    Move,
    State,
    arriving,
    expected,
    move_row,
    stored_move,
    told,
)
from manager_stub.presence import Presence
from manager_stub.register import Register
from manager_stub.reports import BadReport, plain
from manager_stub.store import Store
from manager_stub.vnics import Vnics
from vsfwd.policy.model import MAX_HOST_VNICS
from vsfwd.protocol import migration
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import (
    MoveAborted,
    MoveDone,
    MoveOffer,
    MoveOrder,
    MoveRefused,
    MoveState,
    MoveWanted,
    Step,
)

log = structlog.get_logger("manager.moves")

MAX_OPEN: Final = 64
"""Moves at once."""
MAX_BYTES: Final = 2 * migration.MAX_PARTS * migration.MAX_PART
"""Of state that one move may send: all of it once, and as much again in later rounds."""
MAX_WAITING: Final = 64 * 1024 * 1024
"""Bytes that wait to be sent, of all moves."""
LIVES_S: Final = 60
"""Of what hosts are told: the next word makes good what one that was away has missed."""
OFFER_LIVES_S: Final = LONGEST_S + LIVES_S
"""By then hosts have heard how it ended."""
PART_OF: Final = {
    Step.FREEZE: "source",
    Step.EXPORT: "source",
    Step.IMPORT: "target",
    Step.ACTIVATE: "target",
}
"""Whose steps these are; the others are of both."""
ORDERED_IN: Final = {Step.FREEZE: State.PREPARED, Step.ACTIVATE: State.TRANSFERRED}
"""What may be ordered by hand, and when."""


@dataclass
class _Way:
    """Of an open move, what need not be kept: the policy that the target is to have, whether the hosts were
    asked, which of them are ready, and whether the VM runs at the target: by the target's word, which counts
    when the source has frozen it. `passed`: the part of the state that went on last: its round, its number,
    of how many."""

    floor: Position
    asked: bool = False
    ready: set[str] = field(default_factory=set)
    passed: tuple[int, int, int] = (-1, -1, 0)
    runs: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Moves:
    def __init__(
        self, store: Store, register: Register, vnics: Vnics, presence: Presence, credentials: Credentials
    ) -> None:
        self._store = store
        self._register = register
        self._vnics = vnics
        self._presence = presence
        self._credentials = credentials
        self.letters = Letters()
        """What is to be sent."""
        self.wanted: Callable[[str, MoveWanted], None] = lambda host, said: None
        """Called with a host where a VM has appeared that nobody announced."""
        self.moves = {row["id"]: stored_move(row) for row in store.moves()}
        """All that are kept, the oldest first."""
        self._arriving = arriving(self.moves, self._said(), now_ms())
        """Moves that are over, and whose target has not said yet that it has the vNICs."""
        self._ways = {id: _Way(Position(0, 0, "")) for id, move in self.moves.items() if move.is_open}
        register.applied = self._policy_applied
        for move in list(self.moves.values()):
            if move.state is State.PREPARING:
                self._end(move, State.FAILED, "the manager was started anew")

    # By hand

    def begin(self, vm: str, target: str) -> Move:
        """Raises Refused, and nothing has happened."""
        hosts = self._register.hosts
        if f"/vsfw/vms/{vm}" not in self._register.world.vms:
            raise Refused("vm", f"there is no VM {vm}")
        if target not in hosts:
            raise Refused("target", f"there is no host {target}")
        source = next((id for id, host in hosts.items() if any(b.vm == vm for b in host.bindings)), None)
        if source is None:
            raise Conflict("vm", f"VM {self._vm_called(vm)} is plugged nowhere")
        if source == target:
            raise Conflict("target", f"VM {self._vm_called(vm)} is on host {self._called(target)} already")
        vnics = tuple(each for each in hosts[source].bindings if each.vm == vm)
        return self._begin(vm, source, target, vnics)

    def pull(self, vm: str, source: str, target: str, vnics: tuple[Binding, ...]) -> Move:
        """The VM runs at the target already. A move that was to bring its vNICs to the source is over: it has
        been there, and nobody froze it where it had been before. Raises Conflict, and no move is over."""
        there = vnics_of(vnics)
        for move in self._open():
            led_there = move.target == source and there & vnics_of(move.vnics)
            if move.vm == vm and led_there and move.state in (State.PREPARING, State.PREPARED):
                return self._begin(vm, source, target, vnics, pulled=True, past=move)
        return self._begin(vm, source, target, vnics, pulled=True)

    def _begin(
        self,
        vm: str,
        source: str,
        target: str,
        vnics: tuple[Binding, ...],
        *,
        pulled: bool = False,
        past: Move | None = None,
    ) -> Move:
        """`past`: a move that is over if this one begins."""
        others = [each for each in self._open() if each is not past]
        if moving := next((each for each in others if each.vm == vm), None):
            where = f"to {self._called(moving.target)} ({moving.id})"
            raise Conflict("vm", f"VM {self._vm_called(vm)} is moving already, {where}")
        for field_, host in (("vm", source), ("target", target)):
            # Who asks for what a VM had is there, whatever the broker has told so far.
            if self._presence.is_up(host) is False and not (pulled and host == target):
                raise Conflict(field_, f"host {self._called(host)} is down")
            if self._credentials.public_key(host) is None:
                raise Conflict(field_, f"the key of host {self._called(host)} is not known; enrol it anew")
        if problem := self._register.hosts[target].problem:
            raise Conflict("target", f"host {self._called(target)} cannot have its policy: {problem}")
        there = len(self._register.hosts[target].vnics | vnics_of(vnics))
        if there > MAX_HOST_VNICS:
            raise Conflict(
                "target", f"host {self._called(target)} would have {there} vNICs of {MAX_HOST_VNICS}"
            )
        if len(vnics) > migration.MAX_VNICS:
            raise Conflict("vm", f"{len(vnics)} vNICs are more than the {migration.MAX_VNICS} that can move")
        if len(others) >= MAX_OPEN:
            raise Conflict("", f"{MAX_OPEN} VMs are moving already")
        now, user = now_ms(), audit.actor.get()
        move = Move(str(uuid4()), vm, source, target, vnics, user, now, now, pulled=pulled)
        self._register.expect(expected({**self.moves, move.id: move}, self._arriving))
        level = self._register.hosts[target].level
        self._ways[move.id] = _Way(level.wanted_position)
        self._keep(move, None)
        if past:
            self._end(past, State.ABORTED, "the VM is elsewhere by now")
        self._policy_applied([target])
        return self.moves[move.id]

    async def prepared(self, id: str) -> Move:
        """The move, when it is not being prepared any more."""
        while (move := self.moves[id]).state is State.PREPARING and (way := self._ways.get(id)):
            way.changed.clear()
            await way.changed.wait()
        return move

    def order(self, id: str, step: Step) -> Move:
        """The manager's word in place of the hypervisor's, or of the VM's. Raises Conflict."""
        move = self.moves[id]
        if move.state is not ORDERED_IN[step]:
            reason = f"the migration is {move.state}, and {step} is for one that is {ORDERED_IN[step]}"
            raise Conflict("", reason)
        self.letters.add(getattr(move, PART_OF[step]), MoveOrder(move.id, move.vm, step))
        return move

    def abort(self, id: str, reason: str = "aborted by hand") -> Move:
        """Raises Conflict when it is over."""
        move = self.moves[id]
        if not move.is_open:
            raise Conflict("", f"the migration is {move.state}")
        return self._end(move, State.ABORTED, reason)

    def expire(self) -> None:
        """Moves that take too long; VMs that run at their target while the source is not there to say that it
        has let them go."""
        now = now_ms()
        for move in list(self._open()):
            if move.expires_ms <= now:
                seconds = round((now - move.changed_ms) / 1000)
                self._end(move, State.FAILED, f"it was {move.state} for {seconds} s{self._awaited(move)}")
        # Of each VM the last one: before that it may have come from there, a moment ago.
        for move in {move.vm: move for move in self.moves.values()}.values():
            if move.state is State.ACTIVE and now < move.changed_ms + LIVES_S * 1000:
                self._vnics.arrived(move.target, vnics_of(move.vnics))
        if self._arriving:
            self._expect()

    def _awaited(self, move: Move) -> str:
        """Whose word was missing, where that is known."""
        way = self._ways[move.id]
        if move.state is not State.PREPARING:
            return ""
        if not way.asked:
            return f"; {self._called(move.target)} has not said that it has the policy"
        silent = [host for host in (move.source, move.target) if host not in way.ready]
        return f"; no answer of {' and '.join(map(self._called, silent))}" if silent else ""

    # By hosts

    def heard(self, host: str, said: migration.Move) -> bool:
        """Whether it was of use. Raises BadReport."""
        if isinstance(said, MoveWanted):
            self.wanted(host, said)
            return False  # one that asks and asks floods, whatever it is answered
        move = self.moves.get(said.migration)
        if move is None or said.vm != move.vm or host not in (move.source, move.target):
            raise BadReport(f"a migration that it is no part of: {said.migration}", host)
        if not move.is_open:
            log.info("said of a migration that is over", migration=move.id, host=host)
            if not isinstance(said, MoveRefused | MoveAborted):  # which it may say of what it is told here
                self._remind(host, move)
            return False
        if isinstance(said, MoveState) and host == move.source:
            return self._relay(move, said)
        elif isinstance(said, MoveDone):
            return self._done(move, host, said)
        elif isinstance(said, MoveRefused):
            self._end(move, State.FAILED, f"{self._called(host)} does not {said.step}: {plain(said.reason)}")
        elif isinstance(said, MoveAborted):
            self._end(move, State.ABORTED, f"by {self._called(host)}: {plain(said.reason)}")
        else:
            raise BadReport(f"{type(said).__name__}: not its part of a migration", host)
        return True

    def spoke(self, host: str) -> None:
        """It says something. What it was told and has not taken in LIVES_S is gone: one that was away for
        longer hears what became of its moves meanwhile."""
        known = self._register.hosts.get(host)
        if known is None or now_ms() < known.last_seen_ms + LIVES_S * 1000:
            return
        for move in list(self.moves.values()):
            if host in (move.source, move.target) and move.changed_ms >= known.last_seen_ms:
                self._remind(host, move)

    def _remind(self, host: str, move: Move) -> None:
        """Of what became of a move. Not, if the VM has begun another one since."""
        if (
            not move.is_open
            and [each.id for each in self.moves.values() if each.vm == move.vm][-1] == move.id
        ):
            self._tell_outcome(host, move)

    def _relay(self, move: Move, part: MoveState) -> bool:
        """Whether it goes on with the state."""
        way = self._ways[move.id]
        if not _is_next(part, *way.passed):
            return False
        way.passed = part.round, part.part, part.parts
        move = self.moves[move.id] = replace(move, bytes=move.bytes + len(part.data))
        if move.bytes > MAX_BYTES:
            self._end(move, State.FAILED, f"its state is more than {MAX_BYTES} bytes")
        elif self.letters.bytes + len(part.data) > MAX_WAITING:
            self._end(move, State.FAILED, f"{self.letters.bytes} bytes of all moves wait to be sent already")
        else:
            self.letters.add(move.target, part, state_of=move.id)
        return True

    def shut_out(self, host: str) -> None:
        """It floods: what it has said of states, and waits to be sent, is left."""
        self.letters.leave({move.id for move in self._open() if move.source == host})

    def _done(self, move: Move, host: str, done: MoveDone) -> bool:
        """Whether it changes anything."""
        way = self._ways[move.id]
        _check_part(done.step, host, move)
        if not _is_news(done, host, move, way):
            return False
        if done.step is Step.PREPARE:
            way.ready.add(host)
            if way.ready == {move.source, move.target}:
                first = Step.FREEZE if move.pulled else Step.EXPORT
                self.letters.add(move.source, MoveOrder(move.id, move.vm, first))
        elif done.step is Step.FREEZE:
            self._at(move, State.FROZEN)
            if way.runs:
                self._end(self.moves[move.id], State.ACTIVE)
        elif done.step is Step.IMPORT:
            took = replace(move, flows=done.flows)
            if done.final:
                self._at(took, State.TRANSFERRED)
                if move.pulled:
                    self.letters.add(move.target, MoveOrder(move.id, move.vm, Step.ACTIVATE))
            elif move.state is State.PREPARING:
                self._at(took, State.PREPARED)
        elif done.step is Step.ACTIVATE:
            if move.pulled or move.state in (State.FROZEN, State.TRANSFERRED):
                self._end(move, State.ACTIVE)
            way.runs = True
        return True

    def _policy_applied(self, hosts: Collection[str]) -> None:
        """Of moves whose target has the policy now, both hosts are asked."""
        for move in list(self._open()):
            way = self._ways[move.id]
            if move.state is not State.PREPARING or move.target not in hosts or way.asked:
                continue
            host = self._register.hosts[move.target]
            coming = vnics_of(move.vnics)
            refused = [each.reason for each in host.refusals if each.kind == "vnics" and each.id in coming]
            if refused:
                self._end(move, State.FAILED, f"{self._called(move.target)} refuses the policy: {refused[0]}")
            elif _has(host.level.applied, way.floor):
                way.asked = True
                for each in (move.target, move.source):
                    self.letters.add(each, self._offer(move, way.floor))

    # What follows

    def _offer(self, move: Move, floor: Position) -> MoveOffer:
        return MoveOffer(
            move.id,
            move.vm,
            move.source,
            move.target,
            self._key_of(move.source),
            self._key_of(move.target),
            move.vnics,
            floor.epoch,
            floor.generation,
            move.pulled,
            OFFER_LIVES_S,
        )

    def _key_of(self, host: str) -> bytes:
        key = self._credentials.public_key(host)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if key else b""

    def _at(self, move: Move, state: State) -> None:
        self._keep(move.at(state, now_ms()), self.moves[move.id])
        self._ways[move.id].changed.set()

    def _end(self, move: Move, state: State, reason: str = "") -> Move:
        over = move.at(state, now_ms(), reason)
        self._keep(over, move)
        self.letters.leave({move.id})
        if state is State.ACTIVE:
            self._vnics.arrived(move.target, vnics_of(move.vnics))
            self._arriving.add(move.id)
        for host in (move.source, move.target):
            self._tell_outcome(host, over)
        self._ways.pop(move.id).changed.set()
        self._expect()
        return over

    def _expect(self) -> None:
        """A host has the policy of a vNIC that is to come until it says that it is there."""
        self._arriving &= arriving(self.moves, self._said(), now_ms())
        self._register.expect(expected(self.moves, self._arriving))

    def _said(self) -> dict[str, tuple[Binding, ...]]:
        return {id: host.bindings for id, host in self._register.hosts.items()}

    def _tell_outcome(self, host: str, move: Move) -> None:
        if move.state is not State.ACTIVE:
            self.letters.add(host, MoveAborted(move.id, move.vm, move.reason))
        elif host == move.source:
            self.letters.add(host, MoveOrder(move.id, move.vm, Step.FINISH))

    def _keep(self, move: Move, before: Move | None) -> None:
        path = f"/vsfw/migrations/{move.id}"
        changed = audit.change(path, told(before) if before else None, told(move), now_ms())
        over = [id for id, each in self.moves.items() if id != move.id and not each.is_open]
        surplus = over[: max(0, len(self.moves.keys() | {move.id}) - KEPT)]
        with self._store.begin() as transaction:
            transaction.put_move(move_row(move))
            transaction.delete_moves(surplus)
            transaction.add_changes([changed])
        self.moves = {id: each for id, each in self.moves.items() if id not in surplus} | {move.id: move}
        log.info("migration", id=move.id, vm=move.vm, state=str(move.state), reason=move.reason)

    def decline(self, host: str, vm: str, reason: str) -> None:
        """A move that a host wants does not take place."""
        self.letters.add(host, MoveAborted(str(uuid4()), vm, reason))

    def _open(self) -> list[Move]:
        return [move for move in self.moves.values() if move.is_open]

    def _vm_called(self, vm: str) -> str:
        known = self._register.world.vms.get(f"/vsfw/vms/{vm}")
        return known.name if known and known.name else vm

    def _called(self, host: str) -> str:
        known = self._register.hosts.get(host)
        return known.display_name if known else host


def _has(applied: Position, floor: Position) -> bool:
    """A later generation of the same epoch has it too: what is expected stays until the move is over."""
    return applied.epoch == floor.epoch and applied.generation >= floor.generation


def _check_part(step: Step, host: str, move: Move) -> None:
    """Raises BadReport."""
    if step in PART_OF and host != getattr(move, PART_OF[step]):
        raise BadReport(f"{step}: not its part of a migration", host)


def _is_next(part: MoveState, round: int, number: int, parts: int) -> bool:
    """After that one, in the order and of the size in which `in_parts` makes them: so they are no more than a
    state has, however small the source makes them, and none goes on twice. One between may have been lost."""
    rises = part.round > round or (part.round == round and part.part > number and part.parts == parts)
    is_last = part.part == part.parts - 1
    return rises and (len(part.data) > 0 if is_last else len(part.data) == migration.MAX_PART)


def _is_news(done: MoveDone, host: str, move: Move, way: _Way) -> bool:
    match done.step:
        case Step.PREPARE:
            return host not in way.ready
        case Step.FREEZE:  # said late it is none: state goes first
            return move.state not in (State.FROZEN, State.TRANSFERRED)
        case Step.IMPORT:  # of the rounds between the first and the last nothing follows
            return move.state is State.PREPARING or (done.final and move.state is not State.TRANSFERRED)
        case _:
            return not way.runs
