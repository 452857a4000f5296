"""O12: a broker that takes no messages, since it says that its memory or its disk is full. Manager and hosts
go on, hold no more for it than they may, and have everything a moment after it takes messages again."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator

import pytest

import vsfwd.amqp
from manager_stub.model import Rule, SecurityPolicy
from tests.harness.installation import Installation, Manager
from tests.harness.simulated import SimulatedHost, Took
from tests.harness.waiting import eventually
from vagrant.lab.broker import Broker
from vsfwd.applythread import ApplyThread
from vsfwd.broker import OUTGOING
from vsfwd.protocol.messages import Binding

pytestmark = pytest.mark.slow

SECTION = "/infra/domains/default/security-policies/alarm"
ALARMS = {
    "mem_alarm": (
        ["set_vm_memory_high_watermark", "absolute", "1MB"],
        ["set_vm_memory_high_watermark", "0.4"],
    ),
    "disk_free_alarm": (["set_disk_free_limit", "1000000GB"], ["set_disk_free_limit", "50MB"]),
}


@pytest.fixture
async def manager(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Manager]:
    monkeypatch.setattr(vsfwd.amqp, "PUBLISH_TIMEOUT_S", 0.5)
    async with installation.manager(resend_after_s=0.2) as manager:
        await eventually(lambda: manager.publisher.connected_to is not None, "the manager's session")
        yield manager


def rabbitmqctl(node: Broker, *command: str) -> None:
    argv = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", "--longnames", "-n", node.node_name, *command]
    subprocess.run(argv, env=node._environment(), check=True, capture_output=True)


def has_alarm(node: Broker, alarm: str) -> bool:
    with node.client() as client:
        (found,) = client.get("/api/nodes").json()
    return bool(found.get(alarm))  # nothing is known of a node in its first seconds


def change(manager: Manager, number: int) -> None:
    rule = {"action": "ALLOW", "source_groups": [f"10.1.{number >> 8}.{number & 255}"]}
    section = SecurityPolicy.model_validate({"category": "Emergency"})
    manager.register.write(put={SECTION: section, f"{SECTION}/rules/r": Rule.model_validate(rule)})


def tries(manager: Manager, host: SimulatedHost) -> int:
    """How often the message that is under way was published."""
    found = manager.publisher._tries.get(host.id)
    return found.times if found else 0


@pytest.mark.parametrize("alarm", ["mem_alarm", pytest.param("disk_free_alarm", marks=pytest.mark.deep)])
async def test_o12_a_broker_with_an_alarm_takes_nothing_and_nothing_is_lost(
    installation: Installation, manager: Manager, alarm: str
) -> None:
    """The manager keeps the newest that is wanted, a host the newest that it has to say."""
    node, (full, as_before) = installation.node, ALARMS[alarm]
    positions: list[tuple[int, int]] = []

    def took(host: SimulatedHost, took: Took) -> None:
        positions.append((took.state.epoch, took.state.generation))

    config = await installation.enrol(manager, str(uuid.uuid4()))
    vnic = Binding(str(uuid.uuid4()), str(uuid.uuid4()), "02:00:00:00:00:01", "veth0")
    host = SimulatedHost(config, [vnic], ApplyThread(), took)
    running = asyncio.create_task(host.run())
    change(manager, 0)
    await eventually(lambda: bool(positions) and manager.in_sync(), "the first policy")

    await asyncio.to_thread(rabbitmqctl, node, *full)
    try:
        await eventually(lambda: has_alarm(node, alarm), "the broker's alarm", every_s=0.2)
        for number in range(1, 300):  # the broker notices with the first that it would have to take
            change(manager, number)
            host.link.send(host.reconciler.hello())
        await eventually(lambda: tries(manager, host) >= 3, "it is sent in vain")
        before = positions[-1]
        for _ in range(3 * OUTGOING):
            host.link.send(host.reconciler.hello())
        assert len(host.link._outgoing) == OUTGOING
        for number in range(300, 600):
            change(manager, number)
        assert manager.register.hosts[host.id].level.outgoing is not None
        assert positions[-1] == before, "something came through"
    finally:
        await asyncio.to_thread(rabbitmqctl, node, *as_before)
    await eventually(manager.in_sync, "all of it")
    level = manager.register.hosts[host.id].level
    assert positions[-1] == (level.epoch, level.generation)
    assert positions == sorted(set(positions)), "the host went back, or applied a generation twice"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    manager.register.remove_host(host.id)
    await manager.broker.remove_host(host.id)
