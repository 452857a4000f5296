"""A VM moves between two hosts: both parts of it, with the kernel's tables of both, as the manager would
order it (O30, O31, O33, O34)."""

import time
from typing import Any

import pytest
from msgspec import structs

from tests.harness.datapath import passed
from tests.harness.moving import DEAD, FROZEN, MAC, VM, Pair, carry, connect, move, offer, prepare
from tests.harness.packets import IPV4, ISN, Net, tcp, udp
from tests.harness.policies import vnic_id
from vsfwd.datapath import DatapathError, Hold
from vsfwd.migration import coming
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding, Claim, Source
from vsfwd.protocol.migration import MoveDone, MoveOffer, Step

pytestmark = pytest.mark.slow


@pytest.fixture
def net() -> Net:
    """The other family's flows move in test_moving_flows.py."""
    return IPV4


async def test_a_vm_moves_with_its_connections(sites: Pair, net: Net) -> None:
    """Those of the first round and those that began after it; addresses too. Until the VM is there nothing
    passes, and from then on nothing at the source."""
    a, b = sites
    await b.moves.look()
    connect(a, net)
    a.discovery.learned[vnic_id("here")] = {
        "10.0.0.1": Claim("10.0.0.1", Source.DHCP, int(time.time()) + 600, "02:00:00:00:99:99")
    }
    given = await prepare(a, b)
    b.plug()
    assert b.receive(udp(net.peer, net.here)) == DEAD
    first = await carry(a, b)
    assert (first.round, first.flows, first.final) == (0, 1, False)
    connect(a, net, sport=1001)
    await a.moves.freeze(VM)
    assert a.receive(tcp(net.peer, net.here, sport=1001, flags="A")) == FROZEN
    last = await carry(a, b)
    assert (last.round, last.flows, last.final) == (1, 2, True)
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == DEAD
    assert b.announce() == "pass"
    for sport in (1000, 1001):
        assert b.send(tcp(net.here, net.peer, sport, "A", sport=80, data=10)) == passed(1)
        assert b.receive(tcp(net.peer, net.here, sport=sport, flags="A", seq=ISN + 10**6)).verdict == "drop"
    await b.moves.look()
    assert b.said == [MoveDone(given.migration, VM, Step.ACTIVATE)]
    await a.moves.finish(VM)
    assert a.states() == []
    assert a.receive(udp(net.peer, net.here)) == FROZEN
    assert b.states() == ["established", "established"]
    (claim,) = b.discovery.learned[vnic_id("here")].values()
    assert (claim.address, claim.server) == ("10.0.0.1", "02:00:00:00:99:99")
    assert 590 <= claim.expires - time.time() <= 601
    assert (a.moves.status(), b.moves.status()) == ([], [])


async def test_o30_a_source_that_dies_after_its_export_is_not_missed(sites: Pair, net: Net) -> None:
    """Nobody says that it may: the VM's own word is enough, also when the target's daemon is dead as well."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    await a.moves.freeze(VM)
    b.plug()
    assert (await carry(a, b)).final
    b.restart()
    assert b.announce() == "pass"
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)


async def test_a_vm_whose_connections_older_programs_have_stays(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exported is read from our tables. How a vNIC comes to be late is in test_older_pins.py."""
    a, b = sites
    connect(a, net)
    monkeypatch.setattr(a.host.datapath, "late", lambda: {vnic_id("here")})
    with pytest.raises(Refused, match="bears the programs of the version before"):
        await a.moves.prepare(offer(a, b))
    assert a.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
    assert a.moves.status() == []
    monkeypatch.undo()
    await prepare(a, b)


async def test_o30_what_a_source_cleans_up_is_its_own(sites: Pair, net: Net) -> None:
    """Also when it hears late that the VM has left, twice, or never took part."""
    a, b = sites
    connect(a, net)
    await move(a, b)
    await a.moves.finish(VM)
    with pytest.raises(Refused, match="not about to leave"):
        await a.moves.finish(VM)
    with pytest.raises(Refused, match="not about to leave"):
        await b.moves.finish(VM)
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)


async def test_o31_what_cannot_be_is_refused_before_anything_happens(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slot, another host's key, hosts that are others, VMs that are elsewhere."""
    a, b = sites
    monkeypatch.setattr(coming, "POLICY_PATIENCE_S", 0.0)
    given = offer(a, b)
    replaced = structs.replace
    for wrong, why in (
        (replaced(given, target_key=given.source_key), "key of the target: this host has another one"),
        (replaced(given, target_key=b"none"), "key of the target"),
        (replaced(given, target="c"), "this is host b"),
        (replaced(given, source="b", target="a", source_key=given.target_key), "is not on this host"),
    ):
        with pytest.raises(Refused, match=why):
            await b.moves.prepare(wrong)
    monkeypatch.setattr(b.host.datapath, "free_slots", lambda: 0)
    with pytest.raises(Refused, match="slots: 0 are free, 1 are needed"):
        await b.moves.prepare(given)
    assert (b.moves.status(), b.host.datapath.holds()) == ([], {})


async def test_o31_a_vm_of_which_one_vnic_cannot_be_held_does_not_come(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is against the second: the first is not held either."""
    a, b = sites
    given = with_twin(offer(a, b))
    hold = b.host.datapath.hold

    def fails(vnic: str, why: Hold, **how: bool) -> None:
        if (vnic, why) == (vnic_id("twin"), Hold.WAITING):
            raise DatapathError("hold the twin")
        hold(vnic, why, **how)

    monkeypatch.setattr(b.host.datapath, "hold", fails)
    with pytest.raises(DatapathError):
        await b.moves.prepare(given)
    assert b.host.datapath.holds() == {}


def with_twin(given: MoveOffer) -> MoveOffer:
    """The VM has another vNIC."""
    return structs.replace(given, vnics=(*given.vnics, Binding(vnic_id("twin"), VM, MAC, "port1")))


async def test_o33_a_target_with_an_older_policy_stays_closed(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits a while, says so, and lets nothing pass meanwhile, whatever the VM says."""
    a, b = sites
    b.plug()
    monkeypatch.setattr(coming, "POLICY_PATIENCE_S", 0.1)
    looks: list[Any] = []

    def looked() -> DesiredState:
        looks.append((b.announce(), b.receive(udp(net.peer, net.here)).reason))
        return DesiredState()

    b.policy = looked
    with pytest.raises(Refused, match="policy: generation 1 is needed, 0 is here"):
        await b.moves.prepare(offer(a, b))
    assert set(looks) == {("drop", "dead")}
    assert b.host.datapath.holds() == {}


async def test_o34_there_and_back_at_once(sites: Pair, net: Net) -> None:
    """The source has not even heard that the VM was there: what it is then is what came back, and nothing
    of before."""
    a, b = sites
    connect(a, net)
    connect(a, net, sport=1001)
    await move(a, b)
    assert b.receive(tcp(net.peer, net.here, sport=1001, flags="RA")) == passed(1)
    connect(b, net, sport=1002)
    await prepare(b, a, number=2)
    assert a.states() == []
    assert a.receive(udp(net.peer, net.here)) == DEAD
    await b.moves.freeze(VM)
    assert (await carry(b, a)).final
    assert a.announce() == "pass"
    assert a.states() == ["closed", "established", "established"]
    assert a.send(tcp(net.here, net.peer, 1002, "A", sport=80)) == passed(1)
    await a.moves.look()
    with pytest.raises(Refused, match="is over"):
        await a.moves.prepare(offer(a, b, number=1))


async def test_o34_a_vm_that_is_back_before_its_old_device_is_gone_has_its_connections(
    sites: Pair, net: Net
) -> None:
    """What it takes along comes to where it was before, and is there for the device that comes."""
    a, b = sites
    await move(a, b)
    await a.moves.finish(VM)
    connect(b, net)
    await prepare(b, a, number=2)
    await b.moves.freeze(VM)
    assert (await carry(b, a)).final
    a.detach()
    a.port = None
    a.plug()
    assert a.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == DEAD
    assert a.announce() == "pass"
    assert a.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    await a.moves.look()
    a.detach()
    assert a.host.datapath.places == {}


async def test_the_managers_word_brings_a_vm_to_life_that_says_nothing(sites: Pair, net: Net) -> None:
    """With what has arrived of its state."""
    a, b = sites
    connect(a, net)
    given = await prepare(a, b)
    b.plug()
    await carry(a, b)
    assert await b.moves.activate(VM) == MoveDone(given.migration, VM, Step.ACTIVATE)
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
