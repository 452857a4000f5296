"""Traffic between the two VMs: one sample of bulk TCP, of small UDP packets, or of short connections.

Programs are pinned, so that the scheduler's moods stay out of the ratios. Client and server of the
connections share one core: every instruction of a connection's life, firewalls included, then counts into
its rate, and nothing waits.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from tests.bench.policy import USED_PORTS
from vagrant.lab.layout import Vm
from vagrant.lab.processes import in_namespace
from vagrant.lab.waiting import wait_until

CONNECTIONS_PORT, IPERF_PORT = USED_PORTS
SAMPLE_S: Final = 1
PATIENCE_S: Final = 20


class Kind(StrEnum):
    BULK = "bulk TCP"
    PACKETS = "UDP packets"
    CONNECTIONS = "connections"


UNITS: Final = {Kind.BULK: "Gbit/s", Kind.PACKETS: "thousand/s", Kind.CONNECTIONS: "/s"}


class Traffic:
    """Runs clients in one VM against the servers in another; use `traffic()`."""

    def __init__(self, client: Vm, server: Vm) -> None:
        self._client = client
        self._server = server

    def sample(self, kind: Kind) -> float:
        """In UNITS[kind]."""
        if kind is Kind.BULK:
            return float(self._iperf()["sum_received"]["bits_per_second"]) / 1e9
        if kind is Kind.PACKETS:
            total = self._iperf("--udp", "--length", "64", "--bandwidth", "0")["sum"]
            return float(total["packets"] - total["lost_packets"]) / float(total["seconds"]) / 1e3
        program = [
            "-m",
            "tests.bench.connections",
            "connect",
            self._server.v4,
            str(CONNECTIONS_PORT),
            str(SAMPLE_S),
        ]
        return float(self._run(core(-1), [sys.executable, *program]))

    def _iperf(self, *options: str) -> dict[str, dict[str, float]]:
        server = ["--client", self._server.v4, "--port", str(IPERF_PORT)]
        output = self._run(core(0), ["iperf3", "--json", "--time", str(SAMPLE_S), *server, *options])
        end: dict[str, dict[str, float]] = json.loads(output)["end"]
        return end

    def _run(self, pinned: list[str], argv: list[str]) -> str:
        done = subprocess.run(
            in_namespace(self._client.namespace, [*pinned, *argv]),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout


@contextmanager
def traffic(client: Vm, server: Vm) -> Iterator[Traffic]:
    """The servers run for the length of this context."""
    with ExitStack() as running:
        iperf = ["iperf3", "--server", "--forceflush", "--port", str(IPERF_PORT)]
        running.enter_context(_serving(server.namespace, iperf, "listening"))
        program = ["-m", "tests.bench.connections", "serve", server.v4, str(CONNECTIONS_PORT)]
        running.enter_context(_serving(server.namespace, [sys.executable, *program], "listening"))
        yield Traffic(client, server)


@contextmanager
def _serving(namespace: str, argv: list[str], ready: str) -> Iterator[None]:
    """A server, once it has said that it is ready. To a file: nobody reads what it says later."""
    with NamedTemporaryFile() as output:
        process = subprocess.Popen(
            in_namespace(namespace, [*core(-1), *argv]), stdout=output, stderr=subprocess.STDOUT
        )
        said = Path(output.name)
        try:
            wait_until(lambda: ready in said.read_text() or process.poll() is not None, f"{argv[0]} {ready}")
            if process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended: {said.read_text().strip()[-500:]}")
            yield
        finally:
            process.kill()
            process.wait()


def core(number: int) -> list[str]:
    """Words before a program that is to run on the first (0) or the last (-1) core."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(cores[number])]
