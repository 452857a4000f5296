"""What this host answers to local clients (`ipc.interface`), put together from the parts of the daemon.

Reads only, but for announcing and withdrawing vNICs, early drops and reload, which root and the configured
users may do. What comes from the kernel is asked on the apply thread; what comes from the policy is read from
immutable values."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from asyncvarlink import varlinkmethod
from asyncvarlink.serviceinterface import PermissionDenied

import vsfwd.ipc.interface as api
from vsfwd.alarms import Alarms
from vsfwd.announcement import announced, check_device
from vsfwd.applythread import Reads
from vsfwd.broker import BrokerLink
from vsfwd.config import Config
from vsfwd.configfile import ConfigError
from vsfwd.datapath import Datapath, DatapathError, Reason
from vsfwd.discovery import Discovery
from vsfwd.early import EarlyDrops
from vsfwd.interfaces import Conflict, Interfaces
from vsfwd.nearest import meant
from vsfwd.packetlog import PacketLog
from vsfwd.policy.decision import decide
from vsfwd.policy.model import Direction, Rule, Vnic
from vsfwd.protocol.messages import digest_text
from vsfwd.reconciler import Port, Reconciler
from vsfwd.rows import (
    address_rows,
    applied,
    flow_row,
    image_size,
    packet_of,
    rule_row,
    rule_stats,
    timers_row,
    wire_of,
)
from vsfwd.statistics import read_counters

PART: Final = 500
"""Rows in one part of a long answer."""
T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """The daemon's parts that answers are made of."""

    version: str
    config: Callable[[], Config]
    datapath: Datapath
    reconciler: Reconciler
    interfaces: Interfaces
    broker: BrokerLink
    packet_log: PacketLog
    discovery: Discovery
    alarms: Alarms
    read: Reads
    early: EarlyDrops
    reload: Callable[[], Awaitable[tuple[list[str], list[str]]]]


class Answers(api.HostInterface):
    """`uid` is the peer's."""

    def __init__(self, parts: Parts, uid: int) -> None:
        self._parts = parts
        self._uid = uid

    @varlinkmethod(return_parameter="status")
    async def Status(self) -> api.HostStatus:
        parts = self._parts
        state, image, counters = parts.reconciler.state, parts.reconciler.image, parts.reconciler.counters
        kernel = await parts.read(parts.datapath.status)
        modes = await parts.read(parts.datapath.modes)
        realised = counters.realised_at
        return api.HostStatus(
            version=parts.version,
            host_id=parts.config().host_id,
            epoch=state.epoch,
            generation=state.generation,
            digest=digest_text(state.digest),
            not_saved=parts.reconciler.not_saved,
            broker=parts.broker.connected_to,
            broker_error=parts.broker.last_error,
            realised_at=datetime.fromtimestamp(realised, UTC).isoformat(timespec="seconds")
            if realised
            else None,
            age_s=int(time.time() - realised) if realised else None,
            duration_us=counters.last_duration_us,
            messages_applied=counters.applied,
            messages_duplicate=counters.duplicate,
            messages_refused=counters.refused,
            log_lines_lost=parts.packet_log.lost,
            image=image_size(image),
            vnics=[
                self._vnic_status(port, modes.get(port.slot, "closed"))
                for _, port in sorted(parts.reconciler.ports.items())
            ]
            + [
                self._vnic_status(failed.port, "unattached", failed.reason)
                for _, failed in sorted(parts.reconciler.unattached.items())
            ],
            alarms=[
                api.Alarm(
                    cause.feature,
                    *cause,
                    self._vm_name(cause.entity),
                    alarm.description,
                    alarm.since.isoformat(timespec="seconds"),
                )
                for cause, alarm in sorted(parts.alarms.open.items())
            ],
            refusals=[api.RefusedObject(r.kind, r.id, r.reason) for r in parts.reconciler.refusals()],
            early=await parts.early.all(),
            datapath={key: str(value) for key, value in kernel.items()},
        )

    @varlinkmethod(return_parameter="part")
    async def Rules(self, *, vnic: str | None = None) -> AsyncIterator[api.VnicRules]:
        parts = self._parts
        counters = await read_counters(parts.read, parts.datapath)
        state, image = parts.reconciler.state, parts.reconciler.image
        for port in self._ports(vnic):
            ordered = [number for number in applied(image, port.slot) if number in state.rules]
            for part in _parts(list(enumerate(ordered, 1))):
                rows = [
                    rule_row(position, number, state.rules[number], state.groups, counters.get(number))
                    for position, number in part
                ]
                excluded = port.vnic in state.vnics and state.vnics[port.vnic].excluded
                yield api.VnicRules(port.vnic, self._vm_name(port.vnic), port.device, excluded, rows)

    @varlinkmethod(return_parameter="part")
    async def Addrsets(self) -> AsyncIterator[list[api.Addrset]]:
        state = self._parts.reconciler.state
        members: dict[str, dict[str, list[str]]] = {id: {} for id in state.groups}
        for vnic in state.vnics.values():
            for group in vnic.groups:
                members[group].setdefault(vnic.vm_name, []).extend(vnic.addresses)
        rows = [
            api.Addrset(id, group.name, list(group.addresses), members[id])
            for id, group in sorted(state.groups.items(), key=lambda item: item[1].name)
        ]
        for part in _parts(rows):
            yield part

    @varlinkmethod(return_parameter="part")
    async def Flows(self, *, vnic: str | None = None) -> AsyncIterator[list[api.FlowRow]]:
        parts = self._parts
        for port in self._ports(vnic):
            flows = await parts.read(parts.datapath.flows, port.slot)
            name = self._vm_name(port.vnic)
            for part in _parts([flow_row(port.vnic, name, flow) for flow in flows]):
                yield part

    @varlinkmethod(return_parameter="part")
    async def Addresses(self, *, vnic: str | None = None) -> AsyncIterator[list[api.AddressRow]]:
        policy, learned, now = (
            self._parts.reconciler.state.vnics,
            self._parts.discovery.learned,
            int(time.time()),
        )
        rows = [
            row
            for port in self._ports(vnic)
            for row in address_rows(port.vnic, policy.get(port.vnic), learned.get(port.vnic, {}), now)
        ]
        for part in _parts(rows):
            yield part

    @varlinkmethod(return_parameter="part")
    async def Timers(self, *, vnic: str | None = None) -> AsyncIterator[list[api.TimersRow]]:
        policy = self._parts.reconciler.state.vnics
        for part in _parts([timers_row(port.vnic, policy.get(port.vnic)) for port in self._ports(vnic)]):
            yield part

    @varlinkmethod(return_parameter="stats")
    async def Stats(self) -> api.HostStats:
        parts = self._parts
        counters = await read_counters(parts.read, parts.datapath)
        drops: dict[int, dict[Reason, int]] = {}
        for port in [*parts.reconciler.ports.values()]:  # policy waits for each: a quarter of a millisecond
            drops |= await parts.read(parts.datapath.drops, [port.slot])
        unfiltered = await parts.read(parts.datapath.unfiltered)
        rules = parts.reconciler.state.rules
        return api.HostStats(
            rules=[
                rule_stats(id, rule, counters[id])
                for id, rule in sorted(rules.items(), key=lambda item: (item[1].order, item[0]))
                if id in counters
            ],
            drops=[
                api.VnicDrops(
                    id, self._vm_name(id), {r.name.lower(): n for r, n in drops.get(port.slot, {}).items()}
                )
                for id, port in sorted(parts.reconciler.ports.items())
            ],
            unfiltered=[
                api.VnicUnfiltered(id, self._vm_name(id), packets)
                for id, port in sorted(parts.reconciler.ports.items())
                if (packets := unfiltered.get(port.slot, 0))
            ],
            flows=[
                api.VnicFlows(id, self._vm_name(id), use.held)
                for id, use in sorted(parts.alarms.tables.items())
                if id in parts.reconciler.ports
            ],
        )

    @varlinkmethod(return_parameter="explanation")
    async def Explain(self, *, vnic: str, packet: api.PacketSpec) -> api.Explanation:
        ids = [port.vnic for port in self._ports(vnic)]
        if len(ids) > 1:
            raise api.Refused(reason=f"{vnic} has {len(ids)} vNICs; name one: {', '.join(ids)}")
        state = self._parts.reconciler.enforced()
        try:
            direction, spec, wire = Direction(packet.direction), packet_of(packet), wire_of(packet)
        except ValueError as error:
            raise api.Refused(reason=str(error)) from None
        decision = await asyncio.to_thread(decide, state, spec, ids[0], direction, wire)
        verdict = decision.verdict
        rule = state.rules[verdict.rule_id] if verdict.rule_id is not None else None
        return api.Explanation(
            vnic=ids[0],
            vm_name=self._vm_name(ids[0]),
            action=str(verdict.action),
            rule=verdict.rule_id,
            name=_decision(rule, decision.words),
            section=rule.section if rule else "",
            passed_over=[
                api.PassedOver(over.rule_id, state.rules[over.rule_id].name, over.field)
                for over in decision.passed_over
            ],
            frame_rule=decision.frame_rule,
        )

    @varlinkmethod
    async def AnnounceVnic(
        self,
        *,
        vnic: str,
        vm: str,
        mac: str,
        device: str,
        guest: api.GuestInfo | None = None,
        segment: str | None = None,
        addresses: list[str] | None = None,
    ) -> None:
        self._privileged()
        try:
            binding = announced(
                vnic, vm, mac, device, guest or api.GuestInfo(), segment or "", addresses or []
            )
        except ValueError as error:
            raise api.Refused(reason=str(error)) from None
        try:
            plugged = await self._parts.interfaces.announce(binding)
        except Conflict as conflict:
            raise api.Refused(reason=str(conflict)) from None
        if plugged and (failed := self._parts.reconciler.unattached.get(vnic)):
            raise api.Refused(
                reason=f"vNIC {vnic}: device {device} is there, but not attached: {failed.reason}"
            )

    @varlinkmethod
    async def WithdrawVnic(self, *, vnic: str) -> None:
        self._privileged()
        if not await self._parts.interfaces.withdraw(vnic):
            raise api.NotFound(reason=f"vNIC {vnic}: neither announced nor plugged here")

    @varlinkmethod(return_parameter="early")
    async def EarlyDrops(self) -> list[api.EarlyDrop]:
        return await self._parts.early.all()

    @varlinkmethod
    async def AttachEarlyDrop(self, *, device: str, blocked: list[str], rate: int, burst: int) -> None:
        self._privileged()
        _check_device(device)
        await self._parts.early.attach(device, blocked, rate, burst, self._uid)

    @varlinkmethod
    async def DetachEarlyDrop(self, *, device: str) -> None:
        self._privileged()
        _check_device(device)
        await self._parts.early.detach(device, self._uid)

    @varlinkmethod(return_parameter="reloaded")
    async def Reload(self) -> api.Reloaded:
        self._privileged()
        try:
            return api.Reloaded(*await self._parts.reload())
        except (ConfigError, DatapathError) as error:
            raise api.Refused(reason=str(error)) from None

    def _privileged(self) -> None:
        if self._uid != 0 and self._uid not in self._parts.config().ipc_uids:
            raise PermissionDenied()

    def _ports(self, name: str | None) -> list[Port]:
        """The vNICs plugged here that `name` names; all of them without one."""
        ports, policy = self._parts.reconciler.ports, self._parts.reconciler.state.vnics
        found = [
            port for id, port in sorted(ports.items()) if name is None or _named(name, id, policy.get(id))
        ]
        if name is not None and not found:
            here = meant(name, filter(None, map(self._vm_name, ports)))
            raise api.NotFound(reason=f"{name}: no vNIC of that id, VM id or VM name is plugged here{here}")
        return found

    def _vm_name(self, id: str) -> str:
        vnic = self._parts.reconciler.state.vnics.get(id)
        return vnic.vm_name if vnic else ""

    def _vnic_status(self, port: Port, mode: str, why: str = "") -> api.VnicStatus:
        vnic = self._parts.reconciler.state.vnics.get(port.vnic)
        return api.VnicStatus(
            vnic=port.vnic,
            vm=vnic.vm if vnic else "",
            vm_name=vnic.vm_name if vnic else "",
            device=port.device,
            mac=port.mac,
            slot=port.slot,
            state="open" if mode == "enforced" else mode,
            generation=0 if mode in ("closed", "unattached") else self._parts.reconciler.state.generation,
            addresses=list(vnic.addresses) if vnic else [],
            why=why,
        )


def _decision(rule: Rule | None, words: str) -> str:
    """By what it was decided: a rule, words, or the one with the other."""
    if rule is None:
        return words
    return f"{rule.name} ({words})" if words else rule.name


def _check_device(name: str) -> None:
    try:
        check_device(name)
    except ValueError as error:
        raise api.Refused(reason=str(error)) from None


def _named(name: str, id: str, vnic: Vnic | None) -> bool:
    return name == id or (vnic is not None and name in (vnic.vm, vnic.vm_name))


def _parts(rows: Sequence[T]) -> Iterator[list[T]]:
    """At least one part: an answer without rows is an answer."""
    for start in range(0, max(len(rows), 1), PART):
        yield list(rows[start : start + PART])
