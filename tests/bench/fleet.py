"""A thousand hosts on one broker: how long until the last one enforces a change, who hears of it, how they
come back, and what each of them costs.

The manager (register and publisher), RabbitMQ and the hosts' link and reconciler are the real ones, over TLS;
the hosts have no kernel (`harness/simulated.py`) and share two processes (`fleethosts.py`). Everything shares
the machine's cores, so what is measured is the work of a whole installation, not the wait of one host. State
directories are in memory: a thousand hosts have a disk each.

    rule     a rule for everybody is changed: until the last host enforces it, with the processor time each
             program has taken until then, and until the manager has heard so of every host
    tag      a VM gets or loses a tag that ten hosts ask for: until the last of these enforces it. The bench
             fails if any other host hears anything
    back     the broker is stopped and started: from when it listens until the manager has heard of every
             host. The bench fails if any host, all of which are up to date, is sent a message for that
"""

import asyncio
import itertools
import logging
import os
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import structlog

from manager_stub.model import Entity
from tests.bench.fleethosts import Simulated, encoded
from tests.bench.ratios import Estimate, Target, estimate
from tests.bench.report import Figure
from tests.bench.rounds import Progress
from tests.bench.tenants import EVERYBODY, TENANT, changing_rule, mac, policy, uuid_of, vm, vm_path
from tests.harness.installation import Installation, Manager, installed
from tests.harness.waiting import eventually
from vsfwd.protocol.messages import Binding

SIZES: Final = (10, 100, 1000)
PROCESSES: Final = 2
DEADLINE_S: Final = 120.0
STATISTICS_S: Final = 5.0
"""What a broker that was just spoken to takes to be quiet again."""
RULE: Final = "a rule for everybody, until the last host enforces it"
TAG: Final = "a tag that ten hosts ask for, until the last of them enforces it"
BACK: Final = "hosts come back to a restarted broker"
HEARD: Final = "a rule for everybody, until the manager has heard so of every host"
PROCESSOR: Final = "a rule for everybody, processor time until the last host enforces it"
SHARES: Final = ("a host's rules", "a host's policy", "the broker's memory for a host")
MEMORY_FROM: Final = 100
"""Hosts; of fewer the broker's own ups and downs are more than their share."""
SLOWEST: Final = "slowest"
TARGETS: Final = {
    RULE: Target("≤ 1500", 1500, at_least=False),
    TAG: Target("≤ 150", 150, at_least=False),
    BACK: Target("≤ 30", 30, at_least=False),
}


def planned_s(sizes: Sequence[int], rounds: int) -> float:
    return sum(50 + size * (0.08 + rounds * 0.0027) for size in sizes)


def run(sizes: Sequence[int], rounds: int, restart: bool, progress: Progress) -> list[Figure]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable()
    figures = []
    for size in sizes:
        with (
            TemporaryDirectory(prefix="vsfwd-bench-", dir="/dev/shm") as directory,
            installed(Path(directory)) as at,
        ):
            figures += asyncio.run(_measured(at, size, rounds, restart))
        progress.step(f"fleet: {size:,} hosts", planned_s([size], rounds))
    order = {group: number for number, group in enumerate((RULE, HEARD, PROCESSOR, TAG, BACK, *SHARES))}
    return sorted(figures, key=lambda figure: (order[figure.group], figure.name))


@dataclass(frozen=True)
class Change:
    """How long in ms it took until the last host enforced it, until the manager had heard so of all, and what
    processor time the programs took until then; `concerned`: the hosts it was for."""

    enforced_ms: float
    heard_ms: float
    processor_ms: Mapping[str, float]
    concerned: frozenset[int]


class Fleet:
    """`programs`: the processes of each. `generations`: what each host enforces; `heard`: messages after
    which hosts enforce something else, and `last_ns` when that was so for the last of them."""

    def __init__(self, manager: Manager, size: int, broker: int) -> None:
        self.manager = manager
        self.programs = {"manager": [os.getpid()], "broker": [broker], "hosts": []}
        self.ids = [uuid_of(3, number) for number in range(size)]
        self.generations: dict[int, int] = {}
        self.heard: list[int] = []
        self.last_ns = 0

    async def follow(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            number, _, generation, self.last_ns = msgspec.json.decode(line)
            self.generations[number] = generation
            self.heard.append(number)

    async def changed(self, path: str, body: Entity) -> Change:
        before = [self._wanted(id) for id in self.ids]
        self.heard.clear()
        used, begun = self._processor_ms(), time.monotonic_ns()
        self.manager.register.write(put={path: body})
        wanted = {
            number: now for number, id in enumerate(self.ids) if (now := self._wanted(id)) != before[number]
        }
        await eventually(
            lambda: all(self.generations.get(n, 0) >= g for n, g in wanted.items()), "applied", DEADLINE_S
        )
        took = {name: now - used[name] for name, now in self._processor_ms().items()}
        await eventually(self.manager.in_sync, "in sync", DEADLINE_S)
        heard_ms = (time.monotonic_ns() - begun) / 1e6
        if set(self.heard) != wanted.keys() or len(self.heard) != len(wanted):
            raise RuntimeError(f"{len(wanted)} hosts were concerned, and {len(self.heard)} messages came")
        return Change((self.last_ns - begun) / 1e6, heard_ms, took, frozenset(wanted))

    def _processor_ms(self) -> dict[str, float]:
        """The manager's is that of the bench too."""
        return {name: sum(map(_processor_ms, pids)) for name, pids in self.programs.items()}

    def _wanted(self, id: str) -> int:
        return self.manager.register.hosts[id].level.generation

    def all_heard_since(self, ms: int) -> bool:
        return all(host.last_seen_ms >= ms for host in self.manager.register.hosts.values())


async def _measured(installation: Installation, size: int, rounds: int, restart: bool) -> list[Figure]:
    empty_kb = _memory_kb(installation)
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(installation.manager())
        await eventually(
            lambda: manager.publisher.connected_to is not None, "the manager's session", DEADLINE_S
        )
        manager.register.write(put=policy(size))
        fleet = Fleet(manager, size, installation.node.processes()["node"].pid)
        await _start_hosts(installation, fleet, stack)
        await eventually(
            lambda: fleet.all_heard_since(1) and manager.in_sync(), "every host in sync", DEADLINE_S
        )
        await asyncio.sleep(STATISTICS_S)
        shares = _shares(fleet, size, (_memory_kb(installation) - empty_kb) / size)
        rule, tag = [], []
        for number in range(rounds):
            rule.append(await fleet.changed(f"{EVERYBODY}/rules/changing", changing_rule(number)))
            assert len(rule[-1].concerned) == size
            tagged = vm(size // 2, web=(size // 2 + number) % 2 == 1)
            tag.append(await fleet.changed(vm_path(size // 2), tagged))
            assert len(tag[-1].concerned) == TENANT
        figures = [
            *_timed(RULE, size, [each.enforced_ms for each in rule]),
            *_timed(TAG, size, [each.enforced_ms for each in tag]),
            Figure("fleet", HEARD, "median", size, "ms", estimate([each.heard_ms for each in rule])),
            *_processor(size, rule),
            *shares,
        ]
        if restart:
            back = _exactly(await _restarted(installation, fleet), 1)
            figures.append(Figure("fleet", BACK, "all of them", size, "s", back, TARGETS[BACK]))
    return figures


def _timed(group: str, size: int, samples: list[float]) -> list[Figure]:
    """Of up to a hundred samples the slowest is the 99th percentile."""
    slowest = _exactly(max(samples), len(samples))
    target = TARGETS[group] if size == SIZES[-1] else None
    return [
        Figure("fleet", group, "median", size, "ms", estimate(samples), None, {group: samples}),
        Figure("fleet", group, SLOWEST, size, "ms", slowest, target),
    ]


def _processor(size: int, changes: Sequence[Change]) -> list[Figure]:
    return [
        Figure("fleet", PROCESSOR, name, size, "ms", estimate([each.processor_ms[name] for each in changes]))
        for name in changes[0].processor_ms
    ]


def _exactly(value: float, samples: int) -> Estimate:
    return Estimate(value, value, value, samples)


def _shares(fleet: Fleet, size: int, broker_kb: float) -> list[Figure]:
    states = [host.level.wanted.objects for host in fleet.manager.register.hosts.values()]
    values = (
        ("rules", statistics.mean(len(objects["rules"]) for objects in states)),
        ("bytes", statistics.mean(_bytes(objects) for objects in states)),
        ("KB", broker_kb),
    )
    return [
        Figure("fleet", group, "mean", size, unit, _exactly(value, 1))
        for group, (unit, value) in zip(SHARES, values, strict=True)
        if unit != "KB" or size >= MEMORY_FROM
    ]


def _bytes(objects: Mapping[str, Mapping[str, bytes]]) -> int:
    return sum(len(id) + len(raw) for kind in objects.values() for id, raw in kind.items())


async def _start_hosts(installation: Installation, fleet: Fleet, stack: AsyncExitStack) -> None:
    at_once = asyncio.Semaphore(4)

    async def enrolled(number: int, id: str) -> Simulated:
        async with at_once:
            config = await installation.enrol(fleet.manager, id)
        return Simulated(
            number, config, (Binding(uuid_of(2, number), uuid_of(1, number), mac(number), "veth"),)
        )

    hosts = await asyncio.gather(*itertools.starmap(enrolled, enumerate(fleet.ids)))
    for share in range(PROCESSES):
        argv = sys.executable, "-m", "tests.bench.fleethosts"
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        stack.push_async_callback(_end, process)
        assert process.stdin
        assert process.stdout
        fleet.programs["hosts"].append(process.pid)
        process.stdin.write(encoded(list(hosts[share::PROCESSES])) + b"\n")
        following = asyncio.create_task(fleet.follow(process.stdout))
        stack.callback(following.cancel)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _restarted(installation: Installation, fleet: Fleet) -> float:
    """In s."""
    fleet.heard.clear()
    await asyncio.to_thread(installation.node.stop)
    installation.node.start()
    await eventually(lambda: _listens(installation), "the broker listens", DEADLINE_S, every_s=0.1)
    begun = time.time_ns()
    await eventually(lambda: fleet.all_heard_since(begun // 1_000_000), "all hosts back", DEADLINE_S)
    took_s = (time.time_ns() - begun) / 1e9
    await eventually(fleet.manager.in_sync, "in sync", DEADLINE_S)
    if fleet.heard:
        raise RuntimeError(f"hosts that were up to date took {len(fleet.heard)} messages")
    return took_s


def _listens(installation: Installation) -> bool:
    try:
        socket.create_connection((installation.node.address, installation.node.port), 1.0).close()
    except OSError:
        return False
    return True


def _processor_ms(pid: int) -> float:
    """Of all its threads, those that have ended among them: its CPU clock, by the number that
    clock_getcpuclockid(3) gives it."""
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e6


def _memory_kb(installation: Installation) -> int:
    node = installation.node.processes()["node"]
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])
