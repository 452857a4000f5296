"""Slots: where everything that the programs keep of a vNIC lies, in whichever map.

Owns which slot is whose, of vNICs that are attached and of those that are to come, and that no slot has
anything of the vNIC that had it before."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vsfwd.datapath import bpf
from vsfwd.datapath.conntrack import FlowTables
from vsfwd.datapath.departed import Departed
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.guards import NO_POLICY, Bindings, guard_bits
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import Policy
from vsfwd.datapath.schema import Reason, constant
from vsfwd.datapath.settings import Settings
from vsfwd.datapath.snoops import Snoops
from vsfwd.datapath.timers import Timers, timeouts_s
from vsfwd.datapath.vnics import Vnics
from vsfwd.policy.model import SessionTimers


@dataclass(frozen=True)
class TableUse:
    """Of a vNIC's flow table: the share of its places that flows hold which give way to nobody, and how many
    packets were dropped for want of a place, since the vNIC was attached."""

    held: float
    refused: int


class Slots:
    def __init__(
        self,
        programs: Programs,
        settings: Settings,
        vnics: Vnics,
        flows: FlowTables,
        policy: Policy,
        bindings: Bindings,
        snoops: Snoops,
    ) -> None:
        self._programs, self._vnics, self._flows = programs, vnics, flows
        self._policy, self._bindings, self._snoops = policy, bindings, snoops
        self.departed = Departed()
        self._buckets = -(-settings.flows_per_vnic // constant("WAYS"))
        self.timers = Timers(programs)
        self._timeouts_s: Mapping[str, float] = settings.timeouts_s
        self._profiles: Mapping[str, SessionTimers] | None = None
        self._reserved: dict[str, int] = {}

    @property
    def places(self) -> dict[str, int]:
        """By vNIC id."""
        return {**self._reserved, **self._vnics.slots}

    def reserve(self, vnic_id: str) -> None:
        """A slot for a vNIC that is to come: policy and flows are in their place before it is."""
        if vnic_id not in self.places:
            slot = self._free(vnic_id)
            try:
                self._make_room(slot, vnic_id)
            except OSError as error:
                raise DatapathError(f"reserve a slot for vNIC {vnic_id}: {error}") from None
            self._reserved[vnic_id] = slot

    def give_up(self, vnic_id: str) -> None:
        """It does not come. One that has, and could be neither filtered nor taken off, keeps its slot."""
        slot = self._reserved.pop(vnic_id, None)
        if slot is not None and vnic_id not in self._vnics:
            self._clear(slot)

    def take(self, vnic_id: str) -> tuple[int, int]:
        """For a vNIC that comes now: its slot, and how it is guarded until a policy says more."""
        slot = self._reserved.get(vnic_id)
        if slot is not None:
            self._clear_counts(slot)
            self._write_timers(slot, vnic_id)
            return slot, self._vnics.guard_of(slot)
        slot = self._free(vnic_id)
        self._make_room(slot, vnic_id)
        return slot, guard_bits(NO_POLICY)

    def came(self, vnic_id: str) -> None:
        """It is attached: nothing is reserved for it."""
        self._reserved.pop(vnic_id, None)

    def let_go(self, vnic_id: str) -> None:
        """It is gone, and its flows with it. One that is still to come keeps its slot with what waits there,
        since nobody would put it there again: it could not be attached, or is held for a VM that comes to
        another device than it had here before."""
        slot = self._vnics.pop(vnic_id).slot
        if vnic_id in self._reserved or vnic_id in self._vnics.held:
            self._reserved[vnic_id] = slot
            return
        self.departed.keep(vnic_id, self._flows.held_open(slot), self._policy.seq)
        self._clear(slot)

    def _free(self, vnic_id: str) -> int:
        taken = set(self.places.values())
        for slot in range(constant("SLOTS")):
            if slot not in taken:
                return slot
        raise DatapathError(f"attach vNIC {vnic_id}: all {constant('SLOTS')} slots are in use")

    def _make_room(self, slot: int, vnic_id: str) -> None:
        if self._policy.mode(slot) != "closed":
            self._policy.close_slot(slot)  # of a daemon that died before it had cleared what was there
        self._bindings.clear(slot)
        self.make_table(slot)
        self._clear_counts(slot)
        self.fill(slot, vnic_id)

    def make_table(self, slot: int) -> None:
        """For its flows, with none in it."""
        self._flows.make(slot, self._buckets)

    def fill(self, slot: int, vnic_id: str) -> None:
        """All limits and lifetimes, and nothing counts towards a limit yet."""
        self._snoops.reset(slot)
        for place in (2 * slot, 2 * slot + 1):
            bpf.update(self._programs.fd("reject_tokens"), struct.pack("<I", place), bytes(8))
        self._write_timers(slot, vnic_id)

    def empty(self, vnic_id: str) -> None:
        """No flow of it is left."""
        slot = self.places[vnic_id]
        self._flows.make(slot, self._flows.buckets(slot))

    def _clear(self, slot: int) -> None:
        self._vnics.forget_ahead(slot)
        self._policy.close_slot(slot)
        self._bindings.clear(slot)
        self._flows.drop(slot)

    # ---- lifetimes of flows ----

    def set_timeouts(self, timeouts_s: Mapping[str, float]) -> None:
        """Of vNICs to which `set_timers` has given nothing else."""
        self._timeouts_s = timeouts_s
        for vnic_id, slot in self._vnics.slots.items():
            self._write_timers(slot, vnic_id)

    def set_timers(self, profiles: Mapping[str, SessionTimers]) -> None:
        """By vNIC id: how long its flows live, each from its next packet on."""
        before, self._profiles = self._profiles, profiles
        for vnic_id, slot in self._vnics.slots.items():
            if before is None or before.get(vnic_id) != profiles.get(vnic_id):
                self._write_timers(slot, vnic_id)

    def _write_timers(self, slot: int, vnic_id: str) -> None:
        profile = (self._profiles or {}).get(vnic_id)
        self.timers.write(slot, timeouts_s(profile) if profile else self._timeouts_s)

    # ---- packets counted since the vNIC was attached ----

    def table_use(self, slot: int) -> TableUse:
        return TableUse(self._flows.held(slot), self._dropped(slot, Reason["TABLE_FULL"]))

    def _dropped(self, slot: int, reason: Reason) -> int:
        return self._count("drops", slot * constant("REASONS") + reason)

    def drops(self, slot: int) -> dict[Reason, int]:
        """The reasons that have occurred."""
        return {reason: total for reason in Reason if (total := self._dropped(slot, reason))}

    def unfiltered(self, slot: int) -> int:
        """That passed because the vNIC is excluded."""
        return self._count("unfiltered", slot)

    def _count(self, table: str, place: int) -> int:
        raw = bpf.lookup(self._programs.fd(table), struct.pack("<I", place), 8 * bpf.possible_cpus()) or b""
        return sum(struct.unpack(f"<{len(raw) // 8}Q", raw))

    def _clear_counts(self, slot: int) -> None:
        zero, first = bytes(8 * bpf.possible_cpus()), slot * constant("REASONS")
        bpf.update(self._programs.fd("unfiltered"), struct.pack("<I", slot), zero)
        for reason in Reason:
            bpf.update(self._programs.fd("drops"), struct.pack("<I", first + reason), zero)
