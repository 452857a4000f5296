"""O1, O2, O4, O9, O10, O11 and O24 at once: kills, stops, changes of policy and groups, a vNIC that is
plugged anew, programs taken off, and a wire to the broker that breaks, in any order, under traffic that never
stops.

Every schedule is made from one integer. `pytest tests/integration/test_chaos.py --seed N` is that one."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.chaos import Step, schedule
from tests.harness.faultyproxy import Spoil
from tests.harness.lone import CHAINS, DEVICE, NEIGHBOUR_ADDRESSES, VM_ADDRESSES
from tests.harness.prober import PASS, Prober
from tests.harness.waiting import eventually
from tests.integration.chaos_host import ChaosHost, broker, chaos_host
from tests.integration.private_broker import PrivateBroker
from vagrant.lab.probe import inside
from vsfwd.datapath import bpf

pytestmark = pytest.mark.slow
LONG = pytest.mark.timeout(3 * 3600)
RATE = 50
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
        await asyncio.to_thread(self._towards.flowing, 5)  # under what it has found on disk

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
            await asyncio.to_thread(self._chaos.plug)
            await self._open()

    async def _take_off(self) -> None:
        """Until they are back the port guard lets nothing out, but what goes to the VM is not filtered."""
        with self._towards.excused("lost", "delivered"), self._away.excused("lost"):
            with inside(self._chaos.host.namespace):
                device = socket.if_nametoindex(DEVICE)
            for chain in CHAINS:
                for program in self._programs(device, chain):
                    with inside(self._chaos.host.namespace):
                        bpf.detach_program(device, chain, program)
            await eventually(
                lambda: all(self._programs(device, chain) for chain in CHAINS), "the programs back"
            )
            await self._open()

    def _programs(self, device: int, chain: int) -> list[int]:
        with inside(self._chaos.host.namespace):
            return list(bpf.attached_programs(device, chain))

    async def _open(self) -> None:
        tallies = [tally for p in (self._towards, self._away) for tally in p.tallies if tally.kind == PASS]
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


async def suffer(chaos: ChaosHost, seed: int) -> None:
    """One schedule, and what must hold after it."""
    steps = schedule(seed)
    print(f"seed {seed}:", *steps, sep="\n  ")
    await chaos.settled(f"before seed {seed}")
    chaos.forget()
    async with probed(chaos) as probers:
        trial = Trial(chaos, *probers)
        for step in steps:
            await trial.do(step)
            await asyncio.sleep(step.pause_s)
        await chaos.settled(f"after seed {seed}")
        for prober in probers:
            prober.note("settled")
            await asyncio.to_thread(prober.flowing)
    violations = [line for prober in probers for line in prober.violations()]
    assert not violations, "\n".join(
        [f"seed {seed}:", *violations, chaos.host.daemon.log.read_text()[-4000:]]
    )


@pytest.mark.parametrize("seeds", [FEW, pytest.param(range(200), marks=[pytest.mark.deep, LONG])], ids=len)
async def test_no_packet_notices_what_is_done_to_the_host(
    node: PrivateBroker, tmp_path: Path, seeds: Sequence[int], pytestconfig: pytest.Config
) -> None:
    """What must pass passes, what must not never does, connections go on; and what depends on the policy is
    judged by the last one that the host has confirmed, or one that it was told since."""
    chosen: int | None = pytestconfig.getoption("--seed")
    async with chaos_host(tmp_path, node, chosen or 0) as chaos:
        for seed in seeds if chosen is None else [chosen]:
            await suffer(chaos, seed)
