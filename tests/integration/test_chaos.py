"""O1, O2, O4, O9, O10, O11 and O24 at once: kills, stops, changes of policy and groups, a vNIC that is
plugged anew, programs taken off, and a wire to the broker that breaks, in any order, under traffic that never
stops.

Every schedule is made from one integer. `pytest tests/integration/test_chaos.py --seed N` is that one."""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.chaos import Step, schedule
from tests.harness.faultyproxy import Spoil
from tests.harness.lone import DEVICE, NEIGHBOUR_ADDRESSES, VM_ADDRESSES
from tests.harness.pieces import pieces
from tests.harness.prober import LATE_S, PASS, STREAM, Prober, figures
from tests.harness.programs import CHAINS, take_all_off
from tests.harness.waiting import eventually
from tests.integration.chaos_host import ChaosHost, broker, chaos_host
from tests.integration.private_broker import PrivateBroker
from vagrant.lab.probe import inside
from vsfwd.datapath import bpf

pytestmark = pytest.mark.slow
RATE = 50
ON_DISK = int(RATE * LATE_S) + 5
"""Probes under what a new daemon has found on disk: the step that follows excuses those just before it."""
FEW = (1, 34, 133)
"""In which everything happens."""
SPOILS = {"lose bytes": Spoil.LOSE, "repeat bytes": Spoil.REPEAT, "flip a bit": Spoil.FLIP}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    with broker(tmp_path_factory.mktemp("chaos-broker")) as node:
        yield node


class Trial:
    """One schedule on a host, with probes towards its VM and away from it."""

    def __init__(self, chaos: ChaosHost, towards: Prober, away: Prober) -> None:
        self._chaos, self._daemon = chaos, chaos.host.daemon
        self._towards, self._away = towards, away
        self._awaited = {PASS, STREAM}
        """What passes again when the vNIC is open: what waits in a connection is said again, unless the step
        that follows ends it."""

    async def do(self, step: Step) -> None:
        for prober in (self._towards, self._away):
            prober.note(str(step))
        match step.what:
            case "rules":
                await self._chaos.rules(step.amount)
            case "members":
                await self._chaos.members()
            case "snapshot":
                await self._chaos.snapshot()
            case "many":
                for number in range(2 + int(step.amount * 8)):
                    await (self._chaos.members() if number % 2 else self._chaos.rules(step.amount))
            case "plug anew":
                await self._plug()
            case "take programs off":
                await self._take_off()
            case "kill" | "kill at the start" | "stop for a while" | "restart":
                await self._harm_daemon(step)
            case _:
                self._harm_wire(step)

    async def _harm_daemon(self, step: Step) -> None:
        match step.what:
            case "stop for a while":
                assert self._daemon.process
                self._daemon.process.send_signal(signal.SIGSTOP)
                await self._chaos.members()
                await asyncio.sleep(step.amount)
                self._daemon.process.send_signal(signal.SIGCONT)
                return
            case "kill at the start":
                self._daemon.kill()
                self._daemon.launch()
                await asyncio.sleep(step.amount)
                self._daemon.kill()
            case "kill":
                self._daemon.kill()
            case "restart":
                assert await asyncio.to_thread(self._daemon.end) == 0
        await asyncio.to_thread(self._daemon.start)
        await asyncio.to_thread(self._towards.flowing, ON_DISK)

    def _harm_wire(self, step: Step) -> None:
        wire = self._chaos.wire
        match step.what:
            case "cut":
                wire.cut()
            case "go silent":
                wire.go_silent()
            case "refuse":
                wire.refuses = not wire.refuses
                wire.cut()
            case "delay":
                wire.delay_s = step.amount / 5
            case _:
                wire.spoil(SPOILS[step.what])

    async def _plug(self) -> None:
        """Until it is open nothing need pass; what must not never does. Connections went with the vNIC:
        only a migration takes them along."""
        with self._towards.excused("lost", "connections"), self._away.excused("lost", "connections"):
            self._awaited = {PASS}
            await asyncio.to_thread(self._chaos.plug)
            await self._open()

    async def _take_off(self) -> None:
        """Until they are back the port guard lets nothing out, but what goes to the VM is not filtered."""
        with self._towards.excused("lost", "delivered"), self._away.excused("lost"):
            with inside(self._chaos.host.namespace):
                device = socket.if_nametoindex(DEVICE)
                take_all_off(device)
            await eventually(
                lambda: all(self._programs(device, chain) for chain in CHAINS), "the programs back"
            )
            await self._open()

    def _programs(self, device: int, chain: int) -> list[int]:
        with inside(self._chaos.host.namespace):
            return list(bpf.attached_programs(device, chain))

    async def _open(self) -> None:
        all_ = self._towards.tallies + self._away.tallies
        tallies = [tally for tally in all_ if tally.kind in self._awaited]
        before = [tally.arrived for tally in tallies]
        await eventually(
            lambda: all(t.arrived > b + 2 for t, b in zip(tallies, before, strict=True)),
            "what must pass passes",
        )


@asynccontextmanager
async def probed(chaos: ChaosHost) -> AsyncIterator[tuple[Prober, Prober]]:
    host = chaos.host
    with ExitStack() as stack:
        towards = Prober(host.neighbour, host.vm, VM_ADDRESSES, rate=RATE, history=chaos.history)
        away = Prober(host.vm, host.neighbour, NEIGHBOUR_ADDRESSES, rate=RATE, history=chaos.history)
        for prober in (towards, away):
            await asyncio.to_thread(prober.__enter__)
            stack.callback(prober.__exit__, None, None, None)
        yield towards, away


async def suffer(chaos: ChaosHost, seed: int) -> Counter[str]:
    """One schedule, and what must hold after it; what was counted."""
    steps = schedule(seed)
    print(f"./run test tests/integration/test_chaos.py --seed {seed}", *steps, sep="\n  ")
    await chaos.begin(seed)
    async with probed(chaos) as probers:
        trial = Trial(chaos, *probers)
        try:
            for step in steps:
                await trial.do(step)
                await asyncio.sleep(step.pause_s)
            await chaos.settled(f"after seed {seed}")
        except TimeoutError as error:
            error.add_note(chaos.host.daemon.log.read_text()[-4000:])
            raise
        for prober in probers:
            prober.note("settled")
            await asyncio.to_thread(prober.flowing)
    violations = [line for prober in probers for line in prober.violations()]
    assert not violations, "\n".join(
        [f"seed {seed}:", *violations, chaos.host.daemon.log.read_text()[-4000:]]
    )
    return sum((prober.counted() for prober in probers), Counter())


@pytest.mark.parametrize("seeds", [pytest.param(FEW, id="few"), *pieces(200, 25)])
async def test_no_packet_notices_what_is_done_to_the_host(
    node: PrivateBroker,
    tmp_path: Path,
    seeds: Sequence[int],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, str], None],
) -> None:
    """What must pass passes, what must not never does, connections go on; and what depends on the policy is
    judged by the last one that the host has confirmed, or one that it was told since."""
    chosen: int | None = pytestconfig.getoption("--seed")
    seeds = seeds if chosen is None else [chosen]
    async with chaos_host(tmp_path, node) as chaos:
        counts = [await suffer(chaos, seed) for seed in seeds]
    record_property("figure", f"{len(seeds)} schedules of chaos on a host: {figures(counts)}")
