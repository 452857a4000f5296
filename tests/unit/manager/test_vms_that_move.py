"""VMs that move, at the manager: who may, what the hosts are told and in which order, whose word counts. The
hosts are the test."""

from uuid import uuid4

import pytest

from manager_stub.clock import now_ms
from manager_stub.moves import moves as module
from manager_stub.moves.move import LIVES_S, State
from tests.unit.manager.moving import (
    HERE,
    MOVES,
    OTHER,
    OTHER_VM,
    SOURCE,
    TARGET,
    VM,
    VNIC,
    applies,
    begun,
    done,
    plugged,
    prepared,
    says,
    state,
    told,
)
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import (
    MoveAborted,
    MoveOffer,
    MoveOrder,
    MoveState,
    Step,
)

pytestmark = pytest.mark.usefixtures("hosts_of_a_move")


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
    assert offer.lives_s == sum(LIVES_S.values()) + 60
    posting.cancel()


async def test_the_hosts_are_asked_once(manager: Manager) -> None:
    """Whatever else the target says that it has meanwhile."""
    posting, _ = await begun(manager)
    applies(manager, TARGET)
    assert len(told(manager)) == 2
    await manager.call("PATCH", f"{DOMAIN}/security-policies/s/rules/r", {"action": "DROP"})
    applies(manager, TARGET)
    assert told(manager) == []
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


async def test_the_target_keeps_the_policy_until_it_says_which_vnics_it_has(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the VM runs there is heard before, on a busy day; what a vNIC has of connections ends with its
    policy. It has said so, and later says that the VM has gone: then it needs none. Nor does it a minute
    later, if it never says so."""
    hosts = manager.register.hosts
    for plugged_there in (True, False):
        id = await prepared(manager)
        has = hosts[TARGET].level.wanted_position
        done(manager, SOURCE, id, Step.FREEZE)
        done(manager, TARGET, id, Step.IMPORT, round=1, final=True)
        plugged(manager, SOURCE)
        done(manager, TARGET, id, Step.ACTIVATE)
        manager.parts.moves.expire()
        assert hosts[TARGET].level.wanted_position == has
        if plugged_there:
            plugged(manager, TARGET, HERE)
            manager.parts.moves.expire()
            assert hosts[TARGET].level.wanted_position == has
            plugged(manager, TARGET)
        else:
            monkeypatch.setattr(module, "now_ms", lambda: now_ms() + 61_000)
        manager.parts.moves.expire()
        assert hosts[TARGET].level.wanted.objects["vnics"] == {}
        plugged(manager, SOURCE, HERE)


async def test_o34_a_vm_that_has_been_there_and_back_is_where_its_last_move_led(manager: Manager) -> None:
    """Though both hosts say that they have it for a moment, and each has got it by a move of the last minute.
    No policy is sent anew for that."""
    await moved_to(manager, TARGET)
    await moved_to(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    before = {host: manager.register.hosts[host].level.generation for host in (SOURCE, TARGET)}
    manager.parts.moves.expire()
    assert manager.register.hosts[SOURCE].bindings == (HERE,)
    assert {host: manager.register.hosts[host].level.generation for host in before} == before


async def moved_to(manager: Manager, target: str) -> None:
    """The VM, from the other host."""
    (source,) = {SOURCE, TARGET} - {target}
    id = await prepared(manager, source, target)
    done(manager, source, id, Step.FREEZE)
    done(manager, target, id, Step.IMPORT, round=1, final=True)
    done(manager, target, id, Step.ACTIVATE)
    plugged(manager, source)
    plugged(manager, target, HERE)


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


async def test_a_target_that_is_removed_takes_nothing_along(manager: Manager) -> None:
    """Before the move is over, or just after: the source is told, and the manager looks after other moves."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    manager.register.remove_host(TARGET)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert told(manager) == [(SOURCE, MoveOrder(id, VM, Step.FINISH))]
    assert id not in manager.parts.moves._ways
    manager.parts.moves.expire()


async def test_a_vm_that_moves_is_no_dispute(manager: Manager) -> None:
    """The target says that it has the VM a moment before the source says that it has not."""
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, TARGET, HERE)
    plugged(manager, SOURCE)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert manager.register.hosts[TARGET].bindings == (HERE,)
    assert manager.register.hosts[TARGET].disputes == 0


async def test_a_vm_that_has_moved_settles_no_other_s_dispute(manager: Manager) -> None:
    """Its target says that it has another's VM too, which counts for as little as before."""
    another = Binding("22222222-0000-4000-8000-000000000000", OTHER_VM, "02:00:00:00:00:02", "veth1")
    plugged(manager, OTHER, another)
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, TARGET, another, HERE)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert manager.register.hosts[TARGET].bindings == (HERE,)
    assert manager.register.hosts[OTHER].bindings == (another,)


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
