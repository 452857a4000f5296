"""Dropped packets a second: an early drop (XDP) against the same packets dropped by rule (TC).

A workload floods its vNIC with small UDP packets that no rule allows, by sendmmsg() on a packet socket. Its
end of the veth and the host's share a core, so the rate counts what a packet costs from send() to its drop,
and most of that is the sender's. `ns` is the program's share, by BPF_PROG_TEST_RUN."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.bench.burst import BATCH, Burst
from tests.bench.kernel import device, private_datapath
from tests.bench.packet import REPEAT, RUNS
from tests.bench.policy import CLIENT, NEAR, desired
from tests.bench.ratios import estimate, ratio
from tests.bench.report import RATIO, Figure
from tests.bench.rounds import Progress, interleave
from vsfwd.datapath import Datapath, Reason, Settings, bpf
from vsfwd.image import diff
from vsfwd.policy.bits import prefixes_of
from vsfwd.policy.compile import compile

DEVICE: Final = "early"
PEER: Final = "other"
RULES: Final = 16384
SAMPLE_S: Final = 0.5
ROUND_S: Final = 2 * SAMPLE_S + 0.7
XDP, TC = "XDP", "TC"
FRAME: Final = bytes(
    Ether(src=NEAR.mac, dst=CLIENT.mac)
    / IP(src=NEAR.v4, dst=CLIENT.v4)
    / UDP(sport=9, dport=9)
    / Raw(bytes(18))
)
"""From the vNIC, to a port no rule names."""


def flood(name: str, frame: bytes, seconds: float) -> float:
    """How long it took, from a device; as fast as one core sends."""
    with Burst(name, [frame] * BATCH) as burst:
        begun = now = time.monotonic()
        while now < begun + seconds:
            burst.send()
            now = time.monotonic()
    return now - begun


def planned_s(rounds: int) -> float:
    return rounds * ROUND_S


def run(rounds: int, progress: Progress) -> list[Figure]:
    def done(number: int) -> None:
        progress.step(f"early: round {number} of {rounds}", ROUND_S)

    with device(DEVICE) as ifindex, private_datapath(Settings()) as datapath:
        for name in DEVICE, PEER:
            subprocess.run(["ip", "link", "set", name, "addrgenmode", "none", "up"], check=True)
        datapath.attach(NEAR.vnic, ifindex, NEAR.mac)
        datapath.install(diff(None, compile(desired(RULES), datapath.slots)))
        cases: dict[str, Callable[[], float]] = {
            XDP: lambda: _early(datapath, _dropped_early),
            TC: lambda: _rate(datapath, _dropped_by_tc),
            f"{XDP} ns": lambda: _early(datapath, _xdp_ns),
            f"{TC} ns": lambda: _tc_ns(datapath, ifindex),
        }
        samples = interleave(lambda name: cases[name](), list(cases), rounds, done)
    return list(_figures(samples))


def _figures(samples: dict[str, list[float]]) -> Iterator[Figure]:
    group = "UDP flood of a vNIC"
    for name in XDP, TC:
        yield Figure("early", group, f"{name}, dropped", RULES, "thousand/s", estimate(samples[name]))
    yield Figure("early", group, "XDP ÷ TC, dropped", RULES, RATIO, ratio(samples[XDP], samples[TC]))
    for name in XDP, TC:
        yield Figure("early", group, f"{name}, program", RULES, "ns", estimate(samples[f"{name} ns"]))


def _early(datapath: Datapath, measure: Callable[[Datapath], float]) -> float:
    datapath.early.attach(DEVICE, prefixes_of(NEAR.v4), 0, 0)
    try:
        return measure(datapath)
    finally:
        datapath.early.detach(DEVICE)


def _dropped_early(datapath: Datapath) -> float:
    return _rate(datapath, lambda datapath: datapath.early.all()[0].dropped_blocked)


def _dropped_by_tc(datapath: Datapath) -> int:
    return datapath.drops()[datapath.slots[NEAR.vnic]].get(Reason.NO_RULE, 0)


def _rate(datapath: Datapath, dropped: Callable[[Datapath], int]) -> float:
    """Thousands a second, with the sender on the last core."""
    before = dropped(datapath)
    with _pinned():
        seconds = flood(PEER, FRAME, SAMPLE_S)
    return (dropped(datapath) - before) / seconds / 1e3


@contextmanager
def _pinned() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _xdp_ns(datapath: Datapath) -> float:
    with datapath.early.program(DEVICE) as program:
        return min(bpf.run_xdp(program, FRAME, REPEAT)[1] for _ in range(RUNS))


def _tc_ns(datapath: Datapath, ifindex: int) -> float:
    runs = (bpf.run_program(datapath.vnic_out, FRAME, ifindex=ifindex, repeat=REPEAT) for _ in range(RUNS))
    return min(nanoseconds for _, _, _, nanoseconds in runs)
