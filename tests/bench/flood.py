"""New connections of two VMs while a third floods a fourth on the same host, with vsfwd and without.

Every packet of the flood is allowed and of a flow that the tables do not have any more: the most a workload
can ask of the programs. It is sent as fast as one core sends, and once at 20,000 a second; what was offered
stands in the report, since a sender that waits for no firewall offers more. The connections have the other
core; what a firewall costs them when nobody floods stands first.

    python -m tests.bench.flood DEVICE FRAME VARYING RATE     until SIGTERM; prints packets a second
"""

import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.bench import kernel
from tests.bench.burst import BATCH, Burst
from tests.bench.firewalls import Firewalls, Variant, firewalls
from tests.bench.place import FLOODED, lab
from tests.bench.policy import FLOODER, PORTS, SINK
from tests.bench.ratios import Target, estimate, ratio
from tests.bench.report import RATIO, Figure
from tests.bench.rounds import Progress, interleave
from tests.bench.traffic import SAMPLE_S, Kind, Traffic, core, traffic
from vagrant.lab.processes import in_namespace

DEVICE: Final = "eth0"
RULES: Final = 1000
VARIANTS: Final = (Variant.NONE, Variant.VSFWD)
TARGET: Final = Target("≥ 0.95", 0.95, at_least=True)
TUPLES: Final = 960 * BATCH
"""More than a table has places."""
FIRST_PORT: Final = 1024
ROUND_S: Final = 2 * (SAMPLE_S + 1.0)


@dataclass(frozen=True)
class Flood:
    """`rate` in packets a second; 0: as fast as it goes. `varying`: offset of two bytes that, with the source
    port, keep the checksum right."""

    name: str
    frame: bytes
    varying: int
    rate: int


def _frame(packet: Packet) -> bytes:
    return bytes(Ether(src=FLOODER.mac, dst=SINK.mac) / IP(src=FLOODER.v4, dst=SINK.v4) / packet)


_SYN: Final = _frame(TCP(sport=0, dport=PORTS[2], flags="S", urgptr=0xFFFF))
_UDP: Final = _frame(UDP(sport=0, dport=PORTS[2]) / Raw(b"\xff\xff" + bytes(16)))
FLOODS: Final = (
    Flood("SYNs", _SYN, 52, 0),
    Flood("UDP packets", _UDP, 42, 0),
    Flood("20,000 SYNs a second", _SYN, 52, 20_000),
)


def planned_s(rounds: int) -> float:
    return (1 + len(FLOODS)) * rounds * ROUND_S


def run(rounds: int, progress: Progress) -> list[Figure]:
    figures: list[Figure] = []
    with lab(), firewalls(FLOODED, RULES) as walls, traffic(FLOODED.client, FLOODED.server) as ends:
        # The bridge learns where the sink is, and floods nobody else.
        kernel.run(SINK.namespace, ["ping", "-c", "1", FLOODER.v4])
        for flood in (None, *FLOODS):
            figures += _measure(flood, walls, ends, rounds, progress)
    return figures


def _measure(
    flood: Flood | None, walls: Firewalls, ends: Traffic, rounds: int, progress: Progress
) -> Iterator[Figure]:
    name = flood.name if flood else "no flood"
    offered: dict[str, list[float]] = {variant: [] for variant in VARIANTS}

    def sample(variant: str) -> float:
        with walls.active(Variant(variant)), _flooding(flood, offered[variant]) if flood else nullcontext():
            return ends.sample(Kind.CONNECTIONS)

    def done(number: int) -> None:
        progress.step(f"flood, {name}: round {number} of {rounds}", ROUND_S)

    samples = interleave(sample, VARIANTS, rounds, done)
    none, vsfwd = samples[Variant.NONE], samples[Variant.VSFWD]
    group = f"connections under {name}"
    for variant in VARIANTS if flood else ():
        yield Figure("flood", group, f"offered, {variant}", RULES, "thousand/s", estimate(offered[variant]))
    yield Figure("flood", group, Variant.NONE, RULES, "/s", estimate(none))
    target = TARGET if flood else None
    yield Figure("flood", group, "vsfwd ÷ none", RULES, RATIO, ratio(vsfwd, none), target, samples)


@contextmanager
def _flooding(flood: Flood, offered: list[float]) -> Iterator[None]:
    """From a process of its own, on the first core."""
    words = [DEVICE, flood.frame.hex(), str(flood.varying), str(flood.rate)]
    argv = [*core(0), sys.executable, "-m", "tests.bench.flood", *words]
    with subprocess.Popen(in_namespace(FLOODER.namespace, argv), stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout
        try:
            if not sender.stdout.readline():
                raise RuntimeError("the flood has not begun")
            yield
        finally:
            sender.terminate()
        offered.append(float(sender.stdout.read()) / 1e3)


def frames(frame: bytes, varying: int) -> Sequence[bytes]:
    """The frame from TUPLES source ports; what is added to the port is taken from the bytes at `varying`."""
    content, made = bytearray(frame), []
    for port in range(FIRST_PORT, FIRST_PORT + TUPLES):
        struct.pack_into("!H", content, 34, port)
        struct.pack_into("!H", content, varying, 0xFFFF - port)
        made.append(bytes(content))
    return made


def main(device: str, frame: bytes, varying: int, rate: int) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    with Burst(device, frames(frame, varying)) as burst:
        sent, begun = 0, time.monotonic()
        print("flooding", flush=True)
        while not stopped:
            sent += burst.send()
            if rate:
                time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        print(sent / (time.monotonic() - begun))


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
