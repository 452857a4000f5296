"""What a change costs on the bus, counted there: whom it concerns, not how much policy there is."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from manager_stub.model import Entity, Group, Rule, SecurityPolicy, Vm
from tests.harness.hostile import Hostile
from tests.harness.installation import Installation, Manager, installed
from tests.harness.simulated import SimulatedHost
from tests.harness.waiting import eventually
from vsfwd.applythread import ApplyThread
from vsfwd.protocol.messages import Binding

pytestmark = pytest.mark.slow

DOMAIN = "/infra/domains/default"
RULES = 5000
"""Of a tenant, at most: those that follow take the place of the first."""
HEADER = 400
"""Bytes of a header and its signature, and some more."""


class World:
    """Two hosts, each with a VM of a tenant of its own; what is sent to them is seen."""

    def __init__(self, manager: Manager, hosts: list[SimulatedHost], seen: Hostile) -> None:
        self.register = manager.register
        self.manager = manager
        self.hosts = hosts
        self.seen = seen

    async def sent(self, put: dict[str, Entity]) -> list[int]:
        """Bytes that each host was sent for a change."""
        for messages in self.seen.seen.values():
            messages.clear()
        self.register.write(put=put)
        await eventually(self.manager.in_sync, "every host in sync")
        await self.seen.catch_up()
        return [
            sum(len(part) for each in self.seen.seen.get(host.id, []) for part in (each.header, each.body))
            for host in self.hosts
        ]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as installation:
        yield installation


@pytest.fixture
async def world(installation: Installation) -> AsyncIterator[World]:
    async with installation.manager() as manager:
        hostile, hosts = Hostile(installation, 0), []
        await eventually(lambda: manager.publisher.connected_to is not None, "the manager's session")
        manager.register.write(put={path(number): vm(number, number) for number in range(4)})
        manager.register.write(put=policy())
        async with hostile.at_work(), asyncio.TaskGroup() as tasks:
            for number in range(2):
                config = await installation.enrol(manager, str(uuid.UUID(int=(3 << 100) + number)))
                binding = Binding(vnic(number), path(number).rsplit("/", 1)[1], mac(number), "veth0")
                hosts.append(SimulatedHost(config, [binding], ApplyThread(), lambda host, took: None))
            running = [tasks.create_task(host.run()) for host in hosts]
            await eventually(
                lambda: all(len(host.reconciler.state.rules) > 1 for host in hosts), "both have the rules"
            )
            yield World(manager, hosts, hostile)
            for task in running:
                task.cancel()


async def test_a_change_costs_what_changes_and_only_where_it_is_asked_for(world: World) -> None:
    """A VM joins a tenant: its host is sent one vNIC, the other host nothing; with two thousand rules more,
    half of them that host's own, the same few bytes. Of a rule that changes likewise."""
    few = await world.sent({path(2): vm(2, 0)})
    assert 0 < few[0] < HEADER + 300
    assert few[1] == 0
    await world.sent({path(2): vm(2, 2)})

    more = await world.sent(rules(0, 1000) | rules(1, 1000))
    assert min(more) > 10 * few[0]
    many = await world.sent({path(2): vm(2, 0)})
    assert abs(many[0] - few[0]) < 20  # a generation of more digits
    assert many[1] == 0
    one, other = await world.sent(rules(1, 1, first=RULES + 1))
    assert one == 0
    assert 0 < other < HEADER + 1000


def policy() -> dict[str, Entity]:
    """Of two tenants, each with a rule of its own."""
    put: dict[str, Entity] = {}
    for tenant in range(2):
        condition = {
            "resource_type": "Condition",
            "member_type": "VirtualMachine",
            "key": "Tag",
            "operator": "EQUALS",
            "value": f"tenant|{tenant}",
        }
        put[group(tenant)] = Group.model_validate({"expression": [condition]})
        put[section(tenant)] = SecurityPolicy.model_validate({"scope": [group(tenant)]})
    return put | rules(0, 1) | rules(1, 1)


def rules(tenant: int, count: int, first: int = 1) -> dict[str, Entity]:
    return {
        f"{section(tenant)}/rules/r{number % RULES}": Rule.model_validate(
            {
                "action": "ALLOW",
                "source_groups": [group(tenant)],
                "service_entries": [
                    {
                        "resource_type": "L4PortSetServiceEntry",
                        "display_name": "port",
                        "l4_protocol": "TCP",
                        "destination_ports": [str(number)],
                    }
                ],
            }
        )
        for number in range(first, first + count)
    }


def group(tenant: int) -> str:
    return f"{DOMAIN}/groups/tenant-{tenant}"


def section(tenant: int) -> str:
    return f"{DOMAIN}/security-policies/tenant-{tenant}"


def vm(number: int, tenant: int) -> Vm:
    card = {"id": vnic(number), "mac": mac(number), "addresses": [f"10.0.0.{number + 1}"]}
    tags = [{"scope": "tenant", "tag": str(tenant)}]
    return Vm.model_validate({"display_name": f"vm {number}", "tags": tags, "vnics": [card]})


def path(number: int) -> str:
    return f"/vsfw/vms/{uuid.UUID(int=(1 << 100) + number)}"


def vnic(number: int) -> str:
    return str(uuid.UUID(int=(2 << 100) + number))


def mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"
