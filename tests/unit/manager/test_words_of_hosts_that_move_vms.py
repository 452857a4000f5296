"""What hosts say of moves, and are told: in their own part only, as often as it is needed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from manager_stub.moves import moves as module
from manager_stub.moves.courier import MoveCourier
from manager_stub.moves.letters import Letter
from manager_stub.moves.move import State
from manager_stub.reports import BadReport
from tests.unit.manager.moving import (
    HERE,
    OTHER,
    SOURCE,
    TARGET,
    VM,
    done,
    plugged,
    prepared,
    says,
    state,
    told,
)
from tests.unit.manager.rest import Manager
from vsfwd.amqp import SessionOver
from vsfwd.protocol import migration, topology
from vsfwd.protocol.migration import (
    MoveAborted,
    MoveDone,
    MoveOrder,
    MoveRefused,
    MoveState,
    MoveWanted,
    Step,
)

pytestmark = pytest.mark.usefixtures("hosts_of_a_move")


async def test_o32_a_host_speaks_of_its_own_moves_in_its_own_part(manager: Manager) -> None:
    """State comes from the source, what the target did from the target; of a move that it is no part of,
    or of another VM, nobody says anything; and hosts give no orders. Nothing is passed on."""
    id = await prepared(manager)
    state_ = MoveState(id, VM, 1, 0, 1, b"state")
    for host, said in (
        (OTHER, state_),
        (TARGET, state_),
        (SOURCE, MoveState(str(uuid4()), VM, 1, 0, 1, b"state")),
        (SOURCE, MoveState(id, str(uuid4()), 1, 0, 1, b"state")),
        (OTHER, MoveDone(id, VM, Step.ACTIVATE)),
        (SOURCE, MoveDone(id, VM, Step.ACTIVATE)),
        (SOURCE, MoveDone(id, VM, Step.IMPORT, final=True)),
        (TARGET, MoveDone(id, VM, Step.FREEZE)),
        (SOURCE, MoveOrder(id, VM, Step.ACTIVATE)),
    ):
        with pytest.raises(BadReport):
            says(manager, host, said)
    assert told(manager) == []
    assert state(manager, id) is State.PREPARED


async def test_a_source_cannot_send_without_end(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a state can have ends the move."""
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    id = await prepared(manager)
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 1, b"1234567890"))
    assert state(manager, id) is State.PREPARED
    says(manager, SOURCE, MoveState(id, VM, 2, 0, 1, b"1"))
    assert state(manager, id) is State.FAILED


async def test_a_move_fails_when_too_much_waits_to_be_sent(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason does not say that its own state is too large."""
    monkeypatch.setattr(module, "MAX_WAITING", 1000)
    id = await prepared(manager)
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 1, bytes(900)))
    assert state(manager, id) is State.PREPARED
    says(manager, SOURCE, MoveState(id, VM, 2, 0, 1, bytes(900)))
    assert state(manager, id) is State.FAILED
    assert "bytes of all moves wait to be sent already" in manager.parts.moves.moves[id].reason


async def test_what_has_been_sent_does_not_wait(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round after round goes on, as many as there are, when none waits long."""
    monkeypatch.setattr(module, "MAX_WAITING", 1000)
    id = await prepared(manager)
    for round_ in range(10):
        part = MoveState(id, VM, round_, 0, 1, bytes(900))
        says(manager, SOURCE, part)
        assert told(manager) == [(TARGET, part)]


async def test_o32_each_part_of_a_state_goes_on_once(manager: Manager) -> None:
    """And only as hosts make them, in rising order and full but for the last: one that sends small ones
    without end reaches nobody, and it counts. What was lost on the way keeps no other part back."""
    courier, counted = MoveCourier(manager.register, manager.parts.broker, manager.parts.moves), list[str]()
    courier.dropped = lambda host, size: counted.append(host)
    id = await prepared(manager)
    size = migration.MAX_PART
    first, *_, last = honest = migration.in_parts(id, VM, 1, bytes(2 * size + 1))
    passed = [
        *honest,
        *migration.in_parts(id, VM, 2, b"1"),
        *migration.in_parts(id, VM, 4, bytes(size + 1))[1:],
    ]
    refused = [
        first,  # again
        last,
        MoveState(id, VM, 0, 0, 1, b"1"),  # of a round before
        MoveState(id, VM, 4, 2, 3, b"1"),  # of a round that has two
        MoveState(id, VM, 5, 0, 1, b""),
        MoveState(id, VM, 5, 0, 2, b"1"),
        MoveState(id, VM, 5, 0, 2, bytes(size - 1)),
    ]
    for said in (*passed, *refused):
        body = migration.encode(said)
        key = topology.event_key(SOURCE, topology.MOVE)
        await courier._take(cast(Any, SimpleNamespace(routing_key=key, user_id=SOURCE, body=body)))
    assert told(manager) == [(TARGET, part) for part in passed]
    assert counted == [SOURCE] * len(refused)


async def test_what_waits_of_a_state_is_not_sent_for_nothing(manager: Manager) -> None:
    """When its source is shut out, or the move is over; what waits of anything else is sent."""
    id = await prepared(manager)
    manager.parts.moves.order(id, Step.FREEZE)
    order = (SOURCE, MoveOrder(id, VM, Step.FREEZE))
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 1, b"1"))
    manager.parts.moves.shut_out(TARGET)
    manager.parts.moves.shut_out(SOURCE)
    assert told(manager) == [order]
    says(manager, SOURCE, MoveState(id, VM, 2, 0, 1, b"1"))
    reason = manager.parts.moves.abort(id).reason
    assert told(manager) == [(host, MoveAborted(id, VM, reason)) for host in (SOURCE, TARGET)]


async def test_a_source_that_was_away_hears_what_became_of_its_move(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its VM is frozen yet, and what it was told is gone: with its first word it is told again, once. Nobody
    else is, and it is not, when it was not away for so long."""
    monkeypatch.setattr("manager_stub.register.now_ms", lambda: 0)
    manager.register.seen(SOURCE)
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    aborted = (SOURCE, MoveAborted(id, VM, manager.parts.moves.abort(id).reason))
    told(manager)
    heard, at_ms = manager.parts.publisher.heard, manager.parts.moves.moves[id].changed_ms
    heard(OTHER)
    assert told(manager) == []
    heard(SOURCE)
    assert told(manager) == [aborted]
    monkeypatch.setattr(module, "now_ms", lambda: at_ms + 2000 * module.LIVES_S)
    monkeypatch.setattr("manager_stub.register.now_ms", lambda: at_ms + 1)
    manager.register.seen(SOURCE)
    heard(SOURCE)
    assert told(manager) == []
    monkeypatch.setattr(module, "now_ms", lambda: at_ms)
    monkeypatch.setattr("manager_stub.register.now_ms", lambda: at_ms - 1)
    manager.register.seen(SOURCE)
    heard(SOURCE)
    assert told(manager) == []


async def test_who_does_not_do_what_it_is_told_is_not_told_again(manager: Manager) -> None:
    """Of a move that is over; nor of one after which the VM has begun another."""
    id = await prepared(manager)
    manager.parts.moves.abort(id)
    told(manager)
    says(manager, SOURCE, MoveRefused(id, VM, Step.FINISH, "unknown"))
    says(manager, SOURCE, MoveAborted(id, VM, "it is late"))
    assert told(manager) == []
    await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    assert told(manager) == []


async def test_a_manager_that_does_not_lead_tells_nobody_of_moves(manager: Manager) -> None:
    """The next leader does."""
    lead: Any = SimpleNamespace(is_mine=False)
    courier = MoveCourier(manager.register, manager.parts.broker, manager.parts.moves, lead)
    exchange: Any = None
    with pytest.raises(SessionOver, match="does not lead"):
        await courier._send(exchange, Letter(SOURCE, str(uuid4()), b""))


async def test_a_host_is_told_of_a_move_in_time_or_not_at_all(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that takes nothing keeps nobody waiting, and what ends the session is not lost on the way."""
    monkeypatch.setattr("vsfwd.amqp.PUBLISH_TIMEOUT_S", 0.01)

    class Alarmed:
        async def publish(self, message: Any, key: str) -> None:
            await asyncio.Event().wait()

    courier, exchange = MoveCourier(manager.register, manager.parts.broker, manager.parts.moves), Alarmed()
    async with asyncio.timeout(10):
        await courier._send(cast(Any, exchange), Letter(SOURCE, str(uuid4()), b""))


async def test_a_target_cannot_have_a_vm_that_is_not_frozen(manager: Manager) -> None:
    """That it runs there counts once the source has frozen it, which may be said later."""
    id = await prepared(manager)
    plugged(manager, TARGET, HERE)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert (state(manager, id), told(manager)) == (State.PREPARED, [])
    assert manager.register.hosts[SOURCE].bindings == (HERE,)
    done(manager, SOURCE, id, Step.FREEZE)
    assert (state(manager, id), told(manager)) == (State.ACTIVE, [(SOURCE, MoveOrder(id, VM, Step.FINISH))])
    assert manager.register.hosts[TARGET].bindings == (HERE,)


async def test_who_says_of_moves_what_nobody_needs_may_be_flooding(manager: Manager) -> None:
    """Each wish counts, each word about a move that it is no part of, that is over, or that says what was
    said: none of them is kept or audited. What moves its own move on does not count."""
    courier, counted = MoveCourier(manager.register, manager.parts.broker, manager.parts.moves), list[str]()
    courier.dropped = lambda host, size: counted.append(host)
    id = await prepared(manager)
    for host, said in (
        (OTHER, MoveWanted(VM, (HERE,))),
        (OTHER, MoveDone(id, VM, Step.FREEZE)),
        (SOURCE, MoveDone(id, VM, Step.FREEZE)),
        (SOURCE, MoveDone(id, VM, Step.FREEZE)),
        (TARGET, MoveDone(id, VM, Step.IMPORT, round=1)),
        (TARGET, MoveDone(id, VM, Step.IMPORT, round=2, final=True)),
        (TARGET, MoveDone(id, VM, Step.IMPORT, round=2, final=True)),
        (TARGET, MoveDone(id, VM, Step.ACTIVATE)),
        (TARGET, MoveDone(id, VM, Step.ACTIVATE)),
    ):
        key, body = topology.event_key(host, topology.MOVE), migration.encode(said)
        message: Any = SimpleNamespace(routing_key=key, user_id=host, body=body)
        await courier._take(message)
    assert counted == [OTHER, OTHER, SOURCE, TARGET, TARGET, TARGET]
