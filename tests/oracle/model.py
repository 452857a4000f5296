"""The firewall as the documents describe it, in plain Python: what becomes of a frame at a vNIC, and why.

Rules are asked of `vsfwd.policy.evaluate`, the specification, which shares nothing with the compiler;
bytes are read by `reading`, flows follow `tracking`. What is here is the order in which these are asked
(bpf/README.md, "A packet's path"), flows, policies and what they count. The clock moves by `pause` only."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

from tests.oracle.asking import Key, comes_up, key_of, question
from tests.oracle.connection import OTHER, Connection, Step
from tests.oracle.guarding import asks_too_small, guarded, rogue
from tests.oracle.reading import Fragment, Read, Unreadable, read, read_quoted
from tests.oracle.spoofing import Speaker
from tests.oracle.tracking import TIMERS, Flow, count, follow, may_begin
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, Packet, Verdict, evaluate_frame, explain
from vsfwd.policy.model import KNOWN_ETHERTYPES, Action, Direction, ExistingFlows, SessionTimers, Tracking

Seen = Callable[[], str | None]
"""For which reason the datapath has dropped the packet; None: it has not."""
PiecesKey = tuple[str, bytes, bytes, tuple[int, int]]
DECISIVE: Final = ("syn-ack", "fin", "rst")
"""Segments that change a flow."""
MAX_PIECES: Final = 64


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
class Pieces:
    """A packet whose first fragment has passed, under this policy, for this rule if any; `following`: where
    the next has to begin. `number` counts such packets at one vNIC."""

    policy: int
    by: tuple[int, bool] | None
    following: int
    number: int
    count: int = 1


@dataclass
class Port:
    """A vNIC: `closed` until a policy names it. `packets`: those of which there have been first fragments."""

    id: str
    mac: bytes
    flows: dict[Key, Flow] = field(default_factory=dict)
    pieces: dict[PiecesKey, Pieces] = field(default_factory=dict)
    packets: int = 0


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
        self.now = 0
        """In seconds."""
        self._by: tuple[int, bool] | None = None
        """The rule by which the last packet passed, and whether it was gone once."""
        self.reached: set[str] = set()
        """Reasons to drop, states of flows, and how rules matched that do not decide."""
        self._seen: Seen = lambda: None
        self.asked = self.forgotten = 0
        """How often a packet in fragments may have been forgotten, and was."""
        self._asked: dict[tuple[Packet, str, str], tuple[Verdict, list[tuple[int, str]]]] = {}

    def install(self, state: DesiredState, *, same: bool = False) -> None:
        """Another policy: each flow is asked about again at its next packet, unless it means the same."""
        self._state = state
        self._policy += not same
        for flow in (flow for port in self.ports.values() for flow in port.flows.values()):
            flow.orphan |= flow.rule not in state.rules
        for counted in (self._asked, self.packets, self.sessions, self.unsure):
            counted.clear()

    def pause(self, seconds: int) -> None:
        """A packet in fragments is forgotten after 30 seconds, which no pause is shorter than."""
        self.now += seconds
        for port in self.ports.values():
            port.pieces.clear()

    def alive(self, port: Port) -> list[tuple[Key, Flow]]:
        return [(key, flow) for key, flow in port.flows.items() if flow.ends > self.now]

    def _flow(self, port: Port, key: Key) -> Flow | None:
        flow = port.flows.get(key)
        if flow is None or flow.ends > self.now:
            return flow
        self.reached.add(f"{flow.state} expired")
        del port.flows[key]
        return None

    def _lifetime(self, port: Port, timer: str) -> int:
        return (self._state.vnics[port.id].timers or SessionTimers()).seconds()[timer]

    def judge(self, name: str, direction: str, frame: bytes, seen: Seen) -> Expected:
        self._seen = seen
        expected = self._expected(self.ports[name], direction, frame)
        self.reached |= expected.reasons
        return expected

    def _expected(self, port: Port, direction: str, frame: bytes) -> Expected:
        vnic = self._state.vnics.get(port.id)
        if vnic and vnic.excluded:
            return PASS
        group = bool(frame[0] & 1)
        if direction == "in" and not group and frame[:6] != port.mac:
            return drop("not_mine")
        speaker = Speaker.at(vnic, port.mac)
        if speaker and direction == "out" and frame[6:12] != port.mac:
            return drop("spoofed_mac")
        if vnic and (decided := self._ask_frame(port, direction, frame)):
            return decided
        try:
            packet = read(frame)
        except Unreadable as unreadable:
            return Expected("drop", unreadable.faults)
        if packet is None:
            forged = speaker.forges_arp(frame) if speaker and direction == "out" else None
            return drop(forged) if forged else PASS
        if packet.fragment is None:
            return self._judge(port, direction, packet, group)
        return self._follow_first(port, direction, packet, group, packet.fragment)

    def _ask_frame(self, port: Port, direction: str, frame: bytes) -> Expected | None:
        """What a rule for frames decides, counted each time; None: it is for others to say, also of IP and
        ARP in a frame that one allows."""
        if len(frame) < 14:
            return None
        ethertype = int.from_bytes(frame[12:14], "big")
        about = Frame(frame[6:12].hex(":"), frame[:6].hex(":"), ethertype)
        verdict = evaluate_frame(self._state, about, port.id, Direction(direction))
        if verdict.monitored is not None:
            self.packets[verdict.monitored] += 1
            self.reached.add("monitored frame")
        if verdict.rule_id is None:
            return None
        self.packets[verdict.rule_id] += 1
        if verdict.action is not Action.ALLOW:
            return drop("rule_drop")
        return None if ethertype in KNOWN_ETHERTYPES else PASS

    def _judge(self, port: Port, direction: str, packet: Read, group: bool) -> Expected:
        """A whole packet, or a first fragment."""
        speaker = self._speaker(port)
        if speaker and direction == "out" and (reasons := speaker.forges(packet)):
            return Expected("drop", reasons)
        if packet.is_error:
            return self._error(port, direction, packet, group)
        if group or (packet.is_icmp and not packet.is_echo):
            reason = guarded(packet, direction, self._state.vnics.get(port.id))
            return drop(reason) if reason else self._stateless(port, direction, packet, group)
        return self._stateful(port, direction, packet)

    def _follow_first(
        self, port: Port, direction: str, packet: Read, group: bool, fragment: Fragment
    ) -> Expected:
        """The first fragment is judged like any packet; those that come behind it in order, without gap or
        overlap, under the same policy, pass. Any other spoils the packet."""
        key = (direction, packet.source, packet.destination, fragment.key)
        pieces = port.pieces.get(key)
        if pieces and (pieces.policy != self._policy or self._is_forgotten(port, pieces, fragment)):
            pieces = None
        if pieces is None:
            port.pieces.pop(key, None)
            if fragment.start:
                return drop("fragment")
            self._by = None
            expected = self._judge(port, direction, packet, group)
            if expected is PASS:
                port.packets += 1
                port.pieces[key] = Pieces(self._policy, self._by, fragment.end, port.packets)
            return expected
        if pieces.following != fragment.start or pieces.count == MAX_PIECES:
            pieces.following = -1
            return drop("fragment_order")
        pieces.following, pieces.count = fragment.end, pieces.count + 1
        if not fragment.more:
            del port.pieces[key]
        return self._pass(*pieces.by) if pieces.by else PASS

    def _is_forgotten(self, port: Port, pieces: Pieces, fragment: Fragment) -> bool:
        """Whether the packet had to make room for one that came later. Which are in each other's way is a
        secret of the datapath, so this is the one thing it is asked: rarely may it say yes."""
        if pieces.number == port.packets:
            return False
        seen = self._seen()
        forgotten = seen == "fragment" if fragment.start else seen != "fragment_order"
        self.asked += 1
        self.forgotten += forgotten
        return forgotten

    def _speaker(self, port: Port) -> Speaker | None:
        return Speaker.at(self._state.vnics.get(port.id), port.mac)

    def _is_at_home(self, port: Port, packet: Read, direction: str) -> bool:
        speaker = self._speaker(port)
        local = packet.source if direction == "out" else packet.destination
        return speaker is None or speaker.may_have(packet, local)

    def _error(self, port: Port, direction: str, packet: Read, group: bool) -> Expected:
        """It passes with the flow it is about, changing nothing: what it quotes went the other way, from
        the very address it is sent to, in a flow that the policy in force allows; of TCP, what may still
        be under way."""
        if group or packet.fragment:
            return drop("icmp_error_unrelated")
        if reason := guarded(packet, direction, self._state.vnics.get(port.id)):
            return drop(reason)
        if not packet.intact:
            return drop("checksum")
        if asks_too_small(packet):
            return drop("mtu")
        quoted = read_quoted(packet.quoted, packet.family)
        if quoted is None or quoted.source != packet.destination or (quoted.is_icmp and not quoted.is_echo):
            return drop("icmp_error_unrelated")
        flow = self._flow(port, key_of(quoted, OTHER[direction]))
        if flow is None or flow.policy != self._policy:
            return drop("icmp_error_unrelated")
        if flow.connection and not _is_under_way(flow.connection, quoted, OTHER[direction]):
            return drop("icmp_error_unrelated")
        if flow.state == "echo":
            flow.ends = min(flow.ends, self.now + self._lifetime(port, "icmp_error_reply"))
        return self._pass(flow.rule, flow.orphan)

    def _pass(self, rule: int, orphan: bool = False) -> Expected:
        """What a kept flow counts while its rule is there is known; whether again when it has come back,
        nobody says."""
        self._by = rule, orphan
        if orphan:
            self.unsure.add(rule)
        else:
            self.packets[rule] += 1
        return PASS

    def _closed(self, port: Port, direction: str, packet: Read) -> Expected:
        """Without a policy."""
        trusted = direction == "in" or packet.is_icmp or self._is_at_home(port, packet, direction)
        return PASS if trusted and comes_up(packet, direction) else drop("closed")

    def _stateless(self, port: Port, direction: str, packet: Read, group: bool) -> Expected:
        if port.id not in self._state.vnics:
            return self._closed(port, direction, packet)
        if reason := rogue(packet, direction, self._state.vnics.get(port.id)):
            return drop(reason)
        if direction == "out" and not self._is_at_home(port, packet, direction):
            return drop("spoofed_ip")
        verdict = self._ask(question(packet), port, direction)
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            return self._denied(verdict, packet, group)
        return self._pass(verdict.rule_id)

    def _stateful(self, port: Port, direction: str, packet: Read) -> Expected:
        key = key_of(packet, direction)
        flow = self._flow(port, key)
        reason = guarded(packet, direction, self._state.vnics.get(port.id))
        if flow is None and reason:
            return drop(reason)
        if (flow is None or flow.policy != self._policy) and port.id not in self._state.vnics:
            return self._closed(port, direction, packet)
        if flow is not None:
            if packet.segment and packet.segment.kind in DECISIVE and not packet.intact:
                return drop("checksum")
            moved = deepcopy(flow) if flow.policy != self._policy else flow
            step = follow(moved, packet, direction)
            if step is Step.IMPOSSIBLE:
                return drop("tcp_state")
            if step is Step.OUTSIDE:
                return drop("tcp_window")
            if step is not Step.NEW:
                port.flows[key] = moved
                if moved.policy == self._policy:
                    return self._carry(port, moved, direction, step)
                return self._again(port, direction, packet, key, moved, step)
            del port.flows[key]
        return self._first(port, direction, packet, key)

    def _first(self, port: Port, direction: str, packet: Read, key: Key) -> Expected:
        """Of a flow, or of nothing: under a stateless rule, or for an address that is not the vNIC's, which
        may be spoken to and does not answer."""
        if reason := rogue(packet, direction, self._state.vnics.get(port.id)):
            return drop(reason)
        home = self._is_at_home(port, packet, direction)
        if not home and direction == "out":
            return drop("spoofed_ip")
        asked = question(packet)
        verdict = self._ask(asked, port, direction)
        if verdict.rule_id is not None and not may_begin(packet, self._state.rules[verdict.rule_id].tracking):
            return drop("no_state")
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            return self._denied(verdict, packet, group=False)
        rule = self._state.rules[verdict.rule_id]
        stateless = rule.tracking is Tracking.STATELESS or not home
        if stateless or (packet.is_icmp and not packet.is_request):
            return self._pass(verdict.rule_id)
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
        return self._carry(port, flow, direction, Step.PASS)

    def _again(self, port: Port, direction: str, packet: Read, key: Key, flow: Flow, step: Step) -> Expected:
        """A flow under a policy that has not been asked about it: cut, kept, or asked as its first
        packet. Denied, it ends; under a stateless rule too, but the packet that finds out passes."""
        if flow.existing is ExistingFlows.CUT:
            del port.flows[key]
            return drop("policy_cut")
        if reason := rogue(packet, direction, self._state.vnics.get(port.id)):
            del port.flows[key]
            return drop(reason)
        if not self._is_at_home(port, packet, direction):
            del port.flows[key]
            return self._first(port, direction, packet, key)
        if flow.existing is ExistingFlows.KEEP and flow.answered:
            flow.policy = self._policy
            return self._carry(port, flow, direction, step)
        verdict, _ = self._answer(flow.asked, port, flow.initiator)
        if verdict.action is not Action.ALLOW or verdict.rule_id is None:
            del port.flows[key]
            return self._denied(verdict, packet, group=False)
        rule = self._state.rules[verdict.rule_id]
        if rule.tracking is Tracking.STATELESS:
            del port.flows[key]
        flow.rule, flow.existing, flow.policy = verdict.rule_id, rule.existing_flows, self._policy
        flow.orphan = False
        return self._carry(port, flow, direction, step)

    def _carry(self, port: Port, flow: Flow, direction: str, step: Step) -> Expected:
        count(flow, direction)
        if step is Step.PASS:
            flow.ends = self.now + self._lifetime(port, TIMERS[flow.state])
        self.reached.add(f"in {flow.state}")
        return self._pass(flow.rule, flow.orphan)

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
        """About what has no flow: it counts for the rules too that match on the way and do not decide."""
        verdict, on_the_way = self._answer(asked, port, direction)
        for rule, how in on_the_way:
            self.packets[rule] += 1
            self.reached.add(how)
        return verdict

    def _answer(self, asked: Packet, port: Port, direction: str) -> tuple[Verdict, list[tuple[int, str]]]:
        """The verdict, and the rules on the way to it: the first of the monitored ones, and the one that
        jumps."""
        key = (asked, port.id, direction)
        if key not in self._asked:
            verdict, passed_over = explain(self._state, asked, port.id, Direction(direction))
            self._asked[key] = (
                verdict,
                [
                    (over.rule_id, over.field)
                    for over in passed_over
                    if over.field == "jump"
                    or (over.field == "monitored" and over.rule_id == verdict.monitored)
                ],
            )
        return self._asked[key]


def _is_under_way(connection: Connection, quoted: Read, direction: str) -> bool:
    assert quoted.segment
    return connection.is_under_way(quoted.segment.seq, direction)
