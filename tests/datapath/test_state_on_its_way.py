"""What a VM takes along when it moves, in rounds: all of it, in order, from its own host, and no more than
there is room for (O30, O31, O32)."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.harness.datapath import passed
from tests.harness.moving import (
    VM,
    Pair,
    Site,
    carry,
    connect,
    offer,
    prepare,
)
from tests.harness.packets import IPV4, Net, tcp, udp
from tests.harness.waiting import eventually
from vsfwd.datapath import DatapathError
from vsfwd.datapath.flowstate import FlowStates
from vsfwd.migration import coming
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.migration import MoveDone, MoveState, Step

pytestmark = pytest.mark.slow


@pytest.fixture
def net() -> Net:
    """The other family's flows move in test_moving_flows.py."""
    return IPV4


async def test_a_round_has_what_has_changed_since_the_one_before(sites: Pair, net: Net) -> None:
    """What is there is said once."""
    a, b = sites
    for sport in range(1000, 1030):
        connect(a, net, sport)
    await prepare(a, b)
    first, second = [(await a.moves.export(VM))[0] for _ in range(2)]
    assert a.moves.status()[0].flows == 30
    assert len(second.data) < len(first.data) - 100


async def test_two_who_ask_for_a_round_get_one_after_the_other(sites: Pair, net: Net) -> None:
    """The manager and a hook, at once: neither is given the other's number."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    given = await asyncio.gather(*(a.moves.export(VM) for _ in range(2)))
    assert [parts[0].round for parts in given] == [0, 1]
    for parts in given:
        assert await b.moves.take(parts[0])


async def test_o30_a_last_round_that_fails_once_is_still_the_last_one(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it could not be read or not be sealed: what has changed since the round before is in the next
    attempt."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    await carry(a, b)
    connect(a, net, sport=1001)
    await a.moves.freeze(VM)

    def fails(*_: Any) -> None:
        raise DatapathError("read the pinholes")

    with monkeypatch.context() as patch:
        patch.setattr(FlowStates, "pinholes", fails)
        with pytest.raises(DatapathError):
            await a.moves.export(VM)
    key = a.key_file.read_bytes()
    a.key_file.write_bytes(b"")
    with pytest.raises(Refused, match="key of this host"):
        await a.moves.export(VM)
    a.key_file.write_bytes(key)
    last = await carry(a, b)
    assert (last.round, last.flows, last.final) == (1, 2, True)


async def test_the_last_round_follows_a_hypervisor_that_goes_on(sites: Pair, net: Net) -> None:
    """What the kernel has is read before the port leaves, though nobody waits for it; the state is said
    first."""
    a, b = sites
    a.receive(tcp(net.peer, net.here))
    await prepare(a, b)
    await carry(a, b)
    a.moves.follow_up(await a.moves.freeze(VM))
    await eventually(lambda: bool(a.said) and isinstance(a.said[-1], MoveDone), "the freeze is said", 20)
    *parts, frozen = a.said
    assert frozen == MoveDone(parts[0].migration, VM, Step.FREEZE)  # type: ignore[union-attr]
    assert [type(part) for part in parts] == [MoveState]


@pytest.mark.parametrize("mistake", [DatapathError("read the flows"), KeyError("no such vNIC")], ids=repr)
async def test_o30_without_its_last_round_the_manager_hears_of_the_freeze_all_the_same(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch, mistake: Exception
) -> None:
    """Whether the kernel refuses or the mistake is ours (O41): the hypervisor goes on, and the target with
    what it has."""
    a, b = sites
    await prepare(a, b)
    monkeypatch.setattr(FlowStates, "export", Mock(side_effect=mistake))
    a.moves.follow_up(await a.moves.freeze(VM))
    await eventually(lambda: bool(a.said), "a word to the manager", 20)
    assert [type(said) for said in a.said] == [MoveDone]


async def test_o31_a_table_that_is_too_small_vetoes_while_the_vm_runs_at_the_source(
    sites: Pair, net: Net
) -> None:
    """The target has 512 places; the source goes on as if nothing had been. It has 1,024, and now and then
    one flow finds both of its buckets full."""
    a, b = sites
    for sport in range(1000, 1700):
        a.receive(udp(net.peer, net.here, sport=sport))
        a.send(udp(net.here, net.peer, sport, sport=53))
    await prepare(a, b)
    b.plug()
    with pytest.raises(Refused, match=r"flow quota: .* room for 512 flows, and (700|69\d) come"):
        await carry(a, b)
    assert b.states() == []
    for site in (a, b):
        await site.moves.abort(VM)
    assert a.receive(udp(net.peer, net.here, sport=1000)) == passed(2)


async def test_o32_rounds_that_never_end_fill_no_memory_of_the_target(sites: Pair, net: Net) -> None:
    """Each has room, but not all together."""
    a, b = sites
    await prepare(a, b)
    b.plug()
    for begin in (1000, 1300):
        for sport in range(begin, begin + 300):
            a.receive(udp(net.peer, net.here, sport=sport))
            a.send(udp(net.here, net.peer, sport, sport=53))
        if begin == 1000:
            await carry(a, b)
    with pytest.raises(Refused, match=r"flow quota: .* room for 512 flows, and (600|59\d) come"):
        await carry(a, b)


@pytest.mark.parametrize("spoil", ["replayed", "altered", "other move", "other source", "not in order"])
async def test_o32_what_is_not_the_next_round_of_this_move_is_refused(
    sites: Pair, net: Net, spoil: str, tmp_path: Path
) -> None:
    """And installs nothing: the state of before stays, and the right one is taken afterwards."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    b.plug()
    first = await a.moves.export(VM)
    assert await b.moves.take(first[0])
    connect(a, net, sport=1001)
    second = await a.moves.export(VM)
    parts = {
        "replayed": first[0],
        "altered": replace_data(second[0], bytes([second[0].data[0]]) + bytes(len(second[0].data) - 1)),
        "other move": MoveState("00000000-0000-4000-8000-000000000009", VM, 1, 0, 1, second[0].data),
        "other source": replace_data(second[0], await another_source(a, b, tmp_path)),
        "not in order": MoveState(second[0].migration, VM, 2, 0, 1, second[0].data),
    }
    with pytest.raises(Refused, match=r"^(state|round): "):
        await b.moves.take(parts[spoil])
    assert b.states() == ["established"]
    assert await b.moves.take(second[0])
    assert b.states() == ["established", "established"]


async def test_o32_nothing_comes_behind_the_last_round(sites: Pair, net: Net) -> None:
    """From then on the VM may be alive at any moment, and what it has there is its own."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    b.plug()
    await carry(a, b)
    await a.moves.freeze(VM)
    assert (await carry(a, b)).final
    a.moves._leaving(VM).final = False  # a host that lies
    with pytest.raises(Refused, match="round: the last one is here"):
        await carry(a, b)
    assert b.states() == ["established"]


def replace_data(part: MoveState, data: bytes) -> MoveState:
    return MoveState(part.migration, part.vm, part.round, part.part, part.parts, data)


async def another_source(a: Site, b: Site, directory: Path) -> bytes:
    """The same round, from a host that has not the source's key."""
    (directory / "mallory").mkdir()
    mallory = Site("a", a.host, a.namespace, directory / "mallory")
    mallory.state = a.state
    await mallory.moves.prepare(offer(mallory, b))
    await mallory.moves.export(VM)
    return (await mallory.moves.export(VM))[0].data


async def test_o32_a_state_that_never_comes_leaves_the_vm_to_its_policy(
    sites: Pair, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs there and has said so: after a moment it goes on without, as strict or loose as its rules
    are."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    b.plug()
    assert b.announce() == "drop"
    await b.moves.look()
    assert b.said == []
    monkeypatch.setattr(coming, "STATE_PATIENCE_S", 0.0)
    await b.moves.look()
    assert [type(said) for said in b.said] == [MoveDone]
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)).verdict == "drop"
    assert b.receive(tcp(net.peer, net.here)) == passed(1, new=True)


async def test_a_vm_that_is_heard_before_its_state_is_there_goes_on_with_it(sites: Pair, net: Net) -> None:
    """What it takes along may be the slower one."""
    a, b = sites
    connect(a, net)
    await prepare(a, b)
    await a.moves.freeze(VM)
    b.plug()
    assert b.announce() == "drop"
    await b.moves.look()
    await carry(a, b)
    await b.moves.look()
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
