"""Moves that are called off, forgotten or against the kernel: the VM goes on where it is, or an alarm
says that it does not (O30, O35)."""

import asyncio

import pytest
from msgspec import structs

from tests.harness.datapath import passed
from tests.harness.moving import (
    DEAD,
    FROZEN,
    MAC,
    VM,
    Pair,
    carry,
    connect,
    move,
    offer,
    prepare,
)
from tests.harness.packets import IPV4, Net, tcp, udp
from tests.harness.policies import vnic_id
from tests.harness.waiting import eventually
from vsfwd.datapath import DatapathError, Hold
from vsfwd.migration import coming
from vsfwd.migration import move as move_module
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding

pytestmark = pytest.mark.slow


@pytest.fixture
def net() -> Net:
    """The other family's flows move in test_moving_flows.py."""
    return IPV4


async def test_o35_a_move_that_is_aborted_while_it_is_prepared_is_none(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target waits for a policy then; what it holds it lets go, and it takes part no more. Nobody else
    prepares that VM meanwhile."""
    a, b = sites
    b.policy = DesiredState
    preparing = asyncio.create_task(b.moves.prepare(offer(a, b)))
    await eventually(lambda: bool(b.host.datapath.holds()), "the target holds it", 20)
    with pytest.raises(Refused, match="is getting ready for"):
        await b.moves.prepare(offer(a, b, number=2))
    await b.moves.abort(VM)
    b.policy = lambda: b.state
    with pytest.raises(Refused, match="was aborted meanwhile"):
        await preparing
    assert (b.moves.status(), b.host.datapath.holds()) == ([], {})


async def test_one_move_that_the_kernel_is_against_keeps_no_other_from_its_end(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows the moves in a look is done all the same."""
    a, b = sites
    await prepare(a, b)
    b.plug()

    async def fails(_: object) -> None:
        raise DatapathError("install the flows")

    monkeypatch.setattr(coming.Coming, "settle", fails)
    await b.moves.look()
    monkeypatch.setattr(move_module, "HELD_LONG_S", -1.0)
    assert vnic_id("here") in b.moves.held_long()


async def test_o35_an_aborted_move_leaves_the_vm_where_it_is(sites: Pair, net: Net) -> None:
    """The source goes on with its flows; at the target nothing of it is left, not even the hold."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    b.plug()
    await a.moves.freeze(VM)
    await carry(a, b)
    for site in (a, b):
        await site.moves.abort(VM)
        await site.moves.abort(VM)
    assert a.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert (a.states(), b.states()) == (["established"], [])
    assert (a.host.datapath.holds(), b.host.datapath.holds()) == ({}, {})
    await move(a, b, number=2)
    assert b.states() == ["established"]


async def test_o30_a_daemon_that_has_forgotten_the_move_ends_it_all_the_same(sites: Pair, net: Net) -> None:
    """What it finds frozen it thaws, what it finds dead it brings to life, if somebody says so."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    b.plug()
    await a.moves.freeze(VM)
    a.restart()
    b.restart()
    await a.moves.abort(VM)
    assert a.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert await b.moves.activate(VM) is None
    assert b.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    with pytest.raises(Refused, match="not about to come"):
        await b.moves.activate(VM)


async def test_what_is_held_for_long_is_an_alarm_and_stays_held(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM that never comes, or never leaves. One that has left is none."""
    a, b = sites
    await prepare(a, b)
    b.plug()
    await a.moves.freeze(VM)
    for site in (a, b):
        await site.moves.look()
        assert site.moves.held_long() == {}
    monkeypatch.setattr(move_module, "HELD_LONG_S", -1.0)
    assert "leaving" in a.moves.held_long()[vnic_id("here")]
    assert "to come" in b.moves.held_long()[vnic_id("here")]
    assert b.receive(udp(net.peer, net.here)) == DEAD
    await a.moves.finish(VM)
    await a.moves.look()
    assert a.moves.held_long() == {}
    assert b.host.datapath.holds() == {vnic_id("here"): Hold.WAITING}


async def test_who_has_left_is_no_alarm_when_others_have_left_since(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their devices stay for as long as the hypervisor likes."""
    a, b = sites
    a._there(a.host.port, "twin")
    another = VM[:-2] + "bb"
    twin = Binding(vnic_id("twin"), another, MAC, "port1")
    monkeypatch.setattr(move_module, "HELD_LONG_S", -1.0)
    for given in (offer(a, b), structs.replace(offer(a, b, number=2), vm=another, vnics=(twin,))):
        await a.moves.prepare(given)
        await a.moves.freeze(given.vm)
        await a.moves.finish(given.vm)
    await a.moves.look()
    assert a.moves.held_long() == {}
    assert a.host.datapath.holds() == dict.fromkeys((vnic_id("here"), vnic_id("twin")), Hold.FROZEN)


async def test_o30_a_move_of_which_nobody_says_the_end_is_given_up(sites: Pair, net: Net) -> None:
    """After the time that its offer gives it. What has come of its state is gone at the target; at the source
    nothing passes, since the VM may be elsewhere. An alarm names both, and the manager may still say so."""
    a, b = sites
    connect(a, net)
    given = offer(a, b, lives_s=600)
    for site in (b, a):
        await site.moves.prepare(given)
    b.plug()
    await carry(a, b)
    await a.moves.freeze(VM)
    for site in (a, b):
        await site.moves.look()
        assert (len(site.moves.status()), site.incidents.take()) == (1, {})
        site.moves._moves[VM].began -= 600
        await site.moves.look()
        assert site.moves.status() == []
        ((cause, what),) = site.incidents.take().items()
        assert (cause.event_type, cause.entity) == ("dfw_vmotion_failure", vnic_id("here"))
        assert what == f"migration {given.migration} is lost: its end is unknown after 600 s"
    assert (b.states(), b.host.datapath.holds()) == ([], {})
    assert b.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    assert a.receive(tcp(net.peer, net.here, flags="A")) == FROZEN
    assert not a.moves.is_over(given.migration)
    await a.moves.abort(VM)
    assert a.receive(tcp(net.peer, net.here, flags="A")) == passed(1)


async def test_o35_a_return_that_does_not_take_place_wakes_no_old_copy(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the VM has left, and its device still stands, nothing passes after a return that is refused, nor
    after one that is aborted; and that is no alarm. A device that has come for the return is another."""
    a, b = sites
    await move(a, b)
    await a.moves.finish(VM)
    monkeypatch.setattr(move_module, "HELD_LONG_S", -1.0)
    monkeypatch.setattr(coming, "POLICY_PATIENCE_S", 0.0)
    a.policy = DesiredState
    with pytest.raises(Refused, match="policy"):
        await a.moves.prepare(offer(b, a, number=2))
    assert a.receive(udp(net.peer, net.here)) == FROZEN
    a.policy = lambda: a.state
    await prepare(b, a, number=3)
    await a.moves.look()
    assert a.moves.held_long().keys() == {vnic_id("here")}
    await a.moves.abort(VM)
    assert a.receive(udp(net.peer, net.here)) == FROZEN
    await a.moves.look()
    assert a.moves.held_long() == {}
    await prepare(b, a, number=4)
    a.detach()
    a.port = None
    a.plug()
    assert a.receive(udp(net.peer, net.here)) == DEAD
    await a.moves.abort(VM)
    assert a.receive(udp(net.peer, net.here)) == passed(2, new=True)


async def test_o35_a_move_that_is_refused_while_its_device_goes_keeps_no_slot(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last moment: while it is held its slot would be kept for it."""
    a, b = sites
    b.plug()
    monkeypatch.setattr(coming, "POLICY_PATIENCE_S", 0.0)
    b.policy = DesiredState
    monkeypatch.setattr(b.host.datapath, "give_up", b.host.datapath.detach)
    with pytest.raises(Refused, match="policy"):
        await b.moves.prepare(offer(a, b))
    assert b.host.datapath.places == {}


@pytest.mark.parametrize("how", ["active", "forgotten"])
async def test_o30_a_vnic_that_has_gone_and_is_in_no_move_keeps_its_slot_for_a_minute(
    sites: Pair, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It is held, and its device goes: the VM may come on another yet, as long as its move is known, or
    another is being prepared, and a while after that."""
    a, b = sites
    b.plug()
    await prepare(a, b)
    b.detach()
    with monkeypatch.context() as late:
        late.setattr(move_module, "HELD_LONG_S", -1.0)
        await b.moves.look()
    if how == "active":
        await b.moves.activate(VM)
    else:
        b.restart()
    await b.moves.look()
    monkeypatch.setattr(move_module, "HELD_LONG_S", -1.0)
    with monkeypatch.context() as preparing:
        preparing.setitem(b.moves._preparing, VM, offer(a, b, number=2))
        await b.moves.look()
    assert b.host.datapath.places.keys() == {vnic_id("here")}
    await b.moves.look()
    assert b.host.datapath.places == {}


async def test_o35_a_return_to_a_device_that_has_just_gone_begins_and_ends(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two questions what had left is there, and frozen, or not: it is not on a device that comes
    then."""
    a, b = sites
    await move(a, b)
    await a.moves.finish(VM)
    holds = a.host.datapath.holds
    monkeypatch.setattr(a.host.datapath, "holds", lambda: {vnic_id("here"): Hold.FROZEN} | holds())
    a.detach()
    await prepare(b, a, number=2)
    a.port = None
    a.plug()
    await a.moves.abort(VM)
    assert a.receive(udp(net.peer, net.here)) == passed(2, new=True)


async def test_o35_a_return_of_a_vm_that_never_left_does_not_stop_it(sites: Pair, net: Net) -> None:
    """It was to leave, nobody froze it, and the return that is announced is called off."""
    a, b = sites
    await a.moves.prepare(offer(a, b))
    await a.moves.prepare(offer(b, a, number=2))
    assert a.receive(udp(net.peer, net.here)) == DEAD
    await a.moves.abort(VM)
    assert a.receive(udp(net.peer, net.here)) == passed(2, new=True)
