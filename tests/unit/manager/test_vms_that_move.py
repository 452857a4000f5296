"""VMs that move, at the manager: who may, what the hosts are told and in which order, whose word counts. The
hosts are the test."""

import asyncio
from math import inf
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from manager_stub.enrolment.credentials import Credential
from manager_stub.moves import moves as module
from manager_stub.moves import pulls
from manager_stub.moves.courier import MoveCourier
from manager_stub.moves.move import LIVES_S, State
from manager_stub.reports import BadReport
from tests.unit.manager.expressions import named, vm
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.amqp import SessionOver
from vsfwd.protocol import migration, topology
from vsfwd.protocol.messages import Applied, Binding, Bindings, Guest, Hello, digest_text
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

NOBODY = "00000000-0000-4000-8000-00000000dead"
SOURCE, TARGET, OTHER = (f"33333333-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
HERE = Binding(VNIC, VM, "02:00:00:00:00:01", "veth0", Guest("web-01"))
MOVES = f"{VSFW}/migrations"


@pytest.fixture(autouse=True)
async def _hosts(manager: Manager) -> None:
    """Three; the first has the VM, which a rule is about."""
    for host in (SOURCE, TARGET, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")
        manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1.0")})
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Name", "STARTSWITH", "web")]})
    rule = {"id": "r", "destination_groups": [named("web")], "action": "ALLOW"}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    plugged(manager, SOURCE, HERE)


def plugged(manager: Manager, host: str, *bindings: Binding) -> None:
    manager.vnics.bound(host, Bindings(bindings))


def applies(manager: Manager, host: str) -> None:
    """The host says that it has what it is sent, until that is all it is to have."""
    while sent := manager.register.hosts[host].level.outgoing:
        position = sent.position
        said = Applied(position.epoch, position.generation, position.digest)
        manager.register.reported({host: said})


def told(manager: Manager) -> list[tuple[str, migration.Move]]:
    """What hosts have been told of moves since it was asked last."""
    outgoing = manager.parts.moves.outgoing
    found = [(letter.host, migration.decode(letter.body)) for letter in outgoing]
    outgoing.clear()
    return found


def says(manager: Manager, host: str, said: migration.Move) -> None:
    manager.parts.moves.heard(host, said)


def done(manager: Manager, host: str, id: str, step: Step, **more: Any) -> None:
    says(manager, host, MoveDone(id, VM, step, **more))


def know_key(manager: Manager, host: str) -> None:
    """As if the host was enrolled."""
    pem, _ = manager.directory.authority().issue_client(host)
    manager.parts.moves._credentials.take(Credential(host, 1, pem.decode()))


async def begun(manager: Manager) -> tuple["asyncio.Task[Any]", str]:
    """A POST that waits, and the id of its move."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    known = set(manager.parts.moves.moves)
    posting = asyncio.create_task(manager.answer("POST", MOVES, {"vm": VM, "target": TARGET}))
    async with asyncio.timeout(20):
        while not (new := manager.parts.moves.moves.keys() - known):  # noqa: ASYNC110
            await asyncio.sleep(0)
    return posting, new.pop()


async def prepared(manager: Manager) -> str:
    """A move that has come so far that the VM may leave."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    for host in (SOURCE, TARGET):
        done(manager, host, id, Step.PREPARE)
    done(manager, TARGET, id, Step.IMPORT, flows=7)
    answer = await posting
    assert (answer.status_code, answer.json()["state"]) == (201, "prepared")
    told(manager)
    return id


def state(manager: Manager, id: str) -> State:
    return manager.parts.moves.moves[id].state


async def test_the_target_has_the_policy_before_anything_else_happens(manager: Manager) -> None:
    """It is sent the rules of the VM, and of the VM itself what a host needs where it runs; nobody is asked
    before it says that it has them."""
    assert manager.register.hosts[TARGET].level.wanted.objects["rules"] == {}
    posting, id = await begun(manager)
    assert told(manager) == []
    wanted = manager.register.hosts[TARGET].level
    assert wanted.wanted.objects["vnics"].keys() == {VNIC}
    assert wanted.wanted.objects["vnics"] == manager.register.hosts[SOURCE].level.wanted.objects["vnics"]
    assert wanted.wanted.objects["rules"] == manager.register.hosts[SOURCE].level.wanted.objects["rules"]
    applies(manager, OTHER)
    assert told(manager) == []
    applies(manager, TARGET)
    offers = dict(told(manager))
    assert offers.keys() == {SOURCE, TARGET}
    offer = offers[TARGET]
    assert offer == offers[SOURCE]
    assert isinstance(offer, MoveOffer)
    assert (offer.migration, offer.vm, offer.vnics, offer.running) == (id, VM, (HERE,), False)
    assert (offer.epoch, offer.generation) == (wanted.epoch, wanted.generation)
    assert len({offer.source_key, offer.target_key}) == 2
    posting.cancel()


async def test_a_move_from_its_beginning_to_its_end(manager: Manager) -> None:
    """The source is asked for a first round once both are ready; what it sends reaches the target, and nobody
    else; each step is seen, and in the end the source is told that it is over."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    told(manager)
    done(manager, TARGET, id, Step.PREPARE)
    assert told(manager) == []
    done(manager, SOURCE, id, Step.PREPARE)
    assert told(manager) == [(SOURCE, MoveOrder(id, VM, Step.EXPORT))]
    part = MoveState(id, VM, 0, 0, 1, b"sealed")
    says(manager, SOURCE, part)
    assert told(manager) == [(TARGET, part)]
    assert not posting.done()
    done(manager, TARGET, id, Step.IMPORT, flows=7)
    shown = (await posting).json()
    assert (shown["state"], shown["flows"], shown["announced"]) == ("prepared", 7, True)
    assert (shown["source"]["id"], shown["target"]["id"], shown["vm"]["display_name"]) == (
        SOURCE,
        TARGET,
        "web-01",
    )
    done(manager, SOURCE, id, Step.FREEZE)
    assert state(manager, id) is State.FROZEN
    done(manager, TARGET, id, Step.IMPORT, round=1, flows=8, final=True)
    done(manager, SOURCE, id, Step.FREEZE)
    assert state(manager, id) is State.TRANSFERRED
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    done(manager, TARGET, id, Step.ACTIVATE)
    shown = await manager.call("GET", f"{MOVES}/{id}")
    assert (shown["state"], shown["flows"], shown["bytes"], shown["expire_time"]) == ("active", 8, 6, 0)
    assert told(manager) == [(SOURCE, MoveOrder(id, VM, Step.FINISH))]
    assert manager.register.hosts[TARGET].bindings == (HERE,)
    assert manager.register.hosts[SOURCE].level.wanted.objects["vnics"] == {}
    assert manager.register.hosts[TARGET].expected == frozenset()


@pytest.mark.parametrize(
    ("vm", "target", "status", "named_"),
    [
        (NOBODY, TARGET, 400, "vm: there is no VM"),
        (VM, NOBODY, 400, "target: there is no host"),
        (VM, SOURCE, 409, "is on host host1 already"),
        ("x", TARGET, 400, "vm"),
    ],
)
async def test_o31_who_cannot_move_is_refused_by_name(
    manager: Manager, vm: str, target: str, status: int, named_: str
) -> None:
    """And nothing has happened."""
    answer = await manager.answer("POST", MOVES, {"vm": vm, "target": target})
    assert answer.status_code == status
    assert named_ in answer.json()["error_message"]
    assert manager.parts.moves.moves == {}


async def test_o31_a_target_that_cannot_take_it_is_vetoed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is down, its key is not known, it has no place for more vNICs: 409, and the source is not told."""

    for host in (SOURCE, TARGET):
        know_key(manager, host)

    async def vetoed() -> str:
        answer = await manager.answer("POST", MOVES, {"vm": VM, "target": TARGET})
        assert answer.status_code == 409
        return str(answer.json()["error_message"])

    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_HOST_VNICS", 0)
        assert "target: host host2 would have 1 vNICs of 0" in await vetoed()
    with monkeypatch.context() as patch:
        patch.setattr(manager.parts.presence, "is_up", lambda host: host != TARGET)
        assert "target: host host2 is down" in await vetoed()
    manager.parts.moves._credentials.take(Credential(TARGET, 1, ""))
    assert "target: the key of host host2 is not known" in await vetoed()
    plugged(manager, SOURCE)
    assert "vm: VM web-01 is plugged nowhere" in await vetoed()
    assert told(manager) == []


async def test_o31_what_a_host_refuses_ends_the_move(manager: Manager) -> None:
    """The answer says who and why; both hosts hear that it does not take place, and the target's policy is as
    before."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    told(manager)
    says(manager, TARGET, MoveRefused(id, VM, Step.PREPARE, "flow table too small"))
    answer = await posting
    assert answer.status_code == 409
    assert "host2 does not prepare: flow table too small" in answer.json()["error_message"]
    reason = manager.parts.moves.moves[id].reason
    assert told(manager) == [(host, MoveAborted(id, VM, reason)) for host in (SOURCE, TARGET)]
    assert manager.register.hosts[TARGET].level.wanted.objects["vnics"] == {}


async def test_o33_a_target_that_stays_behind_is_vetoed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say in time that it has the policy: nobody was asked anything."""
    posting, id = await begun(manager)
    manager.parts.moves.expire()
    assert not posting.done()
    later = manager.parts.moves.moves[id].expires_ms
    monkeypatch.setattr(module, "now_ms", lambda: later)
    manager.parts.moves.expire()
    answer = await posting
    assert answer.status_code == 409
    assert f"it was preparing for {LIVES_S[State.PREPARING]:g} s" in answer.json()["error_message"]
    assert "host2 has not said that it has the policy" in answer.json()["error_message"]
    assert not [said for _, said in told(manager) if isinstance(said, MoveOffer)]


async def test_o33_a_host_that_does_not_answer_is_named(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have been asked, and one is ready."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    done(manager, TARGET, id, Step.PREPARE)
    later = manager.parts.moves.moves[id].expires_ms
    monkeypatch.setattr(module, "now_ms", lambda: later)
    manager.parts.moves.expire()
    assert (await posting).json()["error_message"].endswith("; no answer of host1")


async def test_o33_without_a_broker_nobody_is_prepared(manager: Manager) -> None:
    """503 at once, and there is no move."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    manager.parts.publisher.connected_to = None
    answer = await manager.answer("POST", MOVES, {"vm": VM, "target": TARGET})
    assert (answer.status_code, "no broker" in answer.json()["error_message"]) == (503, True)
    assert manager.parts.moves.moves == {}


async def test_a_vm_moves_once_at_a_time(manager: Manager) -> None:
    """The second is told of the first."""
    id = await prepared(manager)
    answer = await manager.answer("POST", MOVES, {"vm": VM, "target": OTHER})
    assert answer.status_code == 409
    assert f"moving already, to host2 ({id})" in answer.json()["error_message"]


async def test_o35_a_move_that_is_aborted(manager: Manager) -> None:
    """The source goes on, the target forgets the policy; who says anything later hears it again, and it
    cannot be aborted twice."""
    id = await prepared(manager)
    assert (await manager.call("DELETE", f"{MOVES}/{id}"))["state"] == "aborted"
    assert [host for host, _ in told(manager)] == [SOURCE, TARGET]
    assert manager.register.hosts[TARGET].level.wanted.objects["vnics"] == {}
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 1, b"late"))
    done(manager, TARGET, id, Step.ACTIVATE)
    reason = manager.parts.moves.moves[id].reason
    assert told(manager) == [(host, MoveAborted(id, VM, reason)) for host in (SOURCE, TARGET)]
    assert state(manager, id) is State.ABORTED
    assert (await manager.answer("DELETE", f"{MOVES}/{id}")).status_code == 409
    assert (await manager.answer("DELETE", f"{MOVES}/{uuid4()}")).status_code == 404


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
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 2, b"1234567890"))
    assert state(manager, id) is State.PREPARED
    says(manager, SOURCE, MoveState(id, VM, 1, 1, 2, b"1"))
    assert state(manager, id) is State.FAILED


async def test_a_move_fails_when_too_much_waits_to_be_sent(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason does not say that its own state is too large."""
    monkeypatch.setattr(module, "MAX_WAITING", 1000)
    id = await prepared(manager)
    says(manager, SOURCE, MoveState(id, VM, 1, 0, 2, bytes(900)))
    assert state(manager, id) is State.PREPARED
    says(manager, SOURCE, MoveState(id, VM, 1, 1, 2, bytes(900)))
    assert state(manager, id) is State.FAILED
    assert "bytes of all moves wait to be sent already" in manager.parts.moves.moves[id].reason


async def test_o30_the_source_dies_after_the_vm_has_left(manager: Manager) -> None:
    """It still claims the VM, and cannot say otherwise: what the target says counts."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    done(manager, TARGET, id, Step.IMPORT, round=1, final=True)
    done(manager, TARGET, id, Step.ACTIVATE)
    plugged(manager, TARGET, HERE)
    manager.parts.moves.expire()
    assert manager.register.hosts[TARGET].bindings == (HERE,)
    assert manager.register.hosts[SOURCE].bindings == ()


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
        await courier._send(exchange, module.Letter(SOURCE, str(uuid4()), b""))


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
        await courier._send(cast(Any, exchange), module.Letter(SOURCE, str(uuid4()), b""))


async def test_a_target_that_is_removed_takes_nothing_along(manager: Manager) -> None:
    """Before the move is over, or just after: the source is told, and the manager looks after other moves."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    manager.register.remove_host(TARGET)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert told(manager) == [(SOURCE, MoveOrder(id, VM, Step.FINISH))]
    assert id not in manager.parts.moves._ways
    manager.parts.moves.expire()


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


async def test_a_vm_that_moves_is_no_dispute(manager: Manager) -> None:
    """The target says that it has the VM a moment before the source says that it has not."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, TARGET, HERE)
    plugged(manager, SOURCE)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert manager.register.hosts[TARGET].bindings == (HERE,)
    assert manager.register.hosts[TARGET].disputes == 0


async def test_the_manager_s_word_in_place_of_hypervisor_and_vm(manager: Manager) -> None:
    """`freeze` goes to the source, `activate` to the target, each in its time only."""
    id = await prepared(manager)
    assert (await manager.answer("POST", f"{MOVES}/{id}?action=activate")).status_code == 409
    await manager.call("POST", f"{MOVES}/{id}?action=freeze")
    assert told(manager) == [(SOURCE, MoveOrder(id, VM, Step.FREEZE))]
    done(manager, SOURCE, id, Step.FREEZE)
    done(manager, TARGET, id, Step.IMPORT, round=1, final=True)
    await manager.call("POST", f"{MOVES}/{id}?action=activate")
    assert told(manager) == [(TARGET, MoveOrder(id, VM, Step.ACTIVATE))]
    assert (await manager.answer("POST", f"{MOVES}/{id}?action=import")).status_code == 400


async def test_a_manager_that_starts_anew_goes_on(manager: Manager) -> None:
    """With a move that is prepared; the target keeps the policy it was given. One that was still being
    prepared has failed."""
    id = await prepared(manager)
    generation = manager.register.hosts[TARGET].level.generation
    again = Manager(manager.directory, manager.admin[1])
    try:
        assert state(again, id) is State.PREPARED
        assert again.register.hosts[TARGET].level.generation == generation
        done(again, SOURCE, id, Step.FREEZE)
        assert state(again, id) is State.FROZEN
        again.parts.moves.abort(id)
        posting, _ = await begun(again)
    finally:
        await again.close()
    third = Manager(manager.directory, manager.admin[1])
    try:
        assert [each.state for each in third.parts.moves.moves.values()] == [State.ABORTED, State.FAILED]
    finally:
        posting.cancel()
        await third.close()


async def test_moves_are_listed_audited_and_forgotten_in_the_end(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest first; the audit log has each step with who it was; only so many are kept."""
    first = await prepared(manager)
    await manager.call("DELETE", f"{MOVES}/{first}")
    rows = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/migrations/{first}"))["results"]
    assert [row["after"]["state"] for row in rows] == ["aborted", "prepared", "preparing"]
    monkeypatch.setattr(module, "KEPT", 1)
    posting, second = await begun(manager)
    shown = (await manager.call("GET", MOVES))["results"]
    assert [each["id"] for each in shown] == [second]
    assert len(manager.parts.store.moves()) == 1
    posting.cancel()


async def test_a_vm_that_appears_unannounced_brings_its_state(manager: Manager) -> None:
    """Its new host may ask before the old one has let it go. Then both are asked, as of any move; the source
    is told to freeze, and the target, once it has all, to go on."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    plugged(manager, TARGET, HERE)
    assert told(manager) == []
    plugged(manager, SOURCE)
    applies(manager, TARGET)
    (move,) = manager.parts.moves.moves.values()
    assert (move.source, move.target, move.pulled) == (SOURCE, TARGET, True)
    offers = dict(told(manager))
    assert offers.keys() == {SOURCE, TARGET}
    assert all(isinstance(offer, MoveOffer) and offer.running for offer in offers.values())
    for host in (SOURCE, TARGET):
        done(manager, host, move.id, Step.PREPARE)
    assert told(manager) == [(SOURCE, MoveOrder(move.id, VM, Step.FREEZE))]
    done(manager, SOURCE, move.id, Step.FREEZE)
    done(manager, TARGET, move.id, Step.IMPORT, final=True, flows=3)
    assert told(manager) == [(TARGET, MoveOrder(move.id, VM, Step.ACTIVATE))]
    done(manager, TARGET, move.id, Step.ACTIVATE)
    assert state(manager, move.id) is State.ACTIVE


async def test_nobody_gets_the_state_of_a_vm_by_asking(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that says a VM is there which another one has: the other is not told anything, and the host,
    after a while, that there is nothing."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    plugged(manager, TARGET, HERE)
    manager.parts.pulls.expire()
    assert told(manager) == []
    monkeypatch.setattr(pulls, "time", SimpleNamespace(monotonic=lambda: inf))
    manager.parts.pulls.expire()
    ((host, said),) = told(manager)
    assert host == TARGET
    assert isinstance(said, MoveAborted)
    assert "nobody has let the VM go" in said.reason
    assert manager.parts.moves.moves == {}


async def test_a_host_that_invents_vms_takes_no_other_s_place(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wants is bounded, and refused beyond; another host's wish is taken."""
    monkeypatch.setattr(pulls, "MAX_WANTED", 2)
    for number in (1, 2):
        says(manager, OTHER, MoveWanted(f"{number:08d}{VM[8:]}", (HERE,)))
    with pytest.raises(BadReport, match="2 VMs have appeared"):
        says(manager, OTHER, MoveWanted(VM, (HERE,)))
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    assert len(manager.parts.pulls._wanted) == 3


async def test_a_vm_whose_move_was_aborted_is_pulled(manager: Manager) -> None:
    """Of what did not take place the target has nothing."""
    id = await prepared(manager)
    manager.parts.moves.abort(id)
    told(manager)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    assert [(each.target, each.pulled) for each in manager.parts.moves.moves.values()] == [
        (TARGET, False),
        (TARGET, True),
    ]


async def test_a_vm_that_came_by_a_move_is_not_pulled(manager: Manager) -> None:
    """It is new at its host, which asks for what it has."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    done(manager, TARGET, id, Step.ACTIVATE)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    assert list(manager.parts.moves.moves) == [id]
    assert manager.parts.pulls._wanted == {}


async def test_a_vm_that_left_again_is_pulled_when_it_is_back(manager: Manager) -> None:
    """It had come by a move a moment ago; but its last one led elsewhere."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    done(manager, TARGET, id, Step.ACTIVATE)
    for there, here in ((TARGET, SOURCE), (SOURCE, TARGET)):
        plugged(manager, there)
        plugged(manager, here, HERE)
        says(manager, here, MoveWanted(VM, (HERE,)))
        applies(manager, here)
        move = list(manager.parts.moves.moves.values())[-1]
        assert (move.source, move.target, move.pulled) == (there, here, True)
        done(manager, there, move.id, Step.FREEZE)
        done(manager, here, move.id, Step.ACTIVATE)


async def test_a_pull_from_a_host_that_is_down_is_declined(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VM goes on with its policy only, at once."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    monkeypatch.setattr(manager.parts.presence, "is_up", lambda host: host != SOURCE)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    ((host, said),) = told(manager)
    assert (host, "host host1 is down" in said.reason) == (TARGET, True)  # type: ignore[union-attr]


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
        (TARGET, MoveDone(id, VM, Step.IMPORT, final=True)),
        (TARGET, MoveDone(id, VM, Step.IMPORT, final=True)),
        (TARGET, MoveDone(id, VM, Step.ACTIVATE)),
        (TARGET, MoveDone(id, VM, Step.ACTIVATE)),
    ):
        key, body = topology.event_key(host, topology.MOVE), migration.encode(said)
        message: Any = SimpleNamespace(routing_key=key, user_id=host, body=body)
        await courier._take(message)
    assert counted == [OTHER, OTHER, SOURCE, TARGET, TARGET]


async def test_o34_a_vm_that_is_back_is_not_pulled_from_where_it_is(manager: Manager) -> None:
    """The last that had it before is the host where it is now."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    plugged(manager, TARGET, HERE)
    plugged(manager, SOURCE)
    plugged(manager, SOURCE, HERE)
    manager.vnics.arrived(SOURCE, {VNIC})
    says(manager, SOURCE, MoveWanted(VM, (HERE,)))
    assert manager.register.hosts[SOURCE].bindings == (HERE,)
    assert manager.parts.moves.moves == {}
