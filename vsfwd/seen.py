"""Which flows the vNICs here saw lately, for the manager's dry runs.

Two things know: the flow tables, where an ended flow stays until another takes its place, and the events of
logged rules, of which a bounded number is remembered here. Packets that were dropped and not logged nobody
knows. Owns that memory; it ends with the daemon."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from heapq import nsmallest
from typing import Final

import msgspec

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, Event, Flow
from vsfwd.policy.model import ECHO_REQUEST, TCP, UDP
from vsfwd.protocol.messages import MAX_MINUTES, MAX_SEEN, Reply, Request, SeenFlow
from vsfwd.reconciler import Port

REMEMBERED: Final = 10_000
"""Flows that were logged."""
READ_S: Final = 5.0
"""How long flow tables are read for one answer: the manager does not wait for ever."""

Seen = tuple[str, SeenFlow]
"""vNIC and flow."""


class SeenFlows:
    """`ports` are the vNICs plugged here."""

    def __init__(
        self, datapath: Datapath, apply_thread: ApplyThread, ports: Callable[[], Mapping[str, Port]]
    ) -> None:
        self._datapath = datapath
        self._apply_thread = apply_thread
        self._ports = ports
        self._logged: OrderedDict[tuple[object, ...], tuple[str, SeenFlow, float]] = OrderedDict()
        """By what makes them one flow, the newest last, each with its time by the monotonic clock."""

    def take(self, event: Event) -> None:
        """Remember what a rule for packets logged, as far as the event says what it was."""
        vnic = next((id for id, port in self._ports().items() if port.slot == event.slot), None)
        if vnic is None or event.ether or (event.protocol in ECHO_REQUEST and event.icmp_type is None):
            return
        flow = _of_event(event)
        key = (vnic, *_key(flow))
        if key in self._logged:
            flow = _together(flow, self._logged.pop(key)[1])
        self._logged[key] = (vnic, flow, time.monotonic())
        if len(self._logged) > REMEMBERED:
            self._logged.popitem(last=False)

    async def answer(self, request: Request) -> Reply:
        if not 1 <= request.minutes <= MAX_MINUTES:
            return Reply(request.id, f"minutes: {request.minutes} is not in 1-{MAX_MINUTES}")
        within_s, ports = 60.0 * request.minutes, self._ports()
        until, unread = time.monotonic() + READ_S, 0
        found: list[Seen] = []
        for vnic, port in ports.items():
            if time.monotonic() > until:
                unread += 1
                continue
            table = await self._apply_thread(self._datapath.seen, port.slot, within_s)
            found += aggregated((vnic, _of_table(flow, age_s)) for flow, age_s in table)
        found += self._logged_since(within_s, ports, {(vnic, *_key(flow)) for vnic, flow in found})
        newest = nsmallest(MAX_SEEN, found, key=lambda each: each[1].age_s)
        flows: dict[str, list[SeenFlow]] = {}
        for vnic, flow in newest:
            flows.setdefault(vnic, []).append(flow)
        by_vnic = {vnic: tuple(each) for vnic, each in flows.items()}
        return Reply(request.id, flows=by_vnic, left_out=len(found) - len(newest), unread=unread)

    def _logged_since(
        self, within_s: float, ports: Mapping[str, Port], known: set[tuple[object, ...]]
    ) -> list[Seen]:
        """But for those that the tables have, which know more."""
        now = time.monotonic()
        return [
            (vnic, msgspec.structs.replace(flow, age_s=int(now - at)))
            for key, (vnic, flow, at) in self._logged.items()
            if now - at <= within_s and vnic in ports and key not in known
        ]


def aggregated(seen: Iterable[Seen]) -> list[Seen]:
    """Flows that differ in their source port only, as one."""
    found: dict[tuple[object, ...], Seen] = {}
    for vnic, flow in seen:
        key = (vnic, *_key(flow))
        found[key] = (vnic, _together(flow, found[key][1]) if key in found else flow)
    return list(found.values())


def _key(flow: SeenFlow) -> tuple[object, ...]:
    return (
        flow.direction,
        flow.protocol,
        flow.source,
        flow.destination,
        flow.port,
        flow.icmp_type,
        flow.vlan,
    )


def _together(one: SeenFlow, other: SeenFlow) -> SeenFlow:
    newer = one if one.age_s <= other.age_s else other
    return msgspec.structs.replace(newer, packets=one.packets + other.packets)


def _of_table(flow: Flow, age_s: float) -> SeenFlow:
    local, remote = (str(flow.local), flow.local_port), (str(flow.remote), flow.remote_port)
    source, destination = (local, remote) if flow.initiator == "out" else (remote, local)
    ported = flow.protocol in (TCP, UDP)  # elsewhere the number is an echo's identifier, or nothing
    return SeenFlow(
        direction="out" if flow.initiator == "out" else "in",
        protocol=flow.protocol,
        source=source[0],
        destination=destination[0],
        port=destination[1] if ported else 0,
        source_port=source[1] if ported else 0,
        icmp_type=ECHO_REQUEST.get(flow.protocol),
        vlan=flow.vlan,
        packets=flow.packets_in + flow.packets_out,
        age_s=int(age_s),
    )


def _of_event(event: Event) -> SeenFlow:
    ported = event.protocol in (TCP, UDP)
    return SeenFlow(
        direction="out" if event.direction == "out" else "in",
        protocol=event.protocol,
        source=str(event.source),
        destination=str(event.destination),
        port=event.destination_port if ported else 0,
        source_port=event.source_port if ported else 0,
        icmp_type=event.icmp_type,
        vlan=event.vlan,
        packets=1,
        age_s=0,
    )
