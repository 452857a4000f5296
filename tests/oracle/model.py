"""The firewall as the documents describe it, in plain Python: what becomes of a frame at a vNIC, and why.

Rules are asked of `vsfwd.policy.evaluate`, the specification, which shares nothing with the compiler;
bytes are read by `reading`, flows follow `tracking`. What is here is the order in which these are asked
(bpf/README.md, "A packet's path"), flows, policies and what they count. No clock: timers stand still."""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from tests.oracle.connection import OTHER, Connection, Step
from tests.oracle.guarding import guarded, rogue
from tests.oracle.reading import ICMP, UDP, Read, Unreadable, read, read_quoted
from tests.oracle.tracking import Flow, count, follow, may_begin
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, Verdict, evaluate
from vsfwd.policy.model import Action, Direction, ExistingFlows, Tracking

Key = tuple[int, bytes, int, bytes, int, bool]
DECISIVE: Final = ("syn-ack", "fin", "rst")
"""Segments that change a flow."""
DISCOVERY: Final = (133, 134, 135, 136)
"""Neighbour discovery: RFC 4861, without the redirect."""
CLIENT_AND_SERVER: Final = {4: (68, 67), 6: (546, 547)}
"""DHCP (RFC 2131) and DHCPv6 (RFC 8415)."""


@dataclass(frozen=True)
class Expected:
    """`reasons`: a packet that is wrong in several ways may be dropped for any of them. A rejected one
    is dropped, and may be answered if `may_answer`."""

    verdict: str
    reasons: frozenset[str] = frozenset()
    may_answer: bool = False


PASS: Final = Expected("pass")


def drop(*reasons: str) -> Expected:
    return Expected("drop", frozenset(reasons))


@dataclass
class Port:
    """A vNIC: `closed` until a policy names it."""

    id: str
    mac: bytes
    flows: dict[Key, Flow] = field(default_factory=dict)


class Model:
    def __init__(self, ports: dict[str, Port]) -> None:
        self.ports = ports
        self.packets: Counter[int] = Counter()
        """Counted by rule since the last policy."""
        self.sessions: Counter[int] = Counter()
        self.unsure: set[int] = set()
        """Rules of which it is not said what they count."""
        self._state = DesiredState()
        self._policy = 0
        self._asked: dict[tuple[Packet, str, str], Verdict] = {}

    def install(self, state: DesiredState, *, same: bool = False) -> None:
        """Another policy: each flow is asked about again at its next packet, unless it means the same."""
        self._state = state
        self._policy += not same
        for flow in (flow for port in self.ports.values() for flow in port.flows.values()):
            flow.orphan |= flow.rule not in state.rules
        for counted in (self._asked, self.packets, self.sessions, self.unsure):
            counted.clear()

    def judge(self, name: str, direction: str, frame: bytes) -> Expected:
        port = self.ports[name]
        vnic = self._state.vnics.get(port.id)
        if vnic and vnic.excluded:
            return PASS
        group = bool(frame[0] & 1)
        if direction == "in" and not group and frame[:6] != port.mac:
            return drop("not_mine")
        try:
            packet = read(frame)
        except Unreadable as unreadable:
            return Expected("drop", unreadable.faults)
        if packet is None:
            return PASS
        if packet.is_error:
            return self._error(port, direction, packet, group)
        if group or (packet.is_icmp and not packet.is_echo):
            reason = guarded(packet, direction)
            return drop(reason) if reason else self._stateless(port, direction, packet, group)
        return self._stateful(port, direction, packet)

    def _error(self, port: Port, direction: str, packet: Read, group: bool) -> Expected:
        """It passes with the flow it is about, changing nothing: what it quotes went the other way, from
        the very address it is sent to, in a flow that the policy in force allows; of TCP, what may still
        be under way."""
        if group:
            return drop("icmp_error_unrelated")
        if reason := guarded(packet, direction):
            return drop(reason)
        if not packet.intact:
            return drop("checksum")
        quoted = read_quoted(packet.quoted, packet.family)
        if quoted is None or quoted.source != packet.destination or (quoted.is_icmp and not quoted.is_echo):
            return drop("icmp_error_unrelated")
        flow = port.flows.get(_key(quoted, OTHER[direction]))
        if flow is None or flow.policy != self._policy:
            return drop("icmp_error_unrelated")
        if flow.connection and not _is_under_way(flow.connection, quoted, OTHER[direction]):
            return drop("icmp_error_unrelated")
        if flow.orphan:
            self.unsure.add(flow.rule)
        else:
            self.packets[flow.rule] += 1
        return PASS

    def _stateless(self, port: Port, direction: str, packet: Read, group: bool) -> Expected:
        if port.id not in self._state.vnics:
            return PASS if _comes_up(packet, direction) else drop("closed")
        if reason := rogue(packet, direction):
            return drop(reason)
        verdict = self._ask(question(packet), port, direction)
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            return self._denied(verdict, packet, group)
        self.packets[verdict.rule_id] += 1
        return PASS

    def _stateful(self, port: Port, direction: str, packet: Read) -> Expected:
        key = _key(packet, direction)
        flow = port.flows.get(key)
        reason = guarded(packet, direction)
        if flow is None and reason:
            return drop(reason)
        if (flow is None or flow.policy != self._policy) and port.id not in self._state.vnics:
            return PASS if _comes_up(packet, direction) else drop("closed")
        if flow is not None:
            if packet.segment and packet.segment.kind in DECISIVE and not packet.intact:
                return drop("checksum")
            moved = deepcopy(flow) if flow.policy != self._policy else flow
            step = follow(moved, packet, direction)
            if step is Step.IMPOSSIBLE:
                return drop("tcp_state")
            if step is Step.OUTSIDE:
                return drop("tcp_window")
            if step is Step.PASS:
                port.flows[key] = moved
                if moved.policy == self._policy:
                    return self._carry(moved, direction)
                return self._again(port, direction, packet, key, moved)
            del port.flows[key]
        return self._first(port, direction, packet, key)

    def _first(self, port: Port, direction: str, packet: Read, key: Key) -> Expected:
        """Of a flow, or under a stateless rule of nothing."""
        if reason := rogue(packet, direction):
            return drop(reason)
        asked = question(packet)
        verdict = self._ask(asked, port, direction)
        if verdict.rule_id is not None and not may_begin(packet, self._state.rules[verdict.rule_id].tracking):
            return drop("no_state")
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            return self._denied(verdict, packet, group=False)
        rule = self._state.rules[verdict.rule_id]
        if rule.tracking is Tracking.STATELESS or (packet.is_icmp and not packet.is_request):
            self.packets[verdict.rule_id] += 1
            return PASS
        flow = Flow(
            packet.protocol,
            direction,
            asked,
            verdict.rule_id,
            rule.existing_flows,
            self._policy,
            "echo" if packet.is_echo else "first",
            Connection.begun(packet.segment, direction) if packet.segment else None,
        )
        port.flows[key] = flow
        self.sessions[verdict.rule_id] += 1
        return self._carry(flow, direction)

    def _again(self, port: Port, direction: str, packet: Read, key: Key, flow: Flow) -> Expected:
        """A flow under a policy that has not been asked about it: cut, kept, or asked as its first
        packet. Denied, it ends; under a stateless rule too, but the packet that finds out passes."""
        if flow.existing is ExistingFlows.CUT:
            del port.flows[key]
            return drop("policy_cut")
        if reason := rogue(packet, direction):
            del port.flows[key]
            return drop(reason)
        if flow.existing is ExistingFlows.KEEP and flow.answered:
            flow.policy = self._policy
            return self._carry(flow, direction)
        verdict = self._ask(flow.asked, port, flow.initiator)
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            del port.flows[key]
            return self._denied(verdict, packet, group=False)
        rule = self._state.rules[verdict.rule_id]
        if rule.tracking is Tracking.STATELESS:
            del port.flows[key]
        flow.rule, flow.existing, flow.policy = verdict.rule_id, rule.existing_flows, self._policy
        flow.orphan = False
        return self._carry(flow, direction)

    def _carry(self, flow: Flow, direction: str) -> Expected:
        """A kept flow is counted while its rule is there; whether again when it has come back, nobody
        says."""
        count(flow, direction)
        if not flow.orphan:
            self.packets[flow.rule] += 1
        else:
            self.unsure.add(flow.rule)
        return PASS

    def _denied(self, verdict: Verdict, packet: Read, group: bool) -> Expected:
        if verdict.rule_id is None:
            return drop("no_rule")
        self.packets[verdict.rule_id] += 1
        if verdict.action is Action.DROP:
            return drop("rule_drop")
        # Never about a RST, about ICMP that is no request, about what came to a group or has extra headers.
        no_answer = group or packet.extra or (packet.is_icmp and not packet.is_request)
        no_answer |= packet.segment is not None and packet.segment.kind == "rst"
        return Expected("drop", frozenset({"rule_reject"}), may_answer=not no_answer)

    def _ask(self, asked: Packet, port: Port, direction: str) -> Verdict:
        key = (asked, port.id, direction)
        if key not in self._asked:
            self._asked[key] = evaluate(self._state, asked, port.id, Direction(direction))
        return self._asked[key]


def _key(packet: Read, direction: str) -> Key:
    """The flow, seen from the workload; of an echo, its identifier and which way the request goes."""
    ends = [(packet.source, packet.sport), (packet.destination, packet.dport)]
    (remote, remote_port), (local, local_port) = ends if direction == "in" else reversed(ends)
    if packet.is_echo:
        request_in = packet.is_request == (direction == "in")
        return packet.protocol, remote, packet.id, local, 0, request_in
    return packet.protocol, remote, remote_port, local, local_port, False


def _is_under_way(connection: Connection, quoted: Read, direction: str) -> bool:
    assert quoted.segment
    return connection.is_under_way(quoted.segment.seq, direction)


def _comes_up(packet: Read, direction: str) -> bool:
    """What a workload without a policy may do: neighbour discovery, and DHCP as a client."""
    if packet.is_icmp:
        return (
            packet.protocol == ICMP[6]
            and packet.type in DISCOVERY
            and (direction, packet.type) != ("out", 134)
        )
    ports = (packet.sport, packet.dport) if direction == "out" else (packet.dport, packet.sport)
    return packet.protocol == UDP and ports == CLIENT_AND_SERVER[packet.family]


@lru_cache(maxsize=1 << 12)
def address(raw: bytes) -> IPv4Address | IPv6Address:
    return ip_address(raw)


def question(packet: Read) -> Packet:
    """What the first packet of a flow asks the rules."""
    source, destination = address(packet.source), address(packet.destination)
    return Packet(source, destination, packet.protocol, packet.dport, packet.type, packet.code)
