"""The packet log: what logged rules did, one line an event, in the shape of NSX's dfwpktlogs.

    <slot> <INET|INET6> match <PASS|DROP|REJECT|JUMP> mainrs/<rule> <IN|OUT> <length> <protocol>
    <src>[/port]-><dst>[/port] [<label of the rule>] [suppressed <n>] [monitored]
    <slot> ETHERNET match <PASS|DROP> mainrs/<rule> <IN|OUT> <length> <EtherType> [VLAN <id>] <src>-><dst>
    [<label of the rule>] [suppressed <n>] [monitored]

People have parsers for it; what is ours and not NSX's stands last. A label is the one that the rule has when
its event is read. Lines are written by a thread of their own from a bounded queue: whoever reads the log
slowly loses lines, which are counted, and never holds up the daemon."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from vsfwd.datapath import Datapath, Ether, Event
from vsfwd.policy.model import ICMP, ICMPV6, TCP, UDP

log = structlog.get_logger(log="vsfwd.pktlog")

WAITING: Final = 10_000
"""Events that wait to be written."""
CLOSE_S: Final = 1.0
_ACTION: Final = {"allow": "PASS", "drop": "DROP", "reject": "REJECT", "jump_to_application": "JUMP"}
_PROTOCOL: Final = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}


class PacketLog:
    """Owns the writing thread. `lost` counts the lines that found no room. `watch` is told every event;
    `label` says that of a rule."""

    def __init__(self, datapath: Datapath) -> None:
        self.lost = 0
        self.watch: Callable[[Event], None] = lambda _: None
        self.label: Callable[[int], str] = lambda _: ""
        self._datapath = datapath
        self._waiting: queue.Queue[tuple[Event, str] | None] = queue.Queue(WAITING)
        self._writer = threading.Thread(target=self._write, name="pktlog", daemon=True)
        self._writer.start()

    async def run(self) -> NoReturn:
        """Take events off the ring as soon as there are some."""
        loop, readable, ring = asyncio.get_running_loop(), asyncio.Event(), self._datapath.events()
        loop.add_reader(ring, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                for event in self._datapath.poll_events():
                    self.take(event)
        finally:
            loop.remove_reader(ring)

    def close(self) -> None:
        """Write what waits, if that takes no longer than a moment."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._writer.join(CLOSE_S)

    def take(self, event: Event) -> None:
        self.watch(event)
        try:
            self._waiting.put_nowait((event, self.label(event.rule_id)))
        except queue.Full:
            self.lost += 1

    def _write(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            log.info(line(*waiting))


def line(event: Event, label: str = "") -> str:
    what = _frame_line(event, event.ether) if event.ether else _packet_line(event)
    return f"{what} {label}{_what_else(event)}" if label else f"{what}{_what_else(event)}"


def _frame_line(event: Event, ether: Ether) -> str:
    tag = "" if ether.vlan is None else f" VLAN {ether.vlan}"
    what = f"{event.length} {ether.ethertype:#06x}{tag} {ether.source}->{ether.destination}"
    return f"{event.slot} ETHERNET match {_decision(event)} {what}"


def _decision(event: Event) -> str:
    return f"{_ACTION[event.action]} mainrs/{event.rule_id} {event.direction.upper()}"


def _what_else(event: Event) -> str:
    """What is not in NSX's line."""
    suppressed = f" suppressed {event.suppressed}" if event.suppressed else ""
    return f"{suppressed} monitored" if event.monitored else suppressed


def _packet_line(event: Event) -> str:
    family = "INET" if event.source.version == 4 else "INET6"
    protocol = _PROTOCOL.get(event.protocol, f"PROTO {event.protocol}")
    ports = event.protocol in (TCP, UDP)
    source = f"{event.source}/{event.source_port}" if ports else f"{event.source}"
    destination = f"{event.destination}/{event.destination_port}" if ports else f"{event.destination}"
    what = f"{event.length} {protocol} {source}->{destination}"
    return f"{event.slot} {family} match {_decision(event)} {what}"
