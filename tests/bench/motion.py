"""What a firewall costs a VM that moves: there and back between two hosts, with thousands of tracked
connections and traffic all the time, against the same move in a lab without any firewall, in turn.

    blackout         the longest pause between two datagrams that arrive while the VM moves
    gaps             of a numbered TCP stream: numbers that are missing or out of order, or that it broke
    flows lost       tracked at the source before, and not at the target after
    before policy    datagrams delivered that the policy forbids
    bytes a flow     of what the VM takes along, sealed, as it passes the manager
"""

import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tests.bench import tracked
from tests.bench.policy import LAB
from tests.bench.ratios import Estimate, Target, difference, estimate
from tests.bench.report import Figure
from tests.bench.rounds import Progress
from tests.bench.ticker import ALLOWED, FORBIDDEN, NUMBER
from tests.harness.lab import without_firewall
from vagrant.lab import layout as layouts
from vagrant.lab import migration, network
from vagrant.lab.lab import Lab
from vagrant.lab.layout import Host, Layout, Vm
from vagrant.lab.probe import inside
from vagrant.lab.processes import in_namespace
from vagrant.lab.spec import parse
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import ask

FLOWS: Final = 10_000
MOVE_S: Final = 3.0
SETTLED: Final = 100
"""Datagrams that arrive before and after a move, so that its pause is one between datagrams."""
PLAIN: Final = "benchplain"
SPEC: Final = parse(vms=["mover@host1", "client@host2"])
_RULE: Final = {
    "action": "ALLOW",
    "source_groups": ["ANY"],
    "destination_groups": ["ANY"],
    "service_entries": [
        {"resource_type": "L4PortSetServiceEntry", "l4_protocol": each, "destination_ports": [str(ALLOWED)]}
        for each in ("TCP", "UDP")
    ],
}
SECTION: Final = {"category": "Application", "rules": [{"id": "in", "sequence_number": 1, **_RULE}]}
_STAMPS: Final = 35  # SO_TIMESTAMPNS of asm-generic/socket.h
_STAMP: Final = struct.Struct("@qq")
_ROOM: Final = 1 << 22
_PATIENCE_S: Final = 30.0


@dataclass
class Arrivals:
    """What reaches the mover, by kernel time (s) of each datagram of the flow."""

    at: list[float] = field(default_factory=list)
    forbidden: int = 0
    stream: int = 0
    gaps: int = 0


class Traffic:
    """From the client to the mover, as long as the block."""

    def __init__(self, client: Vm, mover: Vm) -> None:
        self.arrivals = Arrivals()
        self._client, self._mover = client, mover
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        with inside(self._mover.namespace):
            flow, forbidden = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            listener = socket.create_server(("", ALLOWED))
        for end, port in ((flow, ALLOWED), (forbidden, FORBIDDEN)):
            end.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            end.bind(("", port))
            end.settimeout(0.1)
        argv = [sys.executable, "-m", "tests.bench.ticker", self._mover.v4]
        self._ticker = subprocess.Popen(
            in_namespace(self._client.namespace, argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stream, _ = listener.accept()
        for end in (flow, forbidden, listener, stream):
            self._stack.enter_context(end)
        works = ((self._take_flow, flow), (self._take_forbidden, forbidden), (self._take_stream, stream))
        self._threads = [threading.Thread(target=work, args=(end,), daemon=True) for work, end in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        said, _ = self._ticker.communicate(timeout=_PATIENCE_S)
        self._threads[2].join()  # the stream's end comes behind its last number
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()
        if self.arrivals.stream != json.loads(said or "-1"):
            self.arrivals.gaps += 1

    def flowing(self, more: int) -> None:
        """Returns when so many more datagrams of the flow have arrived."""
        wanted = len(self.arrivals.at) + more
        wait_until(lambda: len(self.arrivals.at) >= wanted, "datagrams at the mover", every_s=0.005)

    def longest_pause_ms(self, since: float) -> float:
        at = [each for each in self.arrivals.at if each >= since]
        return 1000 * max(after - before for before, after in itertools.pairwise(at))

    def _take_flow(self, end: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                _, ((_, _, stamp), *_), _, _ = end.recvmsg(64, 64)
            except TimeoutError:
                continue
            seconds, nanoseconds = _STAMP.unpack(stamp)
            self.arrivals.at.append(seconds + nanoseconds / 1e9)

    def _take_forbidden(self, end: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                end.recv(64)
            except TimeoutError:
                continue
            self.arrivals.forbidden += 1

    def _take_stream(self, end: socket.socket) -> None:
        received = bytearray()
        while part := end.recv(65536):
            received += part
            while len(received) >= NUMBER.size:
                (number,) = NUMBER.unpack(received[: NUMBER.size])
                self.arrivals.gaps += number != self.arrivals.stream
                self.arrivals.stream = number + 1
                del received[: NUMBER.size]


@dataclass
class Found:
    """By move, in their order; and the connections that were tracked last."""

    plain_ms: list[float] = field(default_factory=list)
    vsfwd_ms: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    tracked: set[tuple[str, str, int, int]] = field(default_factory=set)


def planned_s(moves: int) -> float:
    return 40 + moves * MOVE_S


def run(moves: int, progress: Progress) -> list[Figure]:
    found = Found()
    with without_firewall(PLAIN, SPEC) as plain, Lab.up(SPEC, LAB.name) as lab:
        lab.publish({"domains/default/security-policies/motion": SECTION})
        mover, client = lab.vm("mover"), lab.vm("client")
        tracked.establish(client, mover, FLOWS, seed=1)
        found.tracked = _flows(lab.host(mover.host), mover)
        plain_vms = {vm.name: vm for vm in plain.vms}
        with (
            Traffic(client, mover) as traffic,
            Traffic(plain_vms["client"], plain_vms["mover"]) as beside,
        ):
            for number in range(moves):
                target = "host2" if number % 2 == 0 else "host1"
                plain = _measured(beside, found.plain_ms, lambda p=plain, t=target: _move(p, t))
                _measured(traffic, found.vsfwd_ms, lambda t=target: _migrate(lab, t, found))
                progress.step(f"motion: move {number + 1} of {moves}", MOVE_S)
    return _figures(found, traffic.arrivals)


def _measured(traffic: Traffic, samples: list[float], move: Any) -> Any:
    traffic.flowing(SETTLED)
    begun = time.time()
    answer = move()
    traffic.flowing(SETTLED)
    samples.append(traffic.longest_pause_ms(begun))
    return answer


def _move(layout: Layout, host: str) -> Layout:
    mover = next(vm for vm in layout.vms if vm.name == "mover")
    network.carry(layout, mover, host)
    moved = layouts.moved(layout, mover, host)
    migration.go_on(moved, next(vm for vm in moved.vms if vm.name == "mover"))
    return moved


def _migrate(lab: Lab, host: str, found: Found) -> None:
    move = lab.migrate("mover", host)
    tracked = _flows(lab.host(host), lab.vm("mover"))
    found.lost.append(len(found.tracked - tracked))
    found.bytes.append(move["bytes"] / max(move["flows"], 1))
    found.tracked = tracked


def _flows(host: Host, vm: Vm) -> set[tuple[str, str, int, int]]:
    """Connections that it tracks of the VM."""

    async def rows(vsfwd: Any) -> set[tuple[str, str, int, int]]:
        parts = vsfwd.Flows(vnic=vm.vnic)
        return {(r.protocol, r.remote, r.remote_port, r.local_port) async for p in parts for r in p["part"]}

    return ask(host.socket, rows)


def _figures(found: Found, arrivals: Arrivals) -> list[Figure]:
    excess = difference(found.vsfwd_ms, found.plain_ms)
    ordered = sorted(of - to for of, to in zip(found.vsfwd_ms, found.plain_ms, strict=True))
    moves = len(ordered)
    p99 = ordered[min(moves - 1, int(moves * 0.99))]
    none = Target("0", 0, at_least=False)
    samples = {"no firewall": found.plain_ms, "vsfwd": found.vsfwd_ms}
    figures: list[tuple[str, str, Estimate, Target | None, dict[str, list[float]]]] = [
        ("gaps in the stream", "", _exactly(arrivals.gaps, moves), none, {}),
        ("flows lost", "", _exactly(sum(found.lost), moves), none, {}),
        ("packets before policy", "", _exactly(arrivals.forbidden, moves), none, {}),
        ("state, bytes a flow", "bytes", estimate(found.bytes), Target("≤ 80", 80, at_least=False), {}),
        ("blackout, no firewall", "ms", estimate(found.plain_ms), None, {}),
        ("blackout, vsfwd", "ms", estimate(found.vsfwd_ms), None, {}),
        ("blackout in excess", "ms", excess, None, samples),
        (
            "in excess, 99th percentile",
            "ms",
            _exactly(p99, moves),
            Target("≤ 50", 50, at_least=False),
            {},
        ),
    ]
    return [
        Figure("motion", "VM with 10,000 connections", name, FLOWS, unit, value, target, samples)
        for name, unit, value, target, samples in figures
    ]


def _exactly(value: float, samples: int) -> Estimate:
    """What is counted over all moves has no interval."""
    return Estimate(value, value, value, samples)
