"""The real programs, run one packet at a time by BPF_PROG_TEST_RUN.

`Host` is a network namespace with a few devices and a Datapath with pins of its own; rules are said in the
words of tests/harness/policies.py and reach the kernel through the daemon's own compiler and maps. `Port` is
a vNIC on it: give it a packet and it tells what came of it and everything that moved."""

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from pyroute2 import netns
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.harness.policies import policy, vnic_id
from vagrant.lab import processes
from vagrant.lab.layout import CACHE
from vagrant.lab.network import wait_carrying
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until
from vsfwd.datapath import Datapath, Event, Flow, Hold, Limit, Settings, bpf
from vsfwd.datapath.known import PROGRAMS
from vsfwd.image import Flip, Image
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.reconciler import timers

BPFFS = Path("/sys/fs/bpf")
NAMESPACES = Path("/run/netns")
PREFIX = "vsfwd-test-"
PEER_MAC = "02:00:00:00:99:99"
DEVICES = 4
UNLIMITED = Limit(rate=10**6, burst=10**9)
"""For all tests that are not about limits."""
VERDICTS = {0: "pass", 2: "drop", 7: "reply"}


@dataclass(frozen=True)
class Seen:
    """What came of one packet. `counted`: packets and sessions that rules counted, by rule id."""

    verdict: str
    reason: str | None = None
    counted: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    reply: Packet | None = field(default=None, compare=False)
    events: tuple[Event, ...] = field(default=(), compare=False)


def passed(rule: int, *, new: bool = False) -> Seen:
    """Allowed by `rule`; `new` when a session began."""
    return Seen("pass", None, {rule: (1, int(new))})


PASSED_UNSEEN = Seen("pass")
"""It passed without asking a rule."""


def dropped(reason: str, rule: int | None = None) -> Seen:
    return Seen("drop", reason, {rule: (1, 0)} if rule else {})


def rejected(rule: int) -> Seen:
    """Answered with a reply by `rule`."""
    return Seen("reply", "rule_reject", {rule: (1, 0)})


class Port:
    def __init__(self, host: "Host", name: str, number: int) -> None:
        self._host = host
        self.id = vnic_id(name)
        self.mac = f"02:00:00:00:00:{number:02x}"
        self.device = f"port{number}"
        self.ifindex = socket.if_nametoindex(self.device)
        self.slot = host.datapath.attach(self.id, self.ifindex, self.mac)

    def receive(self, packet: Packet) -> Seen:
        """A packet on its way to the workload, from the IP header on or a whole frame."""
        return self._run(self._host.datapath.vnic_in, self.frame_in(packet))

    def send(self, packet: Packet) -> Seen:
        """A packet the workload sends."""
        return self._run(self._host.datapath.vnic_out, self.frame_out(packet))

    def frame_in(self, packet: Packet) -> Packet:
        return packet if Ether in packet else Ether(src=PEER_MAC, dst=self.mac) / packet

    def frame_out(self, packet: Packet) -> Packet:
        return packet if Ether in packet else Ether(src=self.mac, dst=PEER_MAC) / packet

    def wire(self, *frames: bytes, inward: bool = False) -> None:
        """Frames from (or to) the workload through the device itself."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((self.device if inward else self.device.replace("port", "far"), 0))
            for frame in frames:
                try:
                    sender.send(frame)
                except OSError as error:
                    if (
                        error.errno != errno.ENOBUFS
                    ):  # so the kernel tells a sender of what it drops on its way out
                        raise

    def drops(self) -> dict[str, int]:
        return {reason.name.lower(): n for reason, n in self._host.datapath.drops()[self.slot].items()}

    def run_raw(self, program: int, frame: bytes, mark: int = 0) -> int:
        """Only the verdict, for floods."""
        return bpf.run_program(program, frame, ifindex=self.ifindex, mark=mark)[0]

    def _run(self, program: int, frame: Packet) -> Seen:
        datapath = self._host.datapath
        drops, counters = datapath.drops()[self.slot], datapath.rule_counters()
        verdict, data, _, _ = bpf.run_program(program, bytes(frame), ifindex=self.ifindex)
        after = datapath.drops()[self.slot]
        reasons = [reason.name.lower() for reason in after if after[reason] != drops.get(reason, 0)]
        assert len(reasons) == (0 if verdict == 0 else 1), f"verdict {verdict} has reasons {reasons}"
        return Seen(
            VERDICTS[verdict],
            reasons[0] if reasons else None,
            {
                rule: (now.packets - counters[rule].packets, now.sessions - counters[rule].sessions)
                for rule, now in datapath.rule_counters().items()
                if now != counters[rule]
            },
            Ether(data) if verdict == 7 else None,
            tuple(datapath.poll_events()),
        )

    def flows(self) -> list[Flow]:
        return self._host.datapath.flows(self.slot)

    def flow(self) -> Flow:
        """The only one."""
        (flow,) = self.flows()
        return flow

    def states(self) -> list[str]:
        return [flow.state for flow in self.flows()]


class Host:
    """Use `private_host`."""

    def __init__(self, pins: Path, settings: Settings) -> None:
        self.pins = pins
        self.settings = settings
        self.datapath = Datapath.open(pins, settings, CACHE)
        self._next = 0
        self._older = count()

    def port(self, name: str) -> Port:
        """A vNIC, plugged and still closed."""
        self._next += 1
        return Port(self, name, self._next - 1)

    def install(
        self,
        rules: Iterable[str],
        groups: Mapping[str, Sequence[str]] | None = None,
        vnics: Mapping[str, str] | None = None,
    ) -> None:
        state = policy(rules, groups, vnics)
        self.flip(self.image(state))
        self.datapath.set_timers(timers(state, self.datapath.places))

    def image(self, state: DesiredState) -> Image:
        return compile(state, self.datapath.places)

    def flip(self, image: Image) -> None:
        self.datapath.install(Flip(image))

    def mark(self, port: Port) -> int:
        """What the programs put on their own replies at `port`; random, so it is read from their settings."""
        return self.datapath.mark ^ port.slot

    @contextmanager
    def timers(self, **seconds: float) -> Iterator[None]:
        """Other lifetimes for a while; states that are not named keep theirs."""
        with self.configured(timeouts_s=self.settings.timeouts_s | seconds):
            yield

    @contextmanager
    def configured(self, **changes: Any) -> Iterator[None]:
        """Other settings for a while."""
        self.datapath.configure(replace(self.settings, **changes))
        try:
            yield
        finally:
            self.datapath.configure(self.settings)

    def restart(self) -> None:
        """The daemon dies and a new one takes over."""
        self.datapath.close()
        self.datapath = Datapath.open(self.pins, self.settings, CACHE)
        self.datapath.remove_older_pins()

    def unpin(self) -> None:
        """Whoever opens the programs next compiles them: these are those of another version."""
        for programs in [*self.pins.glob(f"*/{PROGRAMS}*")]:
            programs.rename(programs.with_name(f"{PROGRAMS}older{next(self._older)}"))

    def unplug(self) -> None:
        """Back to a host without vNICs."""
        for id in {*self.datapath.places, *self.datapath.holds()}:
            self.datapath.hold(id, Hold.NONE)
            self.datapath.detach(id)
            self.datapath.give_up(id)
        self.datapath.departed.close()
        self.datapath.poll_events()
        self.datapath.poll_snoops()
        self._next = 0


@contextmanager
def private_host(name: str, settings: Settings) -> Iterator[tuple[Host, str]]:
    """A host and its namespace, which the caller enters with `inside`."""
    remove_leftovers()
    namespace = f"{PREFIX}{name}-{os.getpid()}"
    pins = BPFFS / namespace
    pins.mkdir()
    netns.create(namespace)
    try:
        with inside(namespace):
            for number in range(DEVICES):
                add_device(number)
            host = Host(pins, settings)
        yield host, namespace
        host.datapath.close()
    finally:
        netns.remove(namespace)
        shutil.rmtree(pins)


def add_device(number: int) -> None:
    """What `Host.port` plugs, and its other end; in this thread's namespace."""
    device, far = f"port{number}", f"far{number}"
    subprocess.run(["ip", "link", "add", device, "type", "veth", "peer", far], check=True)
    for end in (device, far):
        # Without an address of its own the kernel sends nothing that a test would count.
        subprocess.run(["ip", "link", "set", end, "addrgenmode", "none"], check=True)
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    wait_carrying(None)


def remove_leftovers() -> None:
    """What test runs that were killed have left: their process is gone."""
    for name in {*netns.listnetns(), *(path.name for path in BPFFS.iterdir())}:
        owner = re.fullmatch(rf"{PREFIX}\w+-(\d+)(-vm\d)?", name)
        if owner and not Path("/proc", owner[1]).exists():
            shutil.rmtree(BPFFS / name, ignore_errors=True)
            with suppress(FileNotFoundError):  # only pins; or another test run is at it
                for process in processes.inside(NAMESPACES / name):
                    process.kill()
                netns.remove(name)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what must come true."""
    wait_until(condition, "what is waited for", seconds, 0.01)


def nanoseconds(program: int, frame: bytes, repeat: int, ifindex: int = 1) -> int:
    """What one run of a program costs, the harness of the kernel included: subtract a baseline."""
    return bpf.run_program(program, frame, ifindex=ifindex, repeat=repeat)[3]


def checksums_right(frame: Packet) -> bool:
    """Whether scapy computes the checksums that stand in the frame's own headers (not those it quotes)."""
    again = frame.copy()
    for layer in again.layers()[1:3]:
        for name in ("chksum", "cksum"):
            if name in again[layer].fields:
                delattr(again[layer], name)
    return bytes(again) == bytes(frame)
