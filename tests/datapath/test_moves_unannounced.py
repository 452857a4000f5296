"""A VM that is on another host all at once: it gets what it had, if that can still be had."""

import pytest

from tests.harness.datapath import passed
from tests.harness.moving import ANNOUNCEMENT, MAC, VM, Pair, Site, carry, connect, move, offer
from tests.harness.packets import IPV4, Net, tcp, udp
from tests.harness.policies import vnic_id
from vsfwd.datapath import departed
from vsfwd.datapath.flowstate import Arrived, Built
from vsfwd.migration import move as move_module
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import MoveWanted

pytestmark = pytest.mark.slow


@pytest.fixture
def net() -> Net:
    """The other family's flows move in test_moving_flows.py."""
    return IPV4


async def test_a_vm_that_came_unannounced_gets_its_state_while_it_runs(sites: Pair, net: Net) -> None:
    """The host asks; until it comes the policy decides. What began meanwhile stays as it is."""
    a, b = sites
    connect(a, net)
    await b.moves.look()
    b.plug()
    await b.moves.look()
    assert b.said == [MoveWanted(VM, (Binding(vnic_id("here"), VM, MAC, "port0"),))]
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)).verdict == "drop"
    connect(b, net, sport=1001)
    given = offer(a, b, running=True)
    for site in (b, a):
        await site.moves.prepare(given)
    await a.moves.freeze(VM)
    assert (await carry(a, b)).final
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    assert b.receive(tcp(net.peer, net.here, sport=1001, flags="A")) == passed(1)
    await b.moves.look()
    assert len(b.said) == 1


async def test_a_vm_that_gets_its_state_while_it_runs_is_heard_by_switches(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just come, and says where it is: if that were dropped, all that is for it would go to where it
    was."""
    a, b = sites
    b.plug()
    given = offer(a, b, running=True)
    for site in (b, a):
        await site.moves.prepare(given)
    await a.moves.freeze(VM)
    states = b.host.datapath.flow_states
    build, seen = states.build, []

    def built(slot: int, arrived: Arrived, *, beside_own: bool) -> Built:
        """The VM sends meanwhile."""
        assert b.port
        for frame in (ANNOUNCEMENT, udp(net.here, net.peer)):
            seen.append(b.port.send(frame).reason)
        return build(slot, arrived, beside_own=beside_own)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(states, "build", built)
        assert (await carry(a, b)).final
    assert seen == [None, "dead"]
    assert b.host.datapath.holds() == {}
    assert b.receive(tcp(net.peer, net.here)) == passed(1, new=True)


async def test_without_a_broker_a_host_asks_later_about_a_vm_that_nobody_announced(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; and not any more when nobody can have what it left."""
    _, b = sites
    wanted = MoveWanted(VM, (Binding(vnic_id("here"), VM, MAC, "port0"),))
    await b.moves.look()
    b.cut_off = True
    b.plug()
    await b.moves.look()
    await b.moves.look()
    assert b.said == []
    b.cut_off = False
    await b.moves.look()
    await b.moves.look()
    assert b.said == [wanted]
    b.detach()
    await b.moves.look()
    monkeypatch.setattr(move_module, "KEPT_S", 0.0)
    b.cut_off, b.port = True, None
    b.plug()
    await b.moves.look()
    b.cut_off = False
    await b.moves.look()
    assert b.said == [wanted]


async def test_a_vm_that_is_gone_from_its_source_is_pulled_from_what_it_left(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hypervisor that says nothing has taken the device away there. A moment later nothing is left of
    it."""
    a, b = sites
    connect(a, net)
    assert b.port is None
    b.plug()
    a.detach()
    given = offer(a, b, running=True)
    for site in (b, a):
        await site.moves.prepare(given)
    await a.moves.freeze(VM)
    assert (await carry(a, b)).flows == 1
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    await a.moves.finish(VM)
    monkeypatch.setattr(departed, "KEPT_S", -1.0)
    b.detach()
    await b.moves.look()
    assert b.host.datapath.departed.get(vnic_id("here")) is None


async def test_o34_a_vm_that_is_back_before_its_move_is_over_goes_on(sites: Pair, net: Net) -> None:
    """The manager's word that it runs elsewhere comes late: what it was about has left."""
    a, b = sites
    await move(a, b)
    come_back(a)
    await a.moves.finish(VM)
    assert a.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    assert a.host.datapath.holds() == {}


async def test_o34_a_host_asks_about_a_vm_that_is_back_whose_move_has_just_ended(sites: Pair) -> None:
    """Between two looks: that it has left is no reason to know it when it comes."""
    a, b = sites
    await move(a, b)
    a.detach()
    await a.moves.look()
    await a.moves.finish(VM)
    a.port = None
    a.plug()
    await a.moves.look()
    assert a.said == [MoveWanted(VM, (Binding(vnic_id("here"), VM, MAC, "port0"),))]


async def test_o34_a_vm_that_is_back_is_not_pulled_away(sites: Pair, net: Net) -> None:
    """The host where it was for a moment has asked for what it had: it is not stopped for that, before its
    state is read nor after."""
    a, b = sites
    b.plug()
    a.detach()
    given = offer(a, b, running=True)
    for site in (b, a):
        await site.moves.prepare(given)
    come_back(a)
    with pytest.raises(Refused, match="has left, and is here again"):
        await a.moves.freeze(VM)
    await a.moves.abort(VM)
    assert a.receive(tcp(net.peer, net.here)) == passed(1, new=True)
    a.detach()
    await a.moves.prepare(offer(a, b, number=2, running=True))
    await a.moves.freeze(VM)
    come_back(a)
    await a.moves.finish(VM)
    assert a.receive(udp(net.peer, net.here)) == passed(2, new=True)


async def test_a_vm_that_never_left_by_its_move_is_not_stopped_by_a_pull_to_where_it_is(
    sites: Pair, net: Net
) -> None:
    """It was to leave, nobody froze it, and now it runs here and what it had elsewhere is fetched."""
    a, b = sites
    connect(a, net)
    await a.moves.prepare(offer(a, b))
    await a.moves.prepare(offer(b, a, number=2, running=True))
    assert a.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert a.host.datapath.holds() == {}


def come_back(site: Site) -> None:
    """The VM's device is gone and comes again, and nobody has said so."""
    site.detach()
    site.port = None
    site.plug()
