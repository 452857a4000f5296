"""Nanoseconds a packet, by BPF_PROG_TEST_RUN: the kernel runs a program on one packet many times and says how
long a run took. An empty program is measured beside and subtracted, so that the harness does not count.

Towards a server whose policy lets the packet in by its last rule:

    parse only    parse.c: what every packet costs before anything is looked up
    established   the acknowledgement, or the datagram, of a flow both sides have taken part in
    new flow      SYN, or first datagram; all timers are zero, so each packet finds its flow expired, is
                  classified and writes its flow anew
    unseen flow   the same, of a flow that never was, which has to find room in the table: once for each flow,
                  so it is not measured in a loop but packet by packet, as cold as it comes
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.bench.kernel import device, private_datapath
from tests.bench.policy import CLIENT, NEAR, USED_PORTS, desired
from tests.bench.ratios import Target, difference, ratio
from tests.bench.report import RATIO, Figure
from tests.bench.rounds import Progress, interleave
from vsfwd.datapath import TIMEOUTS_S, Datapath, Settings, bpf
from vsfwd.datapath.build import compile_text
from vsfwd.image import diff
from vsfwd.policy.compile import compile

SIZES: Final = (16, 1024, 16384)
REPEAT: Final = 10_000
RUNS: Final = 5
"""Of REPEAT packets each; the sample is the fastest, for whatever disturbs a run only adds to it."""
UNSEEN: Final = 100
"""Flows of one sample of unseen flows; the sample is their median."""
ROUND_S: Final = 0.7
CLIENT_PORT: Final = 50000
TC_ACT_OK: Final = 0

FLAT: Final = Target("≤ 1.10", 1.10, at_least=False)
ESTABLISHED: Final = Target("≤ 60", 60, at_least=False)
NEW_FLOW: Final = Target("≤ 250", 250, at_least=False)

Case = Callable[[], float]
"""Measures one sample, in ns."""


@dataclass(frozen=True)
class Shape:
    """A family and a protocol, and the frames of a flow of them. The first packet is the client's."""

    family: str
    protocol: str

    @property
    def name(self) -> str:
        return f"{self.family} {self.protocol}"

    def frame(self, flags: str = "", *, reply: bool = False) -> bytes:
        """Towards the server, or its reply."""
        source, destination = (NEAR, CLIENT) if reply else (CLIENT, NEAR)
        ports = (USED_PORTS[0], CLIENT_PORT) if reply else (CLIENT_PORT, USED_PORTS[0])
        ipv4 = IP(src=source.v4, dst=destination.v4)
        ip = ipv4 if self.family == "IPv4" else IPv6(src=source.v6, dst=destination.v6)
        transport = TCP(flags=flags) if self.protocol == "TCP" else UDP()
        transport.sport, transport.dport = ports
        return bytes(Ether(src=source.mac, dst=destination.mac) / ip / transport / Raw(bytes(18)))

    @property
    def opening(self) -> tuple[tuple[bytes, bool], ...]:
        """What makes a flow established: frames, and whether they are replies."""
        if self.protocol == "TCP":
            return (self.frame("S"), False), (self.frame("SA", reply=True), True), (self.frame("A"), False)
        return (self.frame(), False), (self.frame(reply=True), True)

    def with_port(self, frame: bytes, port: int) -> bytes:
        """The same frame with another port of the client. No checksum is looked at."""
        offset = 34 if self.family == "IPv4" else 54
        return frame[:offset] + struct.pack(">H", port) + frame[offset + 2 :]


SHAPES: Final = tuple(Shape(family, protocol) for family in ("IPv4", "IPv6") for protocol in ("TCP", "UDP"))


@dataclass(frozen=True)
class Bench:
    """A datapath with a policy, and a vNIC on a device."""

    datapath: Datapath
    ifindex: int

    def send(self, frame: bytes, *, reply: bool) -> float:
        program = self.datapath.vnic_out if reply else self.datapath.vnic_in
        return nanoseconds(program, frame, self.ifindex, 1)

    def established(self, shape: Shape) -> Case:
        for frame, reply in shape.opening:
            self.send(frame, reply=reply)
        return _looped(self.datapath.vnic_in, shape.frame("A"), self.ifindex)

    def new_flow(self, shape: Shape) -> Case:
        return _looped(self.datapath.vnic_in, shape.frame("S"), self.ifindex)

    def unseen_flow(self, shape: Shape) -> Case:
        """Every flow has a port of its own, and none has CLIENT_PORT."""
        frame, ports = shape.frame("S"), cycle(range(1024, CLIENT_PORT))
        return lambda: median(
            self.send(shape.with_port(frame, next(ports)), reply=False) for _ in range(UNSEEN)
        )


def nanoseconds(program: int, frame: bytes, ifindex: int, repeat: int) -> float:
    verdict, _, _, ns = bpf.run_program(program, frame, ifindex=ifindex, repeat=repeat)
    if verdict != TC_ACT_OK:
        raise RuntimeError("a packet that was to be measured was dropped")
    return ns


def planned_s(rounds: int) -> float:
    return rounds * ROUND_S


def run(rounds: int, progress: Progress) -> list[Figure]:
    def done(number: int) -> None:
        progress.step(f"packet: round {number} of {rounds}", ROUND_S)

    with _cases() as cases:
        samples = interleave(lambda name: cases[name](), list(cases), rounds, done)
    return [figure for shape in SHAPES for figure in _figures(shape, samples)]


@contextmanager
def _cases() -> Iterator[dict[str, Case]]:
    """Everything that is measured, by name."""
    with ExitStack() as stack:
        ifindex = stack.enter_context(device("packet"))
        text = (Path(__file__).parent / "parse.c").read_text()
        references = stack.enter_context(compile_text(text).loaded(bpf.ProgramType.TC))
        cases = dict(_references(references, ifindex))
        for rules in SIZES:
            lasting = stack.enter_context(bench(rules, ifindex, TIMEOUTS_S))
            expired = stack.enter_context(bench(rules, ifindex, dict.fromkeys(TIMEOUTS_S, 0)))
            for shape in SHAPES:
                cases[f"{shape.name} established {rules}"] = lasting.established(shape)
                cases[f"{shape.name} unseen flow {rules}"] = expired.unseen_flow(shape)
                cases[f"{shape.name} new flow {rules}"] = expired.new_flow(shape)
        yield cases


@contextmanager
def bench(rules: int, ifindex: int, timeouts_s: Mapping[str, float]) -> Iterator[Bench]:
    with private_datapath(Settings(timeouts_s=dict(timeouts_s))) as datapath:
        datapath.attach(NEAR.vnic, ifindex, NEAR.mac)
        datapath.install(diff(None, compile(desired(rules), datapath.slots)))
        yield Bench(datapath, ifindex)


def _references(programs: Mapping[str, int], ifindex: int) -> Iterator[tuple[str, Case]]:
    """An empty program and parse only, in a loop and, for what is measured packet by packet, once."""
    empty, parse = programs["empty"], programs["parse_only"]
    for shape in SHAPES:
        frame = shape.frame("A")
        for name, program in ("empty", empty), ("parse only", parse):
            yield f"{shape.name} {name}", _looped(program, frame, ifindex)
        yield f"{shape.name} parse only once", _one_by_one(parse, frame, ifindex)


def _looped(program: int, frame: bytes, ifindex: int) -> Case:
    return lambda: min(nanoseconds(program, frame, ifindex, REPEAT) for _ in range(RUNS))


def _one_by_one(program: int, frame: bytes, ifindex: int) -> Case:
    return lambda: median(nanoseconds(program, frame, ifindex, 1) for _ in range(UNSEEN))


def _figures(shape: Shape, samples: dict[str, list[float]]) -> Iterator[Figure]:
    empty, parse, once = (
        samples[f"{shape.name} {name}"] for name in ("empty", "parse only", "parse only once")
    )

    def above(
        name: str, rules: int, of: list[float], to: list[float], target: Target | None = None
    ) -> Figure:
        return Figure(
            "packet", shape.name, name, rules, "ns", difference(of, to), target, {"of": of, "to": to}
        )

    yield above("parse only, above an empty program", 0, parse, empty)
    for name, reference, target in (
        ("established", parse, ESTABLISHED),
        ("new flow", parse, NEW_FLOW),
        ("unseen flow", once, None),
    ):
        for rules in SIZES:
            of = samples[f"{shape.name} {name} {rules}"]
            wanted = target if rules == SIZES[-1] else None
            yield above(f"{name}, above parse only", rules, of, reference, wanted)
    few, many = (
        [a - b for a, b in zip(samples[f"{shape.name} new flow {rules}"], empty, strict=True)]
        for rules in (SIZES[0], SIZES[-1])
    )
    name = f"new flow, {SIZES[-1]:,} ÷ {SIZES[0]} rules"
    yield Figure("packet", shape.name, name, 0, RATIO, ratio(many, few), FLAT)
