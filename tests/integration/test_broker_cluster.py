"""A cluster of three RabbitMQ nodes that loses its leader, a node, its majority, in the middle of changes:
nothing is lost, nothing is applied twice, and hosts have everything a moment after it is whole again."""

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
from vagrant.lab.broker import Broker
from vsfwd.protocol.messages import Binding
from vsfwd.reconciler import ApplyThread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HOSTS = 5
DEADLINE_S = 90.0
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
        self._number = 0
        self._name = uuid.uuid4().hex

    def took(self, host: SimulatedHost, took: Took) -> None:
        self.enforced[host.id].append((took.state.epoch, took.state.generation))

    async def storm(self, changes: int) -> None:
        """A rule more with each, as fast as the hosts may come by."""
        for _ in range(changes):
            self._number += 1
            rule = Rule.model_validate({"action": "ALLOW", "display_name": str(self._number)})
            self.parts.register.write(put={f"{SECTION}/rules/{self._name}-{self._number}": rule})
            await asyncio.sleep(0.02)

    async def converges(self, after: str) -> None:
        begun = time.monotonic()
        await eventually(self._in_sync, f"all hosts in sync after {after}", DEADLINE_S)
        print(f"all hosts have all of it {time.monotonic() - begun:.1f} s after {after}")
        for positions in self.enforced.values():
            assert positions == sorted(set(positions)), "a host went back, or applied a generation twice"

    def _in_sync(self) -> bool:
        hosts = self.parts.register.hosts
        return all(
            hosts[id].level.in_sync
            and hosts[id].level.outgoing is None
            and positions[-1:] == [(hosts[id].level.epoch, hosts[id].level.generation)]
            for id, positions in self.enforced.items()
        )


@pytest.fixture
async def trial(found: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trial]:
    monkeypatch.setattr(vsfwd.amqp, "HEARTBEAT_S", 2)  # a node that falls silent is found in seconds
    monkeypatch.setattr(vsfwd.amqp, "CONNECT_TIMEOUT_S", 3)
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
            running.append(tasks.create_task(host.run()))
        await trial.storm(1)
        await trial.converges("the beginning")
        yield trial
        for task in running:
            task.cancel()
    for id in list(trial.enforced):
        with contextlib.suppress(Exception):
            parts.register.remove_host(id)
    await parts.broker.close()
    parts.store.close()


def node_process(node: Broker) -> int:
    return node.processes()["node"].pid


async def back(*nodes: Broker) -> None:
    for node in nodes:
        await asyncio.to_thread(node.start)
    for node in nodes:
        await asyncio.to_thread(node.wait_ready)


async def test_o10_the_leader_of_the_queues_dies_in_a_storm(found: Cluster, trial: Trial) -> None:
    """Another node leads them; manager and hosts that were connected there go to the others."""
    leader = found.leader_of(next(iter(trial.enforced)))
    storm = asyncio.create_task(trial.storm(100))
    await asyncio.sleep(0.5)
    leader.processes()["node"].kill()
    await storm
    await trial.converges("its leader was killed")
    await back(leader)


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
    await asyncio.to_thread(silent.wait_ready)


@pytest.mark.deep
async def test_o10_without_a_majority_nothing_moves_and_nothing_is_lost(found: Cluster, trial: Trial) -> None:
    """Hosts keep what they have, the manager keeps what is wanted; with the nodes it all goes out."""
    before = {id: positions[-1] for id, positions in trial.enforced.items()}
    for node in found.nodes[1:]:
        node.processes()["node"].kill()
    await trial.storm(20)
    assert all(positions[-1] >= before[id] for id, positions in trial.enforced.items())
    begun = time.monotonic()
    await back(*found.nodes[1:])
    print(f"two nodes are back after {time.monotonic() - begun:.1f} s")
    await trial.converges("the majority was back")
