"""vNICs on and off devices: slot and entry first, then the programs, then the port guard; off in reverse.

So no packet meets programs that do not know its vNIC, and none passes a guarded port before they see it."""

import socket

import structlog

from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.portguard import PortGuard
from vsfwd.datapath.schema import Hold
from vsfwd.datapath.slots import Slots
from vsfwd.datapath.takeover import Takeover
from vsfwd.datapath.vnics import Vnic, Vnics

log = structlog.get_logger(log="vsfwd.datapath")


class Devices:
    def __init__(
        self,
        programs: Programs,
        hooks: Hooks,
        port_guard: PortGuard,
        vnics: Vnics,
        slots: Slots,
        takeover: Takeover,
    ) -> None:
        self._programs, self._hooks, self._port_guard = programs, hooks, port_guard
        self._vnics, self._slots, self._takeover = vnics, slots, takeover
        self._behind: set[str] = set()

    def renew(self) -> list[int]:
        """Those of our vNICs that bear programs of any version, and do not wait for ours, get these, in one
        step each; answers them. (A device number alone proves nothing: while nobody watched it may have
        become another device's.)"""
        renewed = []
        for id_, vnic in self._vnics.items():
            if id_ not in self._takeover and self._hooks.attached(vnic.ifindex):
                try:
                    self._hooks.attach(vnic.ifindex, self._programs.twins)
                except DatapathError as error:
                    # It is attached again, like any, when it is known whose it is.
                    log.error("a device keeps the programs that it has for now", reason=str(error))
                else:
                    renewed.append(vnic.ifindex)
        return renewed

    def attach(self, vnic_id: str, ifindex: int, mac: str) -> int:
        """Answers the slot. A known vNIC on another device keeps slot and flows, but one that has left."""
        known, address = self._vnics.get(vnic_id), bytes.fromhex(mac.replace(":", ""))
        if known and known.ifindex != ifindex and self._vnics.holds().get(vnic_id) == Hold.FROZEN:
            self.detach(vnic_id)  # its device is gone, though nobody has seen that: it comes anew
            known = None
        if known and not (known.ifindex == ifindex and self._hooks.attached(ifindex)):
            self._takeover.drop(vnic_id)
        for other in [id_ for id_, v in self._vnics.items() if v.ifindex == ifindex and id_ != vnic_id]:
            # The number is this vNIC's now. What is on the device stays on it, so that nothing passes unseen.
            self._forget(other)
        try:
            slot, guard = (known.slot, known.guard) if known else self._slots.take(vnic_id)
            if known and known.ifindex != ifindex:
                self._leave(known)
            self._vnics.put(vnic_id, Vnic(slot, ifindex, address, guard))
        except OSError as error:
            raise DatapathError(f"attach vNIC {vnic_id} to device {ifindex}: {error}") from None
        try:
            if vnic_id in self._takeover:
                self._takeover.hasten(vnic_id)
            else:
                self._hooks.attach(ifindex, self._programs.twins)
            if self._hooks.behind(ifindex):
                self._behind.add(vnic_id)
        except DatapathError:
            if known is None:
                self.detach(vnic_id)
            elif self._hooks.bare([ifindex]):
                self._port_guard.release(ifindex)
            raise
        self._slots.came(vnic_id)
        self._port_guard.protect(ifindex)
        return slot

    def _leave(self, known: Vnic) -> None:
        self._vnics.holds()  # as the place has it that goes
        self._port_guard.release(known.ifindex)
        self._hooks.detach(known.ifindex)
        self._vnics.clear(known.ifindex)

    def detach(self, vnic_id: str) -> None:
        vnic = self._vnics.get(vnic_id)
        if vnic is not None:
            self._port_guard.release(vnic.ifindex)
            self._hooks.detach(vnic.ifindex)
            self._forget(vnic_id)

    def forget(self, vnic_id: str) -> None:
        """What is on the device that has its number now stays on it, so that nothing passes unseen."""
        vnic = self._vnics.get(vnic_id)
        if vnic is not None:
            if not self._hooks.attached(vnic.ifindex):
                self._port_guard.release(vnic.ifindex)  # until they are
            self._forget(vnic_id)

    def _forget(self, vnic_id: str) -> None:
        self._takeover.drop(vnic_id)
        self._slots.let_go(vnic_id)

    def bare(self) -> set[str]:
        """vNICs whose programs somebody took off, or has put others before: to be attached again. Where the
        device is gone nobody did, and `Interfaces` hears of it."""
        missing = self._hooks.bare(vnic.ifindex for vnic in self._vnics.values())
        return {id_ for id_, vnic in self._vnics.items() if vnic.ifindex in missing and _exists(vnic.ifindex)}

    def behind(self) -> set[str]:
        """vNICs at which another program stays before ours, as far as `attach` found any."""
        found = {id_: self._vnics[id_].ifindex for id_ in self._behind & self._vnics.keys()}
        self._behind = {id_ for id_, ifindex in found.items() if self._hooks.behind(ifindex)}
        return set(self._behind)


def _exists(ifindex: int) -> bool:
    try:
        return bool(socket.if_indextoname(ifindex))
    except OSError:
        return False
