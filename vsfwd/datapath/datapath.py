"""The datapath as the daemon sees it: vNICs on and off, a plan in, counters, flows and events out.

Small on purpose: it composes `loader` (programs), `maps` (policy), `guards` (SpoofGuard), `timers`,
`conntrack` (flows), `attach` (devices) and `events`. Everything that must outlive the daemon is in pinned
maps; the tables here can be read back from them. Closing a Datapath, or dying with it open, changes nothing
that is enforced."""

import os
import struct
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from vsfwd.datapath import bpf
from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.carry import Before, find
from vsfwd.datapath.conntrack import Flow, FlowTables
from vsfwd.datapath.departed import Departed
from vsfwd.datapath.early import Early
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.events import Event, Events
from vsfwd.datapath.guards import Bindings, guard_bits
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import ArrayMap, Policy, RuleCounters
from vsfwd.datapath.pins import remove_older
from vsfwd.datapath.portguard import PortGuard
from vsfwd.datapath.schema import Hold, Reason, constant, layouts, same, schema
from vsfwd.datapath.snoops import Snoop, Snoops
from vsfwd.datapath.timers import TIMEOUTS_S, Timers, timeouts_s
from vsfwd.datapath.transitions import packed_transitions
from vsfwd.image import Flip, Guard, InPlace, Plan
from vsfwd.policy.model import SessionTimers

if TYPE_CHECKING:
    from vsfwd.datapath.flowcopy import FlowCopy
    from vsfwd.datapath.flowstate import FlowStates


@dataclass(frozen=True)
class Limit:
    """At most `burst` at once, and `rate` a second from then on."""

    rate: int
    burst: int


@dataclass(frozen=True)
class Settings:
    """`flows_per_vnic`: places of a vNIC's flow table, at most 524,288. `timeouts_s`: how long flows live, by
    state, at vNICs to which `set_timers` has given nothing else. `log_limit`: events of one rule at
    one vNIC. `reject_limit`: replies of one vNIC to what its rules reject, in each direction; the rest is
    dropped only. `guard_ports`: names of bridge ports that are closed but for vNICs that are attached."""

    flows_per_vnic: int = 32768
    timeouts_s: dict[str, float] = field(default_factory=lambda: dict(TIMEOUTS_S))
    log_limit: Limit = Limit(rate=100, burst=200)
    reject_limit: Limit = Limit(rate=100, burst=200)
    snoop_limit: Limit = Limit(rate=8, burst=16)
    guard_ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableUse:
    """Of a vNIC's flow table: the share of its places that flows hold which give way to nobody, and how many
    packets were dropped for want of a place, since the vNIC was attached."""

    held: float
    refused: int


@dataclass(frozen=True)
class _Vnic:
    slot: int
    ifindex: int
    mac: bytes
    guard: int = 0


@dataclass(frozen=True)
class _Waiting:
    """A vNIC that bears programs of a daemon before this one, with other structs: what they do, and the copy
    of its flows, if they are not in a table of both."""

    mode: str
    copy: "FlowCopy | None"


class Datapath:
    """Use `open`, and as a context manager."""

    def __init__(self, programs: Programs, hooks: Hooks, settings: Settings) -> None:
        self._programs = programs
        self._hooks = hooks
        self._buckets = -(-settings.flows_per_vnic // constant("WAYS"))
        self._layout = programs.layouts("vnics")[1]
        self._vnic_map = ArrayMap(os.dup(programs.fd("vnics")), self._layout.size, constant("VNIC_PLACES"))
        self._timers = Timers(programs)
        self._profiles: Mapping[str, SessionTimers] | None = None
        self._vnics: dict[str, _Vnic] = {}
        self.port_guard = PortGuard(settings.guard_ports)
        if not self.port_guard.on:
            self.port_guard.remove()  # while the programs still stamp what it asks for
        self.configure(settings)
        self._policy = Policy(programs)
        self._bindings = Bindings(programs)
        self._flows = FlowTables(programs)
        self._events = Events(programs)
        self._snoops = Snoops(programs)
        self._ahead: set[int] = set()
        self._held: dict[str, Hold] = {}
        self.departed = Departed()
        self._reserved: dict[str, int] = {}
        self._guards: Mapping[int, Guard] = {}
        self._behind: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self.early = Early(programs)
        self._vnics = self._read_vnics()

    @classmethod
    def open(cls, pin_dir: Path, settings: Settings = Settings()) -> "Datapath":  # frozen
        """Opens the programs, or compiles them, and takes over whatever is pinned under `pin_dir`: flows,
        slots and counters go on, and devices that bear our programs get these in one step each. (A device
        number alone proves nothing: while nobody watched it may have become another device's.) The port guard
        comes last: by then every program stamps."""
        hooks = Hooks()
        try:
            before = find(pin_dir, hooks)
            if before:
                before.link(pin_dir / schema())
            programs = Programs(pin_dir)
            if before:
                before.fill(programs)
        except OSError as error:
            raise DatapathError(f"take over the maps of an older daemon: {error}") from None
        datapath = cls(programs, hooks, settings)
        taken_over = [v.ifindex for v in datapath._vnics.values() if datapath._hooks.attached(v.ifindex)]
        for ifindex in taken_over:
            datapath._hooks.attach(ifindex, datapath._programs.twins)
        if before:
            taken_over += datapath._adopt(before)
        guard = datapath.port_guard
        # Those that bear another version's programs and are in no map of this one are attached later.
        filtered = {n for n in guard.protected_in_force() if datapath._hooks.attached(n)}
        guard.install(datapath._stamp, filtered.union(taken_over))
        datapath._programs.unpin_others()
        return datapath

    def _adopt(self, before: Before) -> list[int]:
        """vNICs that a daemon with other structs has served, each in its slot, with flows and counters. They
        bear its programs until `install` has put a policy in force; answers their devices."""
        adopted = []
        for served in before.served:
            row, id_ = served.row, str(UUID(bytes=served.row["id"]))
            if id_ in self._vnics or row["slot"] in self.slots.values():
                continue
            vnic = _Vnic(row["slot"], row["ifindex"], row["mac"], row["guard"])
            copy = self._take_flows(before, vnic.slot)
            self._snoops.reset(vnic.slot)
            self._fill_reject_tokens(vnic.slot)
            self._timers.write(vnic.slot, self._lifetimes(id_))
            if row.get("hold"):
                self._held[id_] = Hold(row["hold"])
            self._write_vnic(id_, vnic)
            self._vnics[id_] = vnic
            self._waiting[id_] = _Waiting(served.mode, copy)
            adopted.append(vnic.ifindex)
        return adopted

    def _take_flows(self, before: Before, slot: int) -> "FlowCopy | None":
        """The table itself where it is as ours, else a copy that is to be made when our programs come."""
        from vsfwd.datapath.flowcopy import FlowCopy  # numpy, only where there is something to copy

        theirs = before.flows(slot)
        copy = FlowCopy(self._programs, self._flows, self.flow_states, slot, theirs, before.bucket)
        if same(before.bucket, layouts("flows")[1]) and copy.agrees():
            bpf.put_inner(self._programs.fd("flows"), slot, theirs)
            copy.close()
            return None
        self._flows.make(slot, bpf.sizes_of(theirs)[2])
        return copy

    def _relieve(self) -> None:
        """The policy is in force in our maps: devices that bear programs of before get ours."""
        for id_, waiting in list(self._waiting.items()):
            if waiting.copy:
                waiting.copy.begin()
            self._hooks.attach(self._vnics[id_].ifindex, self._programs.twins)
            del self._waiting[id_]
            if waiting.copy:
                waiting.copy.end()

    def _wait_no_more(self, vnic_id: str) -> None:
        waiting = self._waiting.pop(vnic_id, None)
        if waiting and waiting.copy:
            waiting.copy.close()

    def remove_older_pins(self) -> list[str]:
        """Those of daemons with other structs, once all devices that they served bear our programs; answers
        their schemas."""
        try:
            return remove_older(self._programs.pins)
        except OSError as error:
            raise DatapathError(f"remove pins of an older daemon: {error}") from None

    def configure(self, settings: Settings) -> None:
        """Lifetimes and limits for the programs, from the next packet on; what vNICs that are taken over have
        in the map stays until `set_timers`. Secrets are made once and kept, since
        flows lie where the seeds say."""
        fd, layout = self._programs.fd("settings"), self._programs.layouts("settings")[1]
        kept = layout.unpack(bpf.lookup(fd, bytes(4), layout.size) or bytes(layout.size))
        seed = kept["seed"] if any(kept["seed"]) else os.urandom(len(kept["seed"]))
        # No vNIC's mark may be 0, which every packet has: a bit above all slots is set.
        self.mark: int = kept["mark"] or int.from_bytes(os.urandom(4), "little") | 1 << 31
        self._stamp = self._stamp_for(kept["stamp"])
        packed = layout.pack(
            seed=seed,
            mark=self.mark,
            stamp=self._stamp,
            log=self._programs.limit(settings.log_limit.rate, settings.log_limit.burst),
            reject=self._programs.limit(settings.reject_limit.rate, settings.reject_limit.burst),
            snoop=self._programs.limit(settings.snoop_limit.rate, settings.snoop_limit.burst),
            transition=packed_transitions(),
        )
        bpf.update(fd, bytes(4), packed)
        self._timeouts_s = settings.timeouts_s
        for id, vnic in self._vnics.items():
            self._timers.write(vnic.slot, self._lifetimes(id))

    def _stamp_for(self, kept: int) -> int:
        """That of a table which is there holds: programs of whichever version put it on packets. It is no
        vNIC's mark, which have the highest bit, and not 0."""
        if not self.port_guard.on:
            return 0
        found = self.port_guard.stamp_in_force() or kept
        return found or int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF | 1

    def _read_vnics(self) -> dict[str, _Vnic]:
        vnics = {}
        for place in range(self._vnic_map.entries):
            vnic = self._layout.unpack(self._vnic_map[place][: self._layout.size])
            if vnic["ifindex"]:
                vnics[str(UUID(bytes=vnic["id"]))] = _Vnic(
                    vnic["slot"], vnic["ifindex"], vnic["mac"], vnic["guard"]
                )
                if vnic["ahead"]:
                    self._ahead.add(vnic["slot"])
                if vnic["hold"]:
                    self._held[str(UUID(bytes=vnic["id"]))] = Hold(vnic["hold"])
        return vnics

    # ---- vNICs ----

    @property
    def slots(self) -> dict[str, int]:
        """vNIC id to slot, of all vNICs that are attached."""
        return {id_: vnic.slot for id_, vnic in self._vnics.items()}

    @property
    def places(self) -> dict[str, int]:
        """As `slots`, and of the vNICs that are to come (`reserve`)."""
        return {**self._reserved, **self.slots}

    def reserve(self, vnic_id: str) -> None:
        """A slot for a vNIC that is to come: policy and flows are in their place before it is."""
        if vnic_id not in self.places:
            slot = self._free_slot(vnic_id)
            try:
                self._make_room(slot, vnic_id)
            except OSError as error:
                raise DatapathError(f"reserve a slot for vNIC {vnic_id}: {error}") from None
            self._reserved[vnic_id] = slot

    def give_up(self, vnic_id: str) -> None:
        """It does not come."""
        slot = self._reserved.pop(vnic_id, None)
        if slot is not None:
            self._clear(slot)

    def attach(self, vnic_id: str, ifindex: int, mac: str) -> int:
        """Puts the programs on a device and answers the vNIC's slot. A new vNIC is closed: only ARP,
        neighbour discovery and DHCP pass until a plan names its slot; nothing does if it is held.
        Idempotent; a known vNIC on another device keeps slot and flows."""
        known = self._vnics.get(vnic_id)
        if vnic_id in self._waiting and known:
            if known.ifindex == ifindex and self._hooks.attached(ifindex):
                self._vnics[vnic_id] = replace(known, mac=bytes.fromhex(mac.replace(":", "")))
                self._write_vnic(vnic_id, self._vnics[vnic_id])
                return known.slot
            self._wait_no_more(vnic_id)
        reserved = self._reserved.get(vnic_id)
        slot = known.slot if known else self._free_slot(vnic_id) if reserved is None else reserved
        expected = guard_bits(self._guards.get(slot, Guard())) if reserved is not None else 0
        guard = known.guard if known else expected
        vnic = _Vnic(slot, ifindex, bytes.fromhex(mac.replace(":", "")), guard)
        for other in [id_ for id_, v in self._vnics.items() if v.ifindex == ifindex and id_ != vnic_id]:
            # The number is this vNIC's now. What is on the device stays on it, so that nothing passes unseen.
            self._forget(other)
        try:
            if known is None and reserved is None:
                self._make_room(slot, vnic_id)
            elif known is None:
                self._timers.write(slot, self._lifetimes(vnic_id))
            elif known.ifindex != ifindex:
                self.holds()
                self.port_guard.release(known.ifindex)
                self._hooks.detach(known.ifindex)
                self._clear_place(known.ifindex)
            self._write_vnic(vnic_id, vnic)
        except OSError as error:
            raise DatapathError(f"attach vNIC {vnic_id} to device {ifindex}: {error}") from None
        self._vnics[vnic_id] = vnic
        self.departed.drop(vnic_id)
        self._reserved.pop(vnic_id, None)
        try:
            self._hooks.attach(ifindex, self._programs.twins)
            if self._hooks.behind(ifindex):
                self._behind.add(vnic_id)
        except DatapathError:
            if known is None:
                self.detach(vnic_id)
            elif self._hooks.bare([ifindex]):
                self.port_guard.release(ifindex)
            raise
        self.port_guard.protect(ifindex)
        return vnic.slot

    def detach(self, vnic_id: str) -> None:
        """Takes the programs off and forgets the vNIC and its flows. Its slot may be given to another one."""
        vnic = self._vnics.get(vnic_id)
        if vnic is not None:
            self.port_guard.release(vnic.ifindex)
            self._hooks.detach(vnic.ifindex)
            self._forget(vnic_id)

    def bare(self) -> set[str]:
        """vNICs whose programs somebody took off, or has put others before: to be attached again."""
        missing = self._hooks.bare(vnic.ifindex for vnic in self._vnics.values())
        return {id_ for id_, vnic in self._vnics.items() if vnic.ifindex in missing}

    def behind(self) -> set[str]:
        """vNICs at which another program stays before ours, as far as `attach` found any."""
        found = {id_: self._vnics[id_].ifindex for id_ in self._behind & self._vnics.keys()}
        self._behind = {id_ for id_, ifindex in found.items() if self._hooks.behind(ifindex)}
        return set(self._behind)

    def _forget(self, vnic_id: str) -> None:
        if self.holds().get(vnic_id) == Hold.FROZEN:
            del self._held[vnic_id]  # it has left; one that is to come is held still when it comes again
        vnic = self._vnics.pop(vnic_id)
        self.departed.keep(vnic_id, self._flows.held_open(vnic.slot), self._policy.seq)
        self._wait_no_more(vnic_id)
        self._clear_place(vnic.ifindex)
        self._clear(vnic.slot)

    def _make_room(self, slot: int, vnic_id: str) -> None:
        self._flows.make(slot, self._buckets)
        self._clear_drops(slot)
        self._snoops.reset(slot)
        self._fill_reject_tokens(slot)
        self._timers.write(slot, self._lifetimes(vnic_id))

    def _clear(self, slot: int) -> None:
        self._ahead.discard(slot)
        self._policy.close_slot(slot)
        self._bindings.clear(slot)
        self._flows.drop(slot)

    def _free_slot(self, vnic_id: str) -> int:
        taken = set(self.places.values())
        for slot in range(constant("SLOTS")):
            if slot not in taken:
                return slot
        raise DatapathError(f"attach vNIC {vnic_id}: all {constant('SLOTS')} slots are in use")

    def _write_vnic(self, vnic_id: str, vnic: _Vnic) -> None:
        held = self._held.get(vnic_id, Hold.NONE)
        fields: dict[str, int | bytes] = {
            "slot": vnic.slot,
            "buckets": self._flows.buckets(vnic.slot),
            "mac": vnic.mac,
            "ahead": vnic.slot in self._ahead or held != Hold.NONE,
            "guard": vnic.guard,
            "id": UUID(vnic_id).bytes,
        }
        place = self._place(vnic.ifindex, vnic.ifindex)
        if place is None:
            place = self._place(vnic.ifindex, 0)
            if place is None:
                raise DatapathError(f"attach vNIC {vnic_id}: too many device numbers like {vnic.ifindex}")
            # A packet may look at any moment: nothing is found here before the device number stands.
            self._vnic_map[place] = self._layout.pack(hold=int(held), **fields)
        # All but the last byte, which the programs write.
        self._vnic_map[place] = self._layout.pack(ifindex=vnic.ifindex, **fields)[:-1]

    def _clear_place(self, ifindex: int) -> None:
        place = self._place(ifindex, ifindex)
        if place is not None:
            # Nothing but the device number: a packet under way may still look at the rest.
            self._vnic_map[place] = bytes(4)

    def _place(self, ifindex: int, holding: int) -> int | None:
        """Where, among the places the programs look for `ifindex`, the device number is `holding`."""
        for probe in range(constant("VNIC_PROBES")):
            place = (ifindex + probe) % self._vnic_map.entries
            if int.from_bytes(self._vnic_map[place][:4], "little") == holding:
                return place
        return None

    # ---- vNICs whose VM changes host ----

    def hold(self, vnic_id: str, why: Hold) -> None:
        """Nothing passes from when this returns on, or all that the policy allows does (`Hold.NONE`). Of a
        vNIC that is not attached yet: from when it is."""
        before = self.holds().get(vnic_id, Hold.NONE)
        self._held[vnic_id] = why
        vnic = self._vnics.get(vnic_id)
        if vnic is not None:
            place = self._place(vnic.ifindex, vnic.ifindex)
            if place is not None:
                self._vnic_map.write(place, self._layout.size - 1, bytes([why]))
            self._write_vnic(vnic_id, vnic)
            if before == Hold.NONE != why:
                self._flows.settle(vnic.slot)
        self.holds()

    def holds(self) -> dict[str, Hold]:
        """Of the vNICs that are held. One that its VM has brought to life is not any more."""
        for vnic_id, vnic in self._vnics.items():
            if vnic_id in self._held:
                place = self._place(vnic.ifindex, vnic.ifindex)
                now = Hold(self._vnic_map[place][self._layout.size - 1]) if place is not None else Hold.NONE
                if now != self._held[vnic_id]:
                    self._held[vnic_id] = now
                    self._write_vnic(vnic_id, vnic)
        self._held = {vnic_id: why for vnic_id, why in self._held.items() if why != Hold.NONE}
        return dict(self._held)

    @cached_property
    def flow_states(self) -> "FlowStates":
        """Flows that change host."""
        from vsfwd.datapath.flowstate import FlowStates  # numpy, for which no start of the daemon waits

        return FlowStates(self._programs, self._flows, self._policy)

    def empty(self, vnic_id: str) -> None:
        """No flow of it is left."""
        slot = self.places[vnic_id]
        self._flows.make(slot, self._flows.buckets(slot))

    @property
    def held(self) -> dict[str, Hold]:
        """As `holds` has last found it."""
        return self._held.copy()

    def free_slots(self) -> int:
        return constant("SLOTS") - len(self.places)

    # ---- policy ----

    def install(self, plan: Plan) -> None:
        """When this returns, every packet is decided by `plan.image`. On DatapathError the policy is what it
        was."""
        guards = plan.image.guards
        added = self._bindings.add(guards)
        try:
            if isinstance(plan, Flip):
                ahead = {slot for slot, rows in plan.image.vnics.items() if rows.ahead}
                self._ask_ahead(self._ahead | ahead)
                self._policy.flip(plan)
                self._ask_ahead(ahead)
            elif isinstance(plan, InPlace):
                self._policy.in_place(plan)
        except DatapathError:
            self._bindings.remove(added)
            raise
        self._guards, changed = guards, False
        for id, vnic in self._vnics.items():
            guarded = replace(vnic, guard=guard_bits(guards.get(vnic.slot, Guard())))
            if guarded != vnic:
                self._vnics[id], changed = guarded, True
                self._write_vnic(id, guarded)
        if self._bindings.keep(guards) or changed:
            self._policy.ask_again()
        self._relieve()

    def _ask_ahead(self, slots: set[int]) -> None:
        """Only at these vNICs the programs ask the policy before they parse."""
        changed, self._ahead = self._ahead ^ slots, slots
        for id_, vnic in self._vnics.items():
            if vnic.slot in changed:
                self._write_vnic(id_, vnic)

    def modes(self) -> dict[int, str]:
        """By slot of the attached vNICs, what the kernel does there: closed, enforced or excluded, by this
        daemon's policy or by one that an earlier daemon left."""
        return {
            vnic.slot: self._waiting[id_].mode if id_ in self._waiting else self._policy.mode(vnic.slot)
            for id_, vnic in self._vnics.items()
        }

    def set_timers(self, profiles: Mapping[str, SessionTimers]) -> None:
        """By vNIC id: how long its flows live, each from its next packet on."""
        before, self._profiles = self._profiles, profiles
        for id, vnic in self._vnics.items():
            if before is None or before.get(id) != profiles.get(id):
                self._timers.write(vnic.slot, self._lifetimes(id))

    def _lifetimes(self, vnic_id: str) -> Mapping[str, float]:
        profile = (self._profiles or {}).get(vnic_id)
        return timeouts_s(profile) if profile else self._timeouts_s

    # ---- what happened ----

    def counted_rules(self) -> set[int]:
        return self._policy.counters.owners()

    def rule_counters(self, rules: Iterable[int] | None = None) -> dict[int, RuleCounters]:
        """By rule id; of all that are counted, or of some of them."""
        counters = self._policy.counters
        return counters.read(counters.owners() if rules is None else rules)

    def table_use(self) -> dict[str, TableUse]:
        """By vNIC id."""
        return {
            id_: TableUse(self._flows.held(vnic.slot), self._dropped(vnic.slot, Reason["TABLE_FULL"]))
            for id_, vnic in self._vnics.items()
        }

    def drops(self) -> dict[int, dict[Reason, int]]:
        """By slot, the reasons that have occurred since the vNIC was attached."""
        return {vnic.slot: self._drops(vnic.slot) for vnic in self._vnics.values()}

    def _drops(self, slot: int) -> dict[Reason, int]:
        return {reason: total for reason in Reason if (total := self._dropped(slot, reason))}

    def _dropped(self, slot: int, reason: Reason) -> int:
        cpus, place = bpf.possible_cpus(), slot * constant("REASONS") + reason
        raw = bpf.lookup(self._programs.fd("drops"), struct.pack("<I", place), 8 * cpus) or b""
        return sum(struct.unpack(f"<{len(raw) // 8}Q", raw))

    def unfiltered(self) -> dict[int, int]:
        """By slot, the packets that passed because the vNIC is excluded, since it was attached."""
        fd, cpus = self._programs.fd("unfiltered"), bpf.possible_cpus()
        counts = {}
        for vnic in self._vnics.values():
            raw = bpf.lookup(fd, struct.pack("<I", vnic.slot), 8 * cpus) or bytes(8 * cpus)
            counts[vnic.slot] = sum(struct.unpack(f"<{cpus}Q", raw))
        return counts

    def _clear_drops(self, slot: int) -> None:
        bpf.update(self._programs.fd("unfiltered"), struct.pack("<I", slot), bytes(8 * bpf.possible_cpus()))
        zero, first = bytes(8 * bpf.possible_cpus()), slot * constant("REASONS")
        for reason in Reason:
            bpf.update(self._programs.fd("drops"), struct.pack("<I", first + reason), zero)

    def _fill_reject_tokens(self, slot: int) -> None:
        for place in (2 * slot, 2 * slot + 1):
            bpf.update(self._programs.fd("reject_tokens"), struct.pack("<I", place), bytes(8))

    def flows(self, slot: int) -> list[Flow]:
        return self._flows.flows(slot)

    def seen(self, slot: int, within_s: float) -> list[tuple[Flow, float]]:
        """Flows of the last seconds, ended ones too as far as the table still has them, each with the
        seconds since its last packet."""
        return list(self._flows.seen(slot, self._timers.read(slot), within_s))

    def know(self, slot: int, addresses: Set[int]) -> None:
        """The programs need not show again that the vNIC claims these addresses; others they will."""
        self._bindings.know(slot, addresses)

    def snoops(self) -> int:
        """A descriptor that is readable when `poll_snoops` has something."""
        return self._snoops.ring.fd

    def poll_snoops(self) -> list[Snoop]:
        return self._snoops.ring.poll()

    def events(self) -> int:
        """A descriptor that is readable when `poll_events` has something."""
        return self._events.ring.fd

    def poll_events(self) -> list[Event]:
        return self._events.ring.poll()

    def status(self) -> dict[str, Any]:
        return {
            "schema": schema(),
            "pins": str(self._programs.pins),
            "hz": self._programs.hz,
            "policy_seq": self._policy.seq,
            "bank": self._policy.bank,
            "vnics": len(self._vnics),
            "attached_by": self._hooks.way,
            "vnics_behind": sum(self._hooks.behind(vnic.ifindex) for vnic in self._vnics.values()),
            "port_guard": self.port_guard.status(),
            "events_lost": self._events.lost(),
        }

    @property
    def vnic_in(self) -> int:
        """Descriptor of the program that sees what goes to a workload."""
        return self._programs.vnic_in

    @property
    def vnic_out(self) -> int:
        return self._programs.vnic_out

    def close(self) -> None:
        self.departed.close()
        self.early.close()
        self._policy.close()
        self._policy.counters.close()
        self._vnic_map.close()
        self._timers.close()
        self._snoops.ring.close()
        self._events.ring.close()
        self._hooks.close()
        self._programs.close()

    def __enter__(self) -> "Datapath":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
