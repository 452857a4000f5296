"""VMs that are somewhere else all at once, at the manager: who gets what they had, and who does not."""

import time
from math import inf
from types import SimpleNamespace

import pytest

from manager_stub.checks import Conflict
from manager_stub.moves import pulls
from manager_stub.moves.move import State
from manager_stub.reports import BadReport
from tests.unit.manager.moving import (
    HERE,
    OTHER,
    OTHER_VM,
    SOURCE,
    TARGET,
    VM,
    VNIC,
    applies,
    done,
    know_key,
    plugged,
    prepared,
    says,
    state,
    told,
)
from tests.unit.manager.rest import Manager
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import (
    MoveAborted,
    MoveOffer,
    MoveOrder,
    MoveWanted,
    Step,
)

pytestmark = pytest.mark.usefixtures("hosts_of_a_move")


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


async def test_a_vm_that_comes_from_two_hosts_is_pulled_from_neither(manager: Manager) -> None:
    """What each had of it is not the whole VM."""
    for host in (SOURCE, TARGET, OTHER):
        know_key(manager, host)
    second = Binding("22222222-0000-4000-8000-000000000002", VM, "02:00:00:00:00:02", "veth1")
    for host, vnics in ((SOURCE, (HERE, second)), (OTHER, (HERE,))):
        plugged(manager, host, *vnics)
        assert manager.register.hosts[host].bindings == vnics
        plugged(manager, host)
    plugged(manager, TARGET, HERE, second)
    assert manager.register.hosts[TARGET].bindings == (HERE, second)
    says(manager, TARGET, MoveWanted(VM, (HERE, second)))
    assert manager.parts.moves.moves == {}


async def test_a_vm_is_pulled_at_once_or_not_at_all(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that asks a while after it got the VM gets nothing: the other one has kept nothing for so
    long."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    now = time.monotonic() + pulls.PATIENCE_S + 1
    monkeypatch.setattr(pulls, "time", SimpleNamespace(monotonic=lambda: now))
    manager.parts.pulls.expire()
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    assert manager.parts.moves.moves == {}


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


async def test_a_vm_that_has_been_where_its_move_led_is_pulled_from_there(manager: Manager) -> None:
    """Nobody has frozen it at the source, so that the move is open still."""
    know_key(manager, OTHER)
    id = await prepared(manager)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    done(manager, TARGET, id, Step.ACTIVATE)
    assert state(manager, id) is State.PREPARED
    plugged(manager, TARGET)
    plugged(manager, OTHER, HERE)
    says(manager, OTHER, MoveWanted(VM, (HERE,)))
    move = list(manager.parts.moves.moves.values())[-1]
    assert (move.source, move.target, move.pulled) == (TARGET, OTHER, True)
    assert state(manager, id) is State.ABORTED


async def test_a_pull_that_cannot_begin_ends_no_move(manager: Manager) -> None:
    """The VM was where its move led, and is at a host that cannot take it: that move is open still."""
    id = await prepared(manager)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    plugged(manager, TARGET)
    plugged(manager, OTHER, HERE)
    says(manager, OTHER, MoveWanted(VM, (HERE,)))
    ((host, said),) = told(manager)
    assert (host, "is not known; enrol it anew" in said.reason) == (OTHER, True)  # type: ignore[union-attr]
    assert state(manager, id) is State.PREPARED


async def test_a_vm_that_left_the_target_of_its_move_frozen_is_pulled_from_nowhere(manager: Manager) -> None:
    """The target has not got yet what the VM had at the source: that move is not over."""
    know_key(manager, OTHER)
    id = await prepared(manager)
    done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    plugged(manager, TARGET)
    plugged(manager, OTHER, HERE)
    told(manager)
    says(manager, OTHER, MoveWanted(VM, (HERE,)))
    ((host, said),) = told(manager)
    assert (host, "is moving already" in said.reason) == (OTHER, True)  # type: ignore[union-attr]
    assert state(manager, id) is State.FROZEN


async def test_a_host_with_another_vm_s_vnic_ends_no_move(manager: Manager) -> None:
    """It says that the vNIC is of the VM that moves, and asks for what that has; nor would it end that move
    with a vNIC that is in no inventory."""
    know_key(manager, OTHER)
    card = "22222222-0000-4000-8000-000000000002"
    another = Binding(card, OTHER_VM, "02:00:00:00:00:02", "veth1")
    stolen = Binding(card, VM, "02:00:00:00:00:02", "veth1")
    plugged(manager, TARGET, another)
    id = await prepared(manager)
    plugged(manager, TARGET)
    plugged(manager, OTHER, stolen)
    assert manager.register.hosts[OTHER].bindings == (stolen,)
    says(manager, OTHER, MoveWanted(VM, (stolen,)))
    with pytest.raises(Conflict, match="is moving already"):
        manager.parts.moves.pull(VM, TARGET, OTHER, (stolen,))
    assert list(manager.parts.moves.moves) == [id]
    assert (state(manager, id), told(manager)) == (State.PREPARED, [])


@pytest.mark.parametrize("frozen", [False, True])
async def test_o29_a_vm_on_its_way_is_pulled_to_no_other_host(manager: Manager, frozen: bool) -> None:
    """Whoever says that it is there, once the source has let it go."""
    know_key(manager, OTHER)
    id = await prepared(manager)
    if frozen:
        done(manager, SOURCE, id, Step.FREEZE)
    plugged(manager, SOURCE)
    plugged(manager, OTHER, HERE)
    says(manager, OTHER, MoveWanted(VM, (HERE,)))
    assert list(manager.parts.moves.moves) == [id]
    assert state(manager, id) is (State.FROZEN if frozen else State.PREPARED)
    ((host, said),) = told(manager)
    assert (host, "is moving already" in said.reason) == (OTHER, True)  # type: ignore[union-attr]


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


async def test_a_host_that_asks_is_there(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be heard before the broker tells that it is back."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    plugged(manager, SOURCE)
    plugged(manager, TARGET, HERE)
    monkeypatch.setattr(manager.parts.presence, "is_up", lambda host: host != TARGET)
    says(manager, TARGET, MoveWanted(VM, (HERE,)))
    assert [each.target for each in manager.parts.moves.moves.values()] == [TARGET]


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
