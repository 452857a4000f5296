"""What a host tells of the flows it saw: from its flow tables, and from what logged rules said."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, cast

import pytest

from vsfwd import seen
from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, Ether, Event, Flow
from vsfwd.protocol.messages import MAX_MINUTES, Reply, Request, SeenFlow
from vsfwd.reconciler import Port
from vsfwd.seen import SeenFlows

WEB, DB = "web", "db"
PORTS = {WEB: Port(WEB, "veth0", 7, "", slot=3), DB: Port(DB, "veth1", 8, "", slot=4)}


class Tables:
    """By slot, the flows there and how many seconds ago each saw a packet."""

    def __init__(self, flows: Mapping[int, list[tuple[Flow, float]]]) -> None:
        self.flows = flows

    def seen(self, slot: int, within_s: float) -> list[tuple[Flow, float]]:
        return [(flow, age) for flow, age in self.flows.get(slot, []) if age <= within_s]


async def at_once(work: Any, *arguments: object) -> Any:
    return work(*arguments)


def host(*flows: tuple[Flow, float]) -> SeenFlows:
    """web's table has these flows."""
    tables = cast(Datapath, Tables({3: list(flows)}))
    return SeenFlows(tables, cast(ApplyThread, at_once), lambda: PORTS)


def ask(flows: SeenFlows, minutes: int = 10) -> Reply:
    return asyncio.run(flows.answer(Request("r", "flows", minutes=minutes)))


def flow(initiator: str = "out", protocol: int = 6, **fields: Any) -> Flow:
    """Between 10.0.0.1 here and 10.0.0.2, whose port is 80 or 1000, as who begins."""
    local, remote = (1000, 80) if initiator == "out" else (80, 1000)
    ends = {"local_port": local, "remote_port": remote}
    numbers = {"rule_id": 1, "packets_in": 2, "packets_out": 3, "bytes_in": 0, "bytes_out": 0}
    return Flow(
        protocol=protocol,
        local=ip_address("10.0.0.1"),
        remote=ip_address("10.0.0.2"),
        initiator=initiator,
        state="established",
        expires_s=1.0,
        policy_seq=1,
        **{**ends, **numbers, **fields},
    )


def event(slot: int = 4, **fields: Any) -> Event:
    """A packet from 10.0.0.9 to db that was dropped."""
    return Event(
        **{
            "time_ns": 0,
            "slot": slot,
            "ifindex": 8,
            "rule_id": 5,
            "action": "drop",
            "reason": "rule_drop",
            "direction": "in",
            "protocol": 6,
            "source": ip_address("10.0.0.9"),
            "source_port": 555,
            "destination": ip_address("10.0.0.3"),
            "destination_port": 22,
            "length": 60,
            **fields,
        }
    )


OUT = SeenFlow("out", 6, "10.0.0.1", "10.0.0.2", 80, 1000, None, None, 5, 4)
DROPPED = SeenFlow("in", 6, "10.0.0.9", "10.0.0.3", 22, 555, None, None, 1, 0)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (flow(), OUT),
        (flow("in"), SeenFlow("in", 6, "10.0.0.2", "10.0.0.1", 80, 1000, None, None, 5, 4)),
        (flow(protocol=1), SeenFlow("out", 1, "10.0.0.1", "10.0.0.2", 0, 0, 8, None, 5, 4)),
        (flow(protocol=47), SeenFlow("out", 47, "10.0.0.1", "10.0.0.2", 0, 0, None, None, 5, 4)),
        (flow(vlan=10), SeenFlow("out", 6, "10.0.0.1", "10.0.0.2", 80, 1000, None, 10, 5, 4)),
    ],
    ids=["out", "in", "echo", "gre", "tagged"],
)
def test_a_flow_is_told_as_its_first_packet_was(known: Flow, told: SeenFlow) -> None:
    """From who began it, to the port that was asked for; an echo by its type, not by its identifier."""
    assert ask(host((known, 4.2))).flows == {WEB: (told,)}


def test_flows_that_differ_in_their_source_port_only_are_one() -> None:
    """Packets of all of them, port and age of the newest."""
    flows = host((flow(local_port=1001), 9), (flow(local_port=1002), 2), (flow(local_port=1003), 5))
    told = SeenFlow("out", 6, "10.0.0.1", "10.0.0.2", 80, 1002, None, None, 15, 2)
    assert ask(flows).flows == {WEB: (told,)}


def test_what_a_logged_rule_dropped_is_told() -> None:
    """Nothing else knows of it; twice is two packets, and what the table has is not told again."""
    flows = host((flow(), 4))
    flows.take(event())
    flows.take(event(source_port=556))
    again = {"source": ip_address("10.0.0.1"), "destination": ip_address("10.0.0.2"), "destination_port": 80}
    flows.take(event(3, direction="out", **again))
    twice = SeenFlow("in", 6, "10.0.0.9", "10.0.0.3", 22, 556, None, None, 2, 0)
    assert ask(flows).flows == {WEB: (OUT,), DB: (twice,)}


def test_what_an_event_does_not_say_is_not_made_up() -> None:
    """Frames, ICMP whose type nobody noted, a slot that is no vNIC's any more. An echo is said."""
    flows = host()
    flows.take(event(ether=Ether("02:00:00:00:00:01", "02:00:00:00:00:02", 0x806, None)))
    flows.take(event(protocol=1))
    flows.take(event(slot=9))
    flows.take(event(protocol=58, icmp_type=129))
    assert [each.icmp_type for each in ask(flows).flows[DB]] == [129]


def test_only_what_is_asked_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By age in minutes, of tables and of the log."""
    clock = [1000.0]
    monkeypatch.setattr(seen.time, "monotonic", lambda: clock[0])
    flows = host((flow(), 59), (flow(remote_port=443), 61))
    flows.take(event())
    clock[0] += 61
    assert [each.port for each in ask(flows, 1).flows[WEB]] == [80]
    assert DB not in ask(flows, 1).flows
    assert ask(flows, 2).flows[DB][0].age_s == 61


def test_an_answer_is_bounded_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest flows, the number of those left out, and of vNICs there was no time for. What is remembered
    of the log is bounded, too."""
    monkeypatch.setattr(seen, "MAX_SEEN", 2)
    monkeypatch.setattr(seen, "REMEMBERED", 3)
    flows = host((flow(), 7), (flow(remote_port=443), 8))
    for port in range(5):
        flows.take(event(destination_port=port))
    answer = ask(flows)
    assert [each.port for each in answer.flows[DB]] == [2, 3]
    assert (answer.left_out, answer.unread) == (3, 0)
    monkeypatch.setattr(seen, "READ_S", -1.0)
    answer = ask(flows)
    assert (WEB in answer.flows, answer.unread) == (False, 2)


@pytest.mark.parametrize("minutes", [0, -1, MAX_MINUTES + 1])
def test_a_time_out_of_range_is_an_error(minutes: int) -> None:
    """Said with the limits."""
    assert ask(host((flow(), 1)), minutes) == Reply("r", f"minutes: {minutes} is not in 1-{MAX_MINUTES}")
