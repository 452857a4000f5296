"""Packet log lines, in the shape NSX's have, and a reader of the log that is too slow."""

import threading
from ipaddress import ip_address
from typing import Any, cast

import pytest

from vsfwd import packetlog
from vsfwd.datapath import Datapath, Ether, Event
from vsfwd.packetlog import PacketLog, line


def event(
    protocol: int = 6, source: str = "10.2.5.10", destination: str = "10.2.5.9", **fields: Any
) -> Event:
    return Event(
        **{
            "time_ns": 0,
            "slot": 3,
            "ifindex": 7,
            "rule_id": 1005,
            "action": "allow",
            "reason": "none",
            "direction": "out",
            "protocol": protocol,
            "source": ip_address(source),
            "source_port": 45926,
            "destination": ip_address(destination),
            "destination_port": 8140,
            "length": 60,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("what", "written"),
    [
        (event(), "3 INET match PASS mainrs/1005 OUT 60 TCP 10.2.5.10/45926->10.2.5.9/8140"),
        (
            event(17, "fd00::1", "fd00::2", action="drop", direction="in"),
            "3 INET6 match DROP mainrs/1005 IN 60 UDP fd00::1/45926->fd00::2/8140",
        ),
        (event(1, action="reject"), "3 INET match REJECT mainrs/1005 OUT 60 ICMP 10.2.5.10->10.2.5.9"),
        (
            event(suppressed=4711),
            "3 INET match PASS mainrs/1005 OUT 60 TCP 10.2.5.10/45926->10.2.5.9/8140 suppressed 4711",
        ),
        (
            event(monitored=True, action="drop"),
            "3 INET match DROP mainrs/1005 OUT 60 TCP 10.2.5.10/45926->10.2.5.9/8140 monitored",
        ),
        (event(47), "3 INET match PASS mainrs/1005 OUT 60 PROTO 47 10.2.5.10->10.2.5.9"),
    ],
)
def test_a_line_has_the_fields_parsers_expect(what: Event, written: str) -> None:
    """Family, reason, action, rule, direction, length, protocol, endpoints; last what was not logged, if
    anything."""
    assert line(what) == written


def test_a_line_ends_with_the_label_of_its_rule() -> None:
    """Before what is not in NSX's line; of packets and of frames."""
    written = "3 INET match PASS mainrs/1005 OUT 60 TCP 10.2.5.10/45926->10.2.5.9/8140 ticket 7"
    assert line(event(), "ticket 7") == written
    assert line(event(suppressed=9, monitored=True), "ticket 7") == f"{written} suppressed 9 monitored"
    ether = Ether("02:00:00:00:00:01", "01:80:c2:00:00:0e", 0x88CC, None)
    assert line(event(ether=ether), "ticket 7").endswith("->01:80:c2:00:00:0e ticket 7")


def test_a_label_is_asked_for_when_the_event_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of the rule; the line is written later, by a thread of its own."""
    written: list[str] = []

    class Log:
        def info(self, text: str) -> None:
            written.append(text)

    monkeypatch.setattr(packetlog, "log", Log())
    log = PacketLog(cast(Datapath, None))
    log.label = {1005: "ticket-7"}.get  # type: ignore[assignment]
    log.take(event())
    log.close()
    assert written[0].endswith("/8140 ticket-7")


def test_a_slow_reader_loses_lines_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is stuck: what finds no room is counted, and taking goes on."""
    stuck = threading.Event()

    class Stuck:
        def info(self, _: str) -> None:
            stuck.wait()

    monkeypatch.setattr(packetlog, "WAITING", 10)
    monkeypatch.setattr(packetlog, "log", Stuck())
    log = PacketLog(cast(Datapath, None))
    for _ in range(100):
        log.take(event())
    assert 89 <= log.lost <= 90
    stuck.set()
    log.close()
