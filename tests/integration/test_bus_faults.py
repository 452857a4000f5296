"""O10, O11, O12, O13, O14 and O29: the bus under faults that nobody chose. Real link, reconciler, manager
and broker, and a schedule of what goes wrong between them. Whatever happens, hosts come to enforce
what the manager wants, never go back on the way, and nothing grows.

Every schedule is made from one integer. `pytest tests/integration/test_bus_faults.py --seed N` is that one.
"""

import asyncio
import gc
import logging
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import manager_stub.publisher
import vsfwd.amqp
import vsfwd.broker
from manager_stub.model import Group, Rule, SecurityPolicy, Vm
from tests.harness.faultyproxy import FaultyProxy, Spoil
from tests.harness.hostile import Hostile
from tests.harness.installation import Installation, Manager
from tests.harness.schedules import HOSTS, MANAGER, Step, schedule
from tests.harness.simulated import SimulatedHost, Took
from tests.harness.waiting import eventually
from vsfwd.applythread import ApplyThread
from vsfwd.broker import OUTGOING
from vsfwd.config import Config
from vsfwd.protocol import topology
from vsfwd.protocol.messages import Binding

pytestmark = pytest.mark.slow

DEADLINE_S = 40.0
RESEND_AFTER_S = 0.4
LOSS_S = 0.1
"""How long messages vanish: long enough for a change to go out."""
MOST_WAITING = 32
"""Policy messages that wait for one host (the queue's length in manager_stub.broker)."""
MORE_OBJECTS = 3_000
MORE_BYTES = 16 * 1024 * 1024
"""Than after the second schedule, at the end. A connection of one session is some 700 objects."""
GROUP = "/infra/domains/default/groups/number"
SECTION = "/infra/domains/default/security-policies/faults"


@pytest.fixture
def unrecorded() -> Iterator[None]:
    """pytest keeps what libraries log, and with an error in it the connection that it came from."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a broker, or looks whether it is there, does so in a tenth of the time."""
    for module, name, value in (
        (vsfwd.amqp, "PAUSE_S", (0.1, 0.5)),
        (vsfwd.amqp, "HEARTBEAT_S", 1),
        (vsfwd.amqp, "CONNECT_TIMEOUT_S", 2),
        (vsfwd.amqp, "CLOSE_TIMEOUT_S", 0.5),
        (vsfwd.broker, "CHECK_S", 1.0),
        (vsfwd.broker, "CONNECT_TIMEOUT_S", 2),
        (vsfwd.amqp, "PUBLISH_TIMEOUT_S", 2),
        (manager_stub.publisher, "RESEND_AT_MOST_S", 2.0),
    ):
        monkeypatch.setattr(module, name, value)


class Trial:
    """A manager and its hosts, each behind a wire of its own, and what each host has enforced, in order.

    The policy says a number, one more with each change, so that a host that goes back is seen without
    believing any generation."""

    def __init__(self, installation: Installation, seed: int) -> None:
        self._installation = installation
        node = installation.node
        self.wires = [FaultyProxy(node.address, node.port, seed + wire) for wire in range(HOSTS + 1)]
        self.hostile = Hostile(installation, seed)
        self.configs: list[Config] = []
        self.hosts: list[SimulatedHost] = []
        self.enforced: dict[str, list[tuple[int, int, int]]] = {}
        self.number = 0
        self._apply_thread = ApplyThread()
        self._running: list[asyncio.Task[None]] = []
        self._managed = AsyncExitStack()

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator["Trial"]:
        async with AsyncExitStack() as stack:
            for wire in self.wires:
                await stack.enter_async_context(wire.running())
            await self._start_manager()
            stack.push_async_callback(self._stop_all)
            await eventually(lambda: self.manager.publisher.connected_to is not None, "the manager's session")
            await stack.enter_async_context(self.hostile.at_work())
            self.change()
            for wire in range(HOSTS):
                await self._enrol(wire)
            await self.converged("in the beginning")
            await self.hostile.catch_up()
            yield self

    async def _start_manager(self) -> None:
        url = self.wires[MANAGER].url
        self.manager: Manager = await self._managed.enter_async_context(
            self._installation.manager(url, RESEND_AFTER_S)
        )

    async def _enrol(self, wire: int) -> None:
        config = await self._installation.enrol(self.manager, str(uuid.uuid4()), self.wires[wire].url)
        self.configs.append(config)
        self.enforced[config.host_id] = []
        vm, vnic = str(uuid.uuid4()), str(uuid.uuid4())
        card = {"id": vnic, "mac": f"02:00:00:00:00:{wire:02x}", "addresses": [f"10.9.0.{wire + 1}"]}
        self.manager.register.write(put={f"/vsfw/vms/{vm}": Vm.model_validate({"vnics": [card]})})
        self.hosts.append(self._new_host(wire, Binding(vnic, vm, card["mac"], "veth0")))
        self._running.append(asyncio.create_task(self.hosts[wire].run()))

    def _new_host(self, wire: int, binding: Binding) -> SimulatedHost:
        return SimulatedHost(self.configs[wire], [binding], self._apply_thread, self._took)

    def _took(self, host: SimulatedHost, took: Took) -> None:
        state = took.state
        said = [number_in(group.addresses[0]) for group in state.groups.values() if group.name == "number"]
        # Nothing, before the manager knows which vNICs are there.
        self.enforced[host.id].append((state.epoch, state.generation, *(said or [0])))

    async def _stop_all(self) -> None:
        """In no order: the wires may still be broken."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        register = self.manager.register
        for host in self.hosts:
            await self.manager.broker.remove_host(host.id)
            register.remove_host(host.id)
        register.write(put={}, delete=list(register.world.vms))
        await self._managed.aclose()
        self._apply_thread.finish(lambda: None)

    # What happens

    def change(self) -> None:
        self.number += 1
        addresses = {
            "resource_type": "IPAddressExpression",
            "ip_addresses": [f"10.1.{self.number >> 8}.{self.number & 255}"],
        }
        rule = {"source_groups": [GROUP], "action": "ALLOW", "logged": self.number % 2 == 0}
        self.manager.register.write(
            put={
                GROUP: Group.model_validate({"display_name": "number", "expression": [addresses]}),
                SECTION: SecurityPolicy.model_validate({"category": "Emergency"}),
                f"{SECTION}/rules/r": Rule.model_validate(rule),
            }
        )

    async def do(self, step: Step) -> None:
        wire = self.wires[step.who]
        match step.what:
            case "change":
                self.change()
            case "delay":
                wire.delay_s = 0.1
            case "cut":
                wire.cut()
            case "go silent":
                wire.go_silent()
            case "refuse":
                wire.refuses = not wire.refuses
                wire.cut()
            case "lose bytes":
                wire.spoil(Spoil.LOSE)
            case "repeat bytes":
                wire.spoil(Spoil.REPEAT)
            case "flip a bit":
                wire.spoil(Spoil.FLIP)
            case "kernel refuses":
                self.hosts[step.who].datapath.failures = 4  # more than it tries for one message
            case "restart host":
                await self._restart_host(step.who)
            case "restart manager":
                await self._managed.aclose()
                await self._start_manager()
            case _:
                await self._harm(step.what, self.configs[step.who].host_id)
        assert all(len(host.link._outgoing) <= OUTGOING for host in self.hosts)

    async def _harm(self, what: str, host: str) -> None:
        """To messages, on the broker."""
        other = next(config.host_id for config in self.configs if config.host_id != host)
        message = self.hostile.any_to(host)
        assert message is not None
        match what:
            case "replay":
                await self.hostile.send(host, message)
            case "replay to another":
                await self.hostile.send(other, message)
            case "spoil":
                await self.hostile.send(host, self.hostile.spoilt(message))
            case "flood":
                await self.hostile.send(host, message, 3 * MOST_WAITING)
                assert await self.hostile.waiting(topology.policy_queue(host)) <= MOST_WAITING
            case "lose policy":
                queue, key = topology.policy_queue(host), topology.policy_key(host)
                async with self.hostile.swallowing(topology.COMMANDS, queue, key):
                    self.change()
                    await asyncio.sleep(LOSS_S)
            case "lose reports":
                key = topology.event_key("*", "applied")
                async with self.hostile.swallowing(topology.EVENTS, topology.MANAGER_QUEUE, key):
                    self.change()
                    await asyncio.sleep(LOSS_S)
            case _:
                raise AssertionError(what)

    async def _restart_host(self, number: int) -> None:
        self._running[number].cancel()
        await asyncio.gather(self._running[number], return_exceptions=True)
        (binding,) = self.hosts[number].vnics
        self.hosts[number] = self._new_host(number, binding)
        self._running[number] = asyncio.create_task(self.hosts[number].run())

    # What is asked

    async def converged(self, why: str) -> None:
        """Every host enforces what the manager wants, and the manager knows it."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not self._is_converged():
                    for ended in (task for task in self._running if task.done()):
                        ended.result()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{why}: not converged within {DEADLINE_S:.0f} s\n{self._said()}")

    def _is_converged(self) -> bool:
        wanted = self.manager.register.hosts
        return self.manager.in_sync() and all(
            host.reconciler.state.raw == wanted[host.id].level.wanted.objects
            and host.datapath.image is host.reconciler.image is not None
            and self.enforced[host.id][-1][2] == self.number
            for host in self.hosts
        )

    def _said(self) -> str:
        levels = [host.level for host in self.manager.register.hosts.values()]
        return "\n".join(
            [
                f"number {self.number}; manager: {self.manager.publisher.last_error or 'no error'}",
                *(f"wanted {level.wanted_position}, applied {level.applied}" for level in levels),
                *(f"{host.id}: {self.enforced[host.id]}, {host.link.last_error}" for host in self.hosts),
            ]
        )

    def never_went_back(self) -> None:
        for host, positions in self.enforced.items():
            ranks = [(epoch, generation) for epoch, generation, _ in positions]
            numbers = [number for _, _, number in positions]
            assert ranks == sorted(set(ranks)), f"{host} applied a stale generation: {positions}"
            assert numbers == sorted(numbers), f"{host} went back to an older policy: {positions}"


def number_in(address: str) -> int:
    *_, high, low = address.partition("/")[0].split(".")
    return int(high) * 256 + int(low)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@dataclass(frozen=True)
class Memory:
    """Of this process: both ends of all wires."""

    objects: int
    bytes: int

    @classmethod
    def now(cls) -> "Memory":
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(len(gc.get_objects()), resident * os.sysconf("SC_PAGE_SIZE"))

    def is_bounded(self) -> bool:
        now = Memory.now()
        return now.objects <= self.objects + MORE_OBJECTS and now.bytes <= self.bytes + MORE_BYTES


async def suffer(installation: Installation, seed: int) -> None:
    """One schedule, and what must hold after it."""
    steps = schedule(seed)
    print(f"seed {seed}:", *steps, sep="\n  ")
    tasks, files = len(asyncio.all_tasks()), open_files()
    async with Trial(installation, seed).set_up() as trial:
        for step in steps:
            await trial.do(step)
            await asyncio.sleep(step.pause_s)
        for wire in trial.wires:
            wire.heal()
        for host in trial.hosts:
            host.datapath.failures = 0
        trial.change()
        await trial.converged(f"seed {seed}")
        trial.never_went_back()
    # Nothing is left, once the loop has closed what was aborted.
    await eventually(
        lambda: len(asyncio.all_tasks()) <= tasks and open_files() <= files, "no task and no file is left"
    )


@pytest.mark.usefixtures("hasty", "unrecorded")
@pytest.mark.parametrize(
    "schedules",
    [
        pytest.param(10, marks=pytest.mark.timeout(600)),
        pytest.param(200, marks=[pytest.mark.deep, pytest.mark.timeout(3600)]),
    ],
)
async def test_o10_to_o14_hosts_converge_and_never_go_back(
    installation: Installation, schedules: int, pytestconfig: pytest.Config
) -> None:
    """Wires that delay, lose, repeat, spoil, cut and go silent; messages that are lost, late, doubled,
    spoilt, or another host's; ends that restart and a kernel that refuses, while the policy changes."""
    chosen: int | None = pytestconfig.getoption("--seed")
    if chosen is not None:
        return await suffer(installation, chosen)
    for seed in range(2):
        await suffer(installation, seed)
    before = Memory.now()
    for seed in range(2, schedules):
        await suffer(installation, seed)
        await eventually(before.is_bounded, f"no more memory than before, with seed {seed}", every_s=0.5)
