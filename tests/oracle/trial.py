"""One walk, through the model and through the real programs at once, and the first step where they differ.

Policies reach the kernel as they do in the daemon: compiled from what changed, in place where that is
possible."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.harness.datapath import VERDICTS, Host
from tests.oracle.asking import Key
from tests.oracle.asking import address as address_of
from tests.oracle.clock import pause
from tests.oracle.connection import OTHER
from tests.oracle.model import Expected, Model, Port
from tests.oracle.policies import HERE
from tests.oracle.reading import TCP, read, read_quoted
from tests.oracle.tracking import Flow
from tests.oracle.walk import MACS, Change, Pause, Sent, Step
from vsfwd.datapath import Flow as RealFlow
from vsfwd.datapath import Reason, bpf
from vsfwd.datapath.schema import constant
from vsfwd.image import Image, Nothing, diff
from vsfwd.policy.compile import Compiler
from vsfwd.reconciler import timers

MANY: Final = 5


@dataclass(frozen=True)
class Difference:
    """`at`: the step that shows it."""

    at: int
    expected: str
    seen: str


class Trial:
    """Use `first_difference`. The host is empty before and after."""

    def __init__(self, host: Host) -> None:
        self._datapath = host.datapath
        self._ports = {name: host.port(name) for name in HERE}
        self.model = Model({name: Port(port.id, MACS[name]) for name, port in self._ports.items()})
        self._compiler = Compiler()
        self._image: Image | None = None
        self._drops = {name: Counter[str]() for name in HERE}
        self._drops_fd = self._datapath._programs.fd("drops")
        self._value_size = 8 * bpf.possible_cpus()
        self._counters = self._datapath.rule_counters()

    def take(self, step: Step) -> tuple[str, str] | None:
        """What was expected and what was seen, if these differ."""
        if isinstance(step, Sent):
            return self._send(step)
        if isinstance(step, Pause):
            pause(self._datapath, step.seconds)
            self.model.pause(step.seconds)
            return None
        return self.settle() or self.compare_flows() or self._install(step)

    def _install(self, change: Change) -> None:
        image = self._compiler.update(change.state, self._datapath.slots)
        plan = diff(self._image, image)
        self._datapath.install(plan)
        self._datapath.set_timers(timers(change.state, self._datapath.slots))
        self._image, self._counters = plan.image, self._datapath.rule_counters()
        # What means the same may be left as it is, and no flow is asked again.
        self.model.install(change.state, same=isinstance(plan, Nothing))

    def _send(self, sent: Sent) -> tuple[str, str] | None:
        datapath, port = self._datapath, self._ports[sent.port]
        program = datapath.vnic_in if sent.direction == "in" else datapath.vnic_out
        verdict = bpf.run_program(program, sent.frame, ifindex=port.ifindex)[0]
        seen = cache(lambda: None if verdict == 0 else self._any_reason(sent.port))
        expected = self.model.judge(sent.port, sent.direction, sent.frame, seen)
        asked = seen.cache_info().currsize
        reason = seen() if asked or verdict == 0 else self._reason(sent.port, expected.reasons)
        if _as_expected(expected, VERDICTS.get(verdict), reason):
            return None
        return _words(expected), f"{VERDICTS.get(verdict, verdict)} {reason or ''}"

    def passes(self, sent: Sent) -> bool:
        """Without the model."""
        program = self._datapath.vnic_in if sent.direction == "in" else self._datapath.vnic_out
        return bpf.run_program(program, sent.frame, ifindex=self._ports[sent.port].ifindex)[0] == 0

    def state_of(self, sent: Sent) -> str | None:
        """Of the flow that a TCP segment belongs to, or an ICMP error about one."""
        packet, direction = read(sent.frame), sent.direction
        if packet and packet.is_error:
            packet, direction = read_quoted(packet.quoted, packet.family), OTHER[direction]
        if packet is None or packet.protocol != TCP:
            return None
        ends = [(address_of(packet.source), packet.sport), (address_of(packet.destination), packet.dport)]
        (remote, remote_port), (local, local_port) = ends if direction == "in" else reversed(ends)
        wanted = TCP, local, local_port, remote, remote_port
        for flow in self._ports[sent.port].flows():
            if (flow.protocol, flow.local, flow.local_port, flow.remote, flow.remote_port) == wanted:
                return flow.state
        return None

    def _reason(self, name: str, expected: Iterable[str]) -> str:
        """What was counted for the last packet; looks at what is expected first."""
        known = self._drops[name]
        for reason in expected:
            if self._dropped(name, reason) == known[reason] + 1:
                known[reason] += 1
                return reason
        return self._any_reason(name)

    def _any_reason(self, name: str) -> str:
        now = Counter(self._ports[name].drops())
        reasons, self._drops[name] = now - self._drops[name], now
        return " and ".join(reasons) or "counted nowhere"

    def _dropped(self, name: str, reason: str) -> int:
        place = self._ports[name].slot * constant("REASONS") + Reason[reason.upper()]
        values = bpf.lookup(self._drops_fd, struct.pack("<I", place), self._value_size)
        assert values is not None
        return sum(struct.unpack(f"<{len(values) // 8}Q", values))

    def settle(self) -> tuple[str, str] | None:
        """What rules and drops have counted since the last policy."""
        drops = {name: port.drops() for name, port in self._ports.items()}
        if drops != self._drops:
            return f"drops {self._drops}", f"{drops}"
        if self.model.forgotten > MANY + self.model.asked // 2:
            return "packets in fragments are remembered", f"{self.model.forgotten} were not"
        counters = self._datapath.rule_counters()
        before, rules = self._counters, counters.keys() - self.model.unsure
        seen = {
            rule: (now.packets - before[rule].packets, now.sessions - before[rule].sessions)
            for rule in rules
            if (now := counters[rule]) != before[rule]
        }
        expected = {
            rule: (n, self.model.sessions[rule]) for rule, n in self.model.packets.items() if rule in rules
        }
        return None if seen == expected else (f"packets and sessions by rule {expected}", f"{seen}")

    def compare_flows(self) -> tuple[str, str] | None:
        """What each vNIC remembers."""
        for name, port in self.model.ports.items():
            expected = Counter(_card(key, flow, self.model.now) for key, flow in self.model.alive(port))
            seen = Counter(_real_card(flow) for flow in self._ports[name].flows())
            if expected != seen:
                return f"{name} has flows {[*(expected - seen)]}", f"{[*(seen - expected)]}"
        return None


def first_difference(host: Host, steps: Sequence[Step], reached: set[str] | None = None) -> Difference | None:
    """Adds to what has been reached: reasons to drop, states of flows."""
    host.unplug()
    trial = Trial(host)
    try:
        for at, step in enumerate(steps):
            difference = trial.take(step)
            if difference:
                return Difference(at, *difference)
        difference = trial.settle() or trial.compare_flows()
        return Difference(len(steps) - 1, *difference) if difference else None
    finally:
        if reached is not None:
            reached |= trial.model.reached
        host.unplug()


def _as_expected(expected: Expected, verdict: str | None, reason: str | None) -> bool:
    if expected.verdict == "pass" or reason is None:
        return verdict == expected.verdict == "pass"
    return reason in expected.reasons and (verdict == "drop" or (verdict == "reply" and expected.may_answer))


def _words(expected: Expected) -> str:
    return f"{expected.verdict} {' or '.join(sorted(expected.reasons))}"


def _card(key: Key, flow: Flow, now: int) -> tuple[object, ...]:
    protocol, remote, remote_port, local, local_port, _ = key
    ends = (str(address_of(local)), local_port, str(address_of(remote)), remote_port)
    seen = (flow.packets["in"], flow.packets["out"], _about(flow.ends - now))
    return (protocol, *ends, flow.initiator, flow.state, flow.rule, *seen)


def _real_card(flow: RealFlow) -> tuple[object, ...]:
    ends = (str(flow.local), flow.local_port, str(flow.remote), flow.remote_port)
    seen = (flow.packets_in, flow.packets_out, _about(flow.expires_s))
    return (flow.protocol, *ends, flow.initiator, flow.state, flow.rule_id, *seen)


def _about(seconds: float) -> int:
    """What is left of a timer, some seconds of which the walk itself has taken."""
    return math.ceil(seconds / 50) * 50
