"""A cluster of three RabbitMQ nodes that loses its leader, a node, its majority, in the middle of changes:
nothing is lost, nothing is applied twice, and hosts have everything five seconds after it is whole again.

The short forms find a silent node sooner than an installation does; most deep ones have its very times."""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

import vsfwd.amqp
from manager_stub.app import Parts, compose
from manager_stub.model import Rule, SecurityPolicy
from tests.harness.cluster import Cluster, cluster
from tests.harness.simulated import SimulatedHost, Took
from tests.harness.waiting import eventually
from vsfwd.amqp import Link
from vsfwd.applythread import ApplyThread
from vsfwd.protocol.messages import Binding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HOSTS = 5
DEADLINE_S = 90.0
CONVERGED_S = 5.0
"""After the cluster is whole again. Asked of the deep forms, which have the machine to themselves."""
NOTICED_S = vsfwd.amqp.HEARTBEAT_S + 2
"""Half a heartbeat until something is sent, the other half until it is given up, and the end of a session."""
RULES = 50
SECTION = "/infra/domains/default/security-policies/storm"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


class Trial:
    """A manager and hosts. `enforced`: by host, the (epoch, generation) of each state it applied."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.enforced: dict[str, list[tuple[int, int]]] = {}
        self.links: list[Link] = [parts.publisher]
        self.changes = 0

    def took(self, host: SimulatedHost, took: Took) -> None:
        self.enforced[host.id].append((took.state.epoch, took.state.generation))

    async def storm(self, changes: int) -> None:
        """Another rule is another one with each, as fast as the hosts may come by."""
        for _ in range(changes):
            self.changes += 1
            high, low = divmod(self.changes, 256)
            rule = Rule.model_validate({"action": "ALLOW", "source_groups": [f"10.1.{high}.{low}"]})
            self.parts.register.write(put={f"{SECTION}/rules/{self.changes % RULES}": rule})
            await asyncio.sleep(0.02)

    async def storm_until(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            await self.storm(1)

    async def converges(self, after: str) -> float:
        """How long it took, in seconds."""
        begun = time.monotonic()
        await eventually(self.in_sync, f"all hosts in sync after {after}", DEADLINE_S)
        took_s = time.monotonic() - begun
        print(f"all hosts have all of it {took_s:.1f} s after {after}")
        for positions in self.enforced.values():
            assert positions == sorted(set(positions)), "a host went back, or applied a generation twice"
        return took_s

    def in_sync(self) -> bool:
        hosts = self.parts.register.hosts
        return all(
            hosts[id].level.in_sync
            and hosts[id].level.outgoing is None
            and positions[-1:] == [(hosts[id].level.epoch, hosts[id].level.generation)]
            for id, positions in self.enforced.items()
        )


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsfwd.amqp, "HEARTBEAT_S", 2)  # a node that falls silent is found in seconds
    monkeypatch.setattr(vsfwd.amqp, "CONNECT_TIMEOUT_S", 3)


@pytest.fixture
async def trial(found: Cluster) -> AsyncIterator[Trial]:
    await asyncio.to_thread(found.complete)
    parts = compose(found.directory)
    trial, apply_thread = Trial(parts), ApplyThread()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(parts.publisher.run())]
        parts.register.write(put={SECTION: SecurityPolicy.model_validate({"category": "Application"})})
        await eventually(lambda: parts.publisher.connected_to is not None, "the manager's session")
        for number in range(HOSTS):
            config = await found.enrol(parts, str(uuid.uuid4()))
            trial.enforced[config.host_id] = []
            vnic = Binding(str(uuid.uuid4()), str(uuid.uuid4()), f"02:00:00:00:01:{number:02x}", "veth0")
            host = SimulatedHost(config, [vnic], apply_thread, trial.took)
            trial.links.append(host.link)
            running.append(tasks.create_task(host.run()))
        await trial.storm(RULES)
        await trial.converges("the beginning")
        yield trial
        for task in running:
            task.cancel()
    for id in list(trial.enforced):
        with contextlib.suppress(Exception):
            parts.register.remove_host(id)
    await parts.broker.close()
    parts.store.close()


async def whole_again(found: Cluster, trial: Trial, after: str) -> float:
    """How long hosts took to have everything since RabbitMQ has healed: two nodes serve, queues have leaders.
    It may restart nodes for that, and elect others once more."""
    begun = healed = time.time()
    async with asyncio.timeout(DEADLINE_S):
        while not trial.in_sync():
            if found.serving() < 2:
                healed = time.time()
            await asyncio.sleep(0.1)
    await trial.converges(after)
    now = time.time()
    took_s = now - max(healed, min(found.elected(), now))
    print(f"that is {now - begun:.1f} s, {took_s:.1f} s of them since RabbitMQ has healed")
    return took_s


@pytest.mark.usefixtures("hasty")
async def test_o10_the_leader_of_the_queues_dies_in_a_storm(found: Cluster, trial: Trial) -> None:
    """Another node leads them; manager and hosts that were connected there go to the others."""
    leader = found.leader_of(next(iter(trial.enforced)))
    storm = asyncio.create_task(trial.storm(100))
    await asyncio.sleep(0.5)
    leader.processes()["node"].kill()
    await storm
    await trial.converges("its leader was killed")


@pytest.mark.deep
@pytest.mark.usefixtures("hasty")
async def test_o11_a_node_that_falls_silent_is_left(found: Cluster, trial: Trial) -> None:
    """Its connections stay open and nothing comes: heartbeats tell. The node comes back, with nothing old."""
    silent = found.leader_of(next(iter(trial.enforced)))
    storm = asyncio.create_task(trial.storm(50))
    node = silent.processes()["node"]
    node.signal(signal.SIGSTOP)
    try:
        await storm
        await trial.converges("a node fell silent")
    finally:
        node.signal(signal.SIGCONT)
    await trial.storm(10)
    await trial.converges("it was heard again")


@pytest.mark.usefixtures("hasty")
async def test_o11_a_node_that_is_cut_off_pauses_and_the_others_go_on(found: Cluster, trial: Trial) -> None:
    """Nobody reaches it, neither nodes nor hosts nor the manager. The other two lead its queues."""
    alone = found.leader_of(next(iter(trial.enforced)))
    with found.cut_off(alone):
        await trial.storm(50)
        await trial.converges("a node was cut off")
        await trial.storm(10)
    await trial.converges("it was whole again")


@pytest.mark.deep
@pytest.mark.timeout(900)
async def test_o10_leader_after_leader_dies_in_a_storm_of_minutes(found: Cluster, trial: Trial) -> None:
    """Thousands of generations, while whichever node leads is killed and comes back."""
    ended, times = asyncio.Event(), []
    storm = asyncio.create_task(trial.storm_until(ended))
    for host in [*trial.enforced, *trial.enforced]:
        leader = await asyncio.to_thread(found.leader_of, host)
        leader.processes()["node"].kill()
        await asyncio.sleep(5.0)
        await asyncio.to_thread(found.complete)
        await asyncio.sleep(5.0)
    ended.set()
    await storm
    times.append(await trial.converges(f"a storm of {trial.changes} changes"))
    applied = sorted(len(positions) for positions in trial.enforced.values())
    print(f"{trial.changes} changes were applied in {applied} steps")
    assert trial.changes >= 2000
    assert max(times) <= CONVERGED_S


@pytest.mark.deep
@pytest.mark.parametrize("cut_s", [2, 7, 13, 30])
async def test_o11_a_cut_of_any_length_is_made_good(found: Cluster, trial: Trial, cut_s: int) -> None:
    """Shorter than anybody notices, in the middle of noticing, and long after."""
    alone = found.leader_of(next(iter(trial.enforced)))
    ended = asyncio.Event()
    with found.cut_off(alone):
        storm = asyncio.create_task(trial.storm_until(ended))
        await asyncio.sleep(cut_s)
        noticed = all(link.connected_to != alone.url for link in trial.links)
        assert noticed or cut_s < NOTICED_S, "somebody believes in a node that is cut off"
        ended.set()
        await storm
    assert await whole_again(found, trial, f"a cut of {cut_s} s was over") <= CONVERGED_S


@pytest.mark.deep
async def test_o10_nodes_that_do_not_see_each_other_all_pause(found: Cluster, trial: Trial) -> None:
    """Hosts and manager reach all three, and none of them serves: nobody is told two different things."""
    with found.parted():
        storm = asyncio.create_task(trial.storm(500))
        await eventually(lambda: not found.serving(), "all nodes have paused", DEADLINE_S)
        await storm
        before = {id: positions[-1] for id, positions in trial.enforced.items()}
    assert await whole_again(found, trial, "they see each other") <= CONVERGED_S
    assert all(trial.enforced[id][-1] > position for id, position in before.items())


@pytest.mark.deep
@pytest.mark.parametrize("away_s", [0, 2, 4, 7, 10, 15, 20, 30, 45, 60])
async def test_o10_without_a_majority_nothing_moves_and_nothing_is_lost(
    found: Cluster, trial: Trial, away_s: int
) -> None:
    """Hosts keep what they have, the manager keeps what is wanted; with the nodes it all goes out."""
    for node in found.nodes[1:]:
        node.processes()["node"].kill()
    await eventually(lambda: not found.serving(), "the last node has paused", DEADLINE_S)
    before = {id: positions[-1] for id, positions in trial.enforced.items()}
    await trial.storm(20)
    await asyncio.sleep(away_s)
    assert {id: positions[-1] for id, positions in trial.enforced.items()} == before
    for node in found.nodes[1:]:
        await asyncio.to_thread(node.start)
    assert await whole_again(found, trial, "the majority was started") <= CONVERGED_S
