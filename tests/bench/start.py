"""How long a host takes from the start of `vsfwd` to READY=1: 10,000 rules from disk, in force at one vNIC.

    reopened    the programs of the same text are pinned, as after a kill or a stop
    cold        nothing is pinned, and the device is new, as after a reboot; the programs have been compiled
                before, by an earlier start or, for an upgrade, by `vsfwd --compile`
    compiled    the same, and the programs were never compiled on this host

Each sample is a process of its own, started by `python -m vsfwd`; there is no broker, which nobody waits for.
What is pure start-up of Python and its libraries is measured once more by itself."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.kernel import PINS, device
from tests.bench.kernel import run as run_inside
from tests.bench.policy import LAB, NEAR, objects
from tests.bench.ratios import Target, estimate
from tests.bench.report import Figure
from tests.bench.rounds import Progress
from tests.harness.lone import LoneDaemon

RULES: Final = 10_000
ROUNDS: Final = 11
ROUND_S: Final = 11.0
REOPENED, COLD, COMPILED, IMPORTS = "reopened", "cold", "compiled", "of which Python and libraries"
TARGETS: Final = {
    REOPENED: Target("≤ 1500", 1500, at_least=False),
    COLD: Target("≤ 4000", 4000, at_least=False),
    COMPILED: None,
    IMPORTS: None,
}
_DEVICE: Final = "start"
_NAMESPACE: Final = f"vsfw-{LAB.name}-{_DEVICE}"


def planned_s(rounds: int) -> float:
    return min(rounds, ROUNDS) * ROUND_S


def run(rounds: int, progress: Progress) -> list[Figure]:
    rounds = min(rounds, ROUNDS)
    samples: dict[str, list[float]] = {name: [] for name in TARGETS}
    pins = PINS / _DEVICE
    with device(_DEVICE), TemporaryDirectory() as directory:
        cache = Path(directory) / "cache"
        daemon = LoneDaemon(Path(directory), _NAMESPACE, pins, cache_dir=str(cache))
        daemon.keep(objects(RULES))
        for number in range(rounds):
            shutil.rmtree(cache, ignore_errors=True)
            for name in (COMPILED, COLD, REOPENED):
                if name != REOPENED:
                    shutil.rmtree(pins, ignore_errors=True)
                    _plug()
                samples[name].append(daemon.start() * 1000)
                daemon.kill()
            samples[IMPORTS].append(_imports_ms())
            progress.step(f"start: round {number + 1} of {rounds}", ROUND_S)
    return [
        Figure(
            "start", "start to enforcing", name, RULES, "ms", estimate(values), TARGETS[name], {name: values}
        )
        for name, values in samples.items()
    ]


def _plug() -> None:
    """A device that has never had a program."""
    for command in (
        f"link delete {_DEVICE}",
        f"link add {_DEVICE} type veth peer name other",
        f"link set {_DEVICE} alias vsfwd:{NEAR.vnic}",
    ):
        run_inside(_NAMESPACE, ["ip", *command.split()])


def _imports_ms() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import vsfwd.__main__"], check=True)
    return (time.monotonic() - begun) * 1000
