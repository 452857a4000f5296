"""A VM moves between two hosts: both parts of it, with the kernel's tables of both, as the manager would
order it (O30, O31, O32, O33, O34, O35)."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from scapy.layers.l2 import ARP, Ether

from tests.harness.datapath import Host, Port, dropped, inside, passed
from tests.harness.packets import IPV4, ISN, Net, tcp, udp
from tests.harness.policies import policy, vnic_id
from vsfwd.datapath import DatapathError, Hold, departed
from vsfwd.datapath.flowstate import FlowStates
from vsfwd.identity import key_pem, new_key
from vsfwd.migration import coming
from vsfwd.migration import move as move_module
from vsfwd.migration.here import Here
from vsfwd.migration.move import Moves
from vsfwd.migration.sealed import public_der
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding, Claim, Source
from vsfwd.protocol.migration import Move, MoveDone, MoveOffer, MoveState, MoveWanted, Step

pytestmark = pytest.mark.slow

VM = "00000000-0000-4000-8000-0000000000aa"
RULES = ["allow in service tcp", "allow service udp", "drop"]
VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
MAC = "02:00:00:00:00:00"
DEAD, FROZEN = dropped("dead"), dropped("frozen")


def each(act: Callable[[str], None], vnics: Collection[str]) -> None:
    for vnic in vnics:
        act(vnic)


class Learning:
    """What discovery has seen, and is told."""

    def __init__(self) -> None:
        self.learned: dict[str, Mapping[str, Claim]] = {}

    async def take_over(self, vnic: str, claims: tuple[Claim, ...]) -> None:
        self.learned[vnic] = {claim.address: claim for claim in claims}


class Site:
    """One host: its datapath, and the moves it takes part in. What `say` is told is in `said`."""

    def __init__(self, name: str, host: Host, namespace: str, directory: Path) -> None:
        self.name, self.host, self.namespace = name, host, namespace
        self.key = new_key()
        self.key_file = directory / f"{name}.pem"
        self.key_file.write_bytes(key_pem(self.key))
        self.discovery = Learning()
        self.said: list[Move] = []
        self.state = DesiredState()
        self.policy: Callable[[], DesiredState] = lambda: self.state
        self.port: Port | None = None
        self._thread = ThreadPoolExecutor(1)
        self.restart()

    def restart(self) -> None:
        """Another daemon: it remembers nothing of moves."""
        self.moves = Moves(
            Here(
                self.name,
                self.key_file,
                self.host.datapath,
                self._apply,  # type: ignore[arg-type]
                self.discovery,  # type: ignore[arg-type]
                lambda: self.policy(),
                lambda: [Binding(vnic_id("here"), VM, MAC, "port0")] if self.port else [],
                lambda vnics: each(self.host.datapath.reserve, vnics),
                lambda vnics: each(self.host.datapath.give_up, vnics),
            )
        )
        self.moves.say = self._say

    async def _apply(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return self._there(work, *arguments)

    def _there(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """On the host's own thread: netlink has an event loop of its own, and the test has one already."""

        def run() -> Any:
            with inside(self.namespace):
                return work(*arguments)

        return self._thread.submit(run).result()

    async def _say(self, said: Move) -> None:
        self.said.append(said)

    def plug(self) -> None:
        """The VM's device is here, and the tables are made with it."""
        if self.port is None:
            self.port = self._there(self.host.port, "here")
            self.install()

    def install(self) -> None:
        self._there(lambda: self.host.install(RULES, vnics=VNICS))
        self.state = policy(RULES, vnics=VNICS)

    def receive(self, packet: Any) -> Any:
        assert self.port
        return self._there(self.port.receive, packet)

    def send(self, packet: Any) -> Any:
        assert self.port
        return self._there(self.port.send, packet)

    def detach(self) -> None:
        """The VM's device is gone."""
        self._there(self.host.datapath.detach, vnic_id("here"))

    def unplug(self) -> None:
        self._there(self.host.unplug)
        self._thread.shutdown()

    def announce(self) -> str:
        """The VM says where it is."""
        verdict: str = self.send(
            Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=MAC, psrc="10.0.0.1", pdst="10.0.0.1")
        ).verdict
        return verdict

    def states(self) -> list[str]:
        assert self.port
        return sorted(self.port.states())


Pair = tuple[Site, Site]


@pytest.fixture
def net() -> Net:
    """The other family's flows move in test_moving_flows.py."""
    return IPV4


@pytest.fixture
def sites(shared_host: tuple[Host, str], shared_target: tuple[Host, str], tmp_path: Path) -> Iterator[Pair]:
    """The VM is on the first, with a policy; the second has that policy."""
    with ExitStack() as cleanup:
        found = []
        for name, (host, namespace) in (("a", shared_host), ("b", shared_target)):
            found.append(Site(name, host, namespace, tmp_path))
            cleanup.callback(found[-1].unplug)
        a, b = found
        a.plug()
        for site in found:
            site.install()
        yield a, b


def offer(a: Site, b: Site, number: int = 1, **fields: Any) -> MoveOffer:
    keys = public_der(a.key.public_key()), public_der(b.key.public_key())
    binding = Binding(vnic_id("here"), VM, MAC, "port0")
    id = f"00000000-0000-4000-8000-{number:012}"
    given = {"epoch": b.state.epoch, "generation": b.state.generation} | fields
    return MoveOffer(id, VM, a.name, b.name, *keys, (binding,), **given)


def connect(site: Site, net: Net, sport: int = 1000) -> None:
    site.receive(tcp(net.peer, net.here, sport=sport))
    site.send(tcp(net.here, net.peer, sport, "SA", sport=80))
    assert site.receive(tcp(net.peer, net.here, sport=sport, flags="A")) == passed(1)


async def prepare(a: Site, b: Site, number: int = 1) -> MoveOffer:
    given = offer(a, b, number)
    for site in (b, a):
        assert await site.moves.prepare(given) == MoveDone(given.migration, VM, Step.PREPARE)
    return given


async def carry(a: Site, b: Site) -> MoveDone:
    """One round."""
    for part in await a.moves.export(VM):
        done = await b.moves.take(part)
    assert done
    return done


async def move(a: Site, b: Site, number: int = 1) -> None:
    """All of it, until the VM is alive at the target."""
    await prepare(a, b, number)
    assert not (await carry(a, b)).final
    await a.moves.freeze(VM)
    assert (await carry(a, b)).final
    b.plug()
    await b.moves.look()
    assert b.announce() == "pass"
    await b.moves.look()


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


async def test_the_last_round_follows_a_hypervisor_that_goes_on(sites: Pair, net: Net) -> None:
    """What the kernel has is read before the port leaves, though nobody waits for it; the state is said
    first."""
    a, b = sites
    a.receive(tcp(net.peer, net.here))
    await prepare(a, b)
    await carry(a, b)
    a.moves.follow_up(await a.moves.freeze(VM))
    async with asyncio.timeout(20):
        while not a.said or not isinstance(a.said[-1], MoveDone):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    *parts, frozen = a.said
    assert frozen == MoveDone(parts[0].migration, VM, Step.FREEZE)  # type: ignore[union-attr]
    assert [type(part) for part in parts] == [MoveState]


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


async def test_o35_a_move_that_is_aborted_while_it_is_prepared_is_none(
    sites: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target waits for a policy then; what it holds it lets go, and it takes part no more. Nobody else
    prepares that VM meanwhile."""
    a, b = sites
    b.policy = DesiredState
    preparing = asyncio.create_task(b.moves.prepare(offer(a, b)))
    async with asyncio.timeout(20):
        while not b.host.datapath.holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
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


async def test_the_managers_word_brings_a_vm_to_life_that_says_nothing(sites: Pair, net: Net) -> None:
    """With what has arrived of its state."""
    a, b = sites
    connect(a, net)
    given = await prepare(a, b)
    b.plug()
    await carry(a, b)
    assert await b.moves.activate(VM) == MoveDone(given.migration, VM, Step.ACTIVATE)
    assert b.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)


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
