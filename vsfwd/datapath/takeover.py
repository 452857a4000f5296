"""vNICs that bear programs of a daemon before this one, with other structs, until ours take their place.

`carry` reads what that daemon left. Here its vNICs come into our maps, each in its slot, with flows and
counters; its programs decide until a policy of ours is in force, and then a device gets ours in one step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from vsfwd.datapath import bpf
from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.carry import Before
from vsfwd.datapath.conntrack import FlowTables
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import layouts, same
from vsfwd.datapath.slots import Slots
from vsfwd.datapath.vnics import Vnic, Vnics

if TYPE_CHECKING:
    from vsfwd.datapath.flowcopy import FlowCopy
    from vsfwd.datapath.flowstate import FlowStates


log = structlog.get_logger(log="vsfwd.datapath")


@dataclass(frozen=True)
class _Waiting:
    """What the older programs do, and the copy of the flows, if they are not in a table of both."""

    mode: str
    copy: "FlowCopy | None"


class Takeover:
    def __init__(
        self, programs: Programs, hooks: Hooks, vnics: Vnics, slots: Slots, flows: FlowTables
    ) -> None:
        self._programs, self._hooks, self._flows = programs, hooks, flows
        self._vnics, self._slots = vnics, slots
        self._waiting: dict[str, _Waiting] = {}
        self.late: set[str] = set()
        """vNICs that bear programs of before, though the policy is in force in our maps."""

    def __contains__(self, vnic_id: str) -> bool:
        return vnic_id in self._waiting

    def mode(self, vnic_id: str) -> str:
        """What the kernel does there: closed, enforced or excluded."""
        return self._waiting[vnic_id].mode

    def adopt(self, before: Before, flow_states: "FlowStates") -> list[int]:
        """All that are not ours yet; answers their devices. A daemon that was killed over this has left some
        in our maps."""
        adopted, ours = [], self._hooks.known.below(self._programs.pins)
        for served in before.served:
            row, id_ = served.row, str(UUID(bytes=served.row["id"]))
            vnic = Vnic(row["slot"], row["ifindex"], row["mac"], row["guard"])
            left = self._vnics.get(id_)
            if left and (left.slot, left.ifindex) == (vnic.slot, vnic.ifindex):
                if ours & self._hooks.programs(vnic.ifindex):
                    continue
            elif left or vnic.slot in self._vnics.slots.values():
                continue
            copy = self._take_flows(before, vnic.slot, flow_states)
            self._slots.fill(vnic.slot, id_)
            self._vnics.adopt(id_, vnic, served.hold)
            self._waiting[id_] = _Waiting(served.mode, copy)
            adopted.append(vnic.ifindex)
        return adopted

    def _take_flows(self, before: Before, slot: int, flow_states: "FlowStates") -> "FlowCopy | None":
        """The table itself where it is as ours, else a copy that is to be made when our programs come."""
        from vsfwd.datapath.flowcopy import FlowCopy  # numpy, only where there is something to copy

        theirs = before.flows(slot)
        if theirs is None:
            self._slots.make_table(slot)
            log.warning("flows are not taken over: the version before did not pin them", slot=slot)
            return None
        copy = FlowCopy(self._programs, self._flows, flow_states, slot, theirs, before.bucket)
        if same(before.bucket, layouts("flows")[1]) and copy.agrees():
            self._programs.outer("flows").put(slot, theirs)
            copy.close()
            return None
        self._flows.make(slot, bpf.shape_of(theirs).entries)
        return copy

    def relieve(self) -> None:
        """The policy is in force in our maps: devices that bear programs of before get ours. One that does
        not take them, or whose flows cannot be copied, goes on with those that it has, and is late."""
        for id_ in list(self._waiting):
            try:
                self._relieve(id_)
            except DatapathError as error:
                log.error("a vNIC keeps the programs of the version before", vnic=id_, reason=str(error))
                self.late.add(id_)

    def hasten(self, vnic_id: str) -> None:
        """One that is late gets our programs now. Raises DatapathError."""
        if vnic_id in self.late:
            self._relieve(vnic_id)

    def _relieve(self, vnic_id: str) -> None:
        waiting = self._waiting[vnic_id]
        try:
            if waiting.copy:
                waiting.copy.begin()
        except (OSError, MemoryError) as error:
            raise DatapathError(f"copy the flows of vNIC {vnic_id}: {error}") from None
        self._hooks.attach(self._vnics[vnic_id].ifindex, self._programs.twins)
        self._vnics.renewed(vnic_id)
        try:
            if waiting.copy:
                waiting.copy.end()
        except (OSError, MemoryError, DatapathError) as error:
            log.error("flows that moved in this moment are as before", vnic=vnic_id, reason=str(error))
        self.drop(vnic_id)

    def drop(self, vnic_id: str) -> None:
        """It waits no more: it has our programs, is gone, or on another device."""
        self._vnics.renewed(vnic_id)
        self.late.discard(vnic_id)
        waiting = self._waiting.pop(vnic_id, None)
        if waiting and waiting.copy:
            waiting.copy.close()
