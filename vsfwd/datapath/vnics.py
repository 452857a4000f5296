"""Which vNIC is on which device, and what the programs ask there before policy: the map `vnics`.

Owns the map; what an earlier daemon left in it is read back. Packets read it at any moment, so every change
is whole for them: the device number is what makes an entry one."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from vsfwd.datapath.carry import OlderHold
from vsfwd.datapath.conntrack import FlowTables
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.guards import NO_POLICY, guard_bits
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import ArrayMap
from vsfwd.datapath.schema import Hold, constant
from vsfwd.image import Guard

_MAY_BE_UNDONE: Final = {
    (Hold.WAITING, Hold.NONE),
    (Hold.WAITING, Hold.FROZEN),
    (Hold.DEAD, Hold.FROZEN),
}
"""Changes that stop() of bpf/hold.c, if it has read what was before, makes HEARD or NONE of. What it makes of
the others is true."""


@dataclass(frozen=True)
class Vnic:
    slot: int
    ifindex: int
    mac: bytes
    guard: int = 0


class Vnics(Mapping[str, Vnic]):
    """By id, those that are attached."""

    def __init__(self, programs: Programs, flows: FlowTables) -> None:
        self._flows = flows
        self._layout = programs.layouts("vnics")[1]
        self._map = ArrayMap(os.dup(programs.fd("vnics")), self._layout.size, constant("VNIC_PLACES"))
        self._vnics: dict[str, Vnic] = {}
        self._held: dict[str, Hold] = {}
        self._older: dict[str, OlderHold] = {}
        self._ahead: set[int] = set()
        self._guards: Mapping[int, Guard] = {}
        for place in range(self._map.entries):
            vnic = self._layout.unpack(self._map[place][: self._layout.size])
            if vnic["ifindex"]:
                id_ = str(UUID(bytes=vnic["id"]))
                self._vnics[id_] = Vnic(vnic["slot"], vnic["ifindex"], vnic["mac"], vnic["guard"])
                if vnic["ahead"]:
                    self._ahead.add(vnic["slot"])
                if vnic["hold"]:
                    self._held[id_] = Hold(vnic["hold"])
        for id_ in [id_ for id_, why in self._held.items() if why == Hold.PAUSED]:
            self.hold(id_, Hold.NONE)  # by a daemon that has died over it

    def __getitem__(self, vnic_id: str) -> Vnic:
        return self._vnics[vnic_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._vnics)

    def __len__(self) -> int:
        return len(self._vnics)

    @property
    def slots(self) -> dict[str, int]:
        return {id_: vnic.slot for id_, vnic in self._vnics.items()}

    def put(self, vnic_id: str, vnic: Vnic) -> None:
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
            self._map[place] = self._layout.pack(hold=int(held), **fields)
        # All but the last byte, which the programs write.
        self._map[place] = self._layout.pack(ifindex=vnic.ifindex, **fields)[:-1]
        self._vnics[vnic_id] = vnic

    def adopt(self, vnic_id: str, vnic: Vnic, older: OlderHold) -> None:
        """As a daemon with other structs had it, whose programs it bears: it is held by what they see, until
        it is `renewed`."""
        if older.read() == Hold.PAUSED:
            older.write(Hold.NONE)  # as of ours: by a daemon that has died over it
        self._held[vnic_id] = older.read()
        self._older[vnic_id] = older
        self.put(vnic_id, vnic)
        self._write_own_hold(vnic, self._held[vnic_id])
        self.holds()

    def renewed(self, vnic_id: str) -> None:
        """It does not bear programs of before any more."""
        if vnic_id in self._older:
            self.holds()
            del self._older[vnic_id]

    def pop(self, vnic_id: str) -> Vnic:
        if self.holds().get(vnic_id) == Hold.FROZEN:
            del self._held[vnic_id]  # it has left; one that is to come is held still when it comes again
        vnic = self._vnics.pop(vnic_id)
        self.clear(vnic.ifindex)
        return vnic

    def clear(self, ifindex: int) -> None:
        """No vNIC is on this device."""
        place = self._place(ifindex, ifindex)
        if place is not None:
            # Nothing but the device number: a packet under way may still look at the rest.
            self._map[place] = bytes(4)

    def _place(self, ifindex: int, holding: int) -> int | None:
        """Where, among the places the programs look for `ifindex`, the device number is `holding`."""
        for probe in range(constant("VNIC_PROBES")):
            place = (ifindex + probe) % self._map.entries
            if int.from_bytes(self._map[place][:4], "little") == holding:
                return place
        return None

    def hold(self, vnic_id: str, why: Hold, *, settled: bool = True) -> None:
        """No packet that comes from now on passes, or all that the policy allows do (`Hold.NONE`). Of a vNIC
        that is not attached yet: from when it is, but for what is frozen, since that ends with its device.
        `settled`: those under way are done when this returns."""
        before, vnic = self.holds().get(vnic_id, Hold.NONE), self.get(vnic_id)
        if vnic is None and why == Hold.FROZEN:
            why = Hold.NONE
        self._held[vnic_id] = why
        if vnic is not None:
            self._write_hold(vnic_id, vnic, why)
            self.put(vnic_id, vnic)
            # A packet under way may have seen what was before, and write what follows from that.
            undone = (before, why) in _MAY_BE_UNDONE
            if undone or (settled and before == Hold.NONE != why):
                self._flows.settle(vnic.slot)
            if undone:
                self._write_hold(vnic_id, vnic, why)
        self.holds()

    def _write_hold(self, vnic_id: str, vnic: Vnic, why: Hold) -> None:
        if vnic_id in self._older:
            self._older[vnic_id].write(why)
        self._write_own_hold(vnic, why)

    def _write_own_hold(self, vnic: Vnic, why: Hold) -> None:
        place = self._place(vnic.ifindex, vnic.ifindex)
        if place is not None:
            self._map.write(place, self._layout.size - 1, bytes([why]))

    def holds(self) -> dict[str, Hold]:
        """Of the vNICs that are held. One that its VM has brought to life is not any more."""
        for vnic_id, vnic in self._vnics.items():
            if vnic_id in self._held:
                now = self._hold_of(vnic_id, vnic)
                if now != self._held[vnic_id]:
                    self._held[vnic_id] = now
                    if vnic_id in self._older:
                        self._write_own_hold(vnic, now)
                    self.put(vnic_id, vnic)
        self._held = {vnic_id: why for vnic_id, why in self._held.items() if why != Hold.NONE}
        return dict(self._held)

    def _hold_of(self, vnic_id: str, vnic: Vnic) -> Hold:
        if vnic_id in self._older:
            return self._older[vnic_id].read()
        place = self._place(vnic.ifindex, vnic.ifindex)
        return Hold(self._map[place][self._layout.size - 1]) if place is not None else Hold.NONE

    @property
    def held(self) -> dict[str, Hold]:
        """As `holds` has last found it."""
        return self._held.copy()

    def ask_ahead(self, slots: set[int], *, also: bool = False) -> None:
        """Only at these vNICs the programs ask the policy before they parse, or at these as well."""
        slots = self._ahead | slots if also else slots
        changed, self._ahead = self._ahead ^ slots, slots
        for id_, vnic in self._vnics.items():
            if vnic.slot in changed:
                self.put(id_, vnic)

    def forget_ahead(self, slot: int) -> None:
        """Whoever gets this slot next is not asked ahead."""
        self._ahead.discard(slot)

    def guard(self, guards: Mapping[int, Guard]) -> bool:
        """By slot; whether one was guarded otherwise."""
        self._guards, changed = guards, False
        for id_, vnic in self._vnics.items():
            guarded = replace(vnic, guard=self.guard_of(vnic.slot))
            if guarded != vnic:
                self.put(id_, guarded)
                changed = True
        return changed

    def guard_of(self, slot: int) -> int:
        return guard_bits(self._guards.get(slot, NO_POLICY))

    def close(self) -> None:
        self._map.close()
