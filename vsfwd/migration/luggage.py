"""What a VM takes along, between the datapath of this host and the bytes that travel. Whatever touches the
datapath belongs on the apply thread.

Apart from the steps of a move, since it brings numpy, for which no start of the daemon waits."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from vsfwd.config import FLOWS_AT_MOST
from vsfwd.datapath import Datapath, Hold
from vsfwd.datapath.flowstate import Arrived, NoRoom, Round
from vsfwd.migration import blob
from vsfwd.migration.state import NO_FLOWS, NO_PINHOLES, Array, Learned, VmState, VnicState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Claim

Claims = Mapping[str, Mapping[str, Claim]]

encode: Final = blob.encode
decode: Final = blob.decode


class Outgoing:
    """Of a VM that leaves: what was exported, so that the next round has what has changed since."""

    def __init__(self, datapath: Datapath, vnics: Sequence[str]) -> None:
        self._datapath = datapath
        self._since = {vnic: Round() for vnic in vnics}
        self._read = self._since
        self.flows = 0

    def read(self, learned: Claims, last: bool) -> list[VnicState]:
        """One round, of all vNICs that are here, or were a moment ago. It is read again until `keep`. The
        `last` has all that frozen vNICs have let pass: those that are gone were done with their flows."""
        self._read = {vnic: replace(since) for vnic, since in self._since.items()}
        states, slots, now = self._datapath.flow_states, self._datapath.slots, int(time.time())
        found = []
        for vnic, since in self._read.items():
            if vnic in slots:
                if last:
                    self._datapath.settle(vnic)
                flows, gone = states.export(slots[vnic], since)
                addresses = _relative(learned.get(vnic, {}), now)
                found.append(VnicState(vnic, flows, gone, states.pinholes(slots[vnic]), addresses))
            elif table := self._datapath.departed.get(vnic):
                flows, gone = states.export_departed(table, since)
                found.append(VnicState(vnic, flows, gone))
        return found

    def keep(self) -> None:
        """The next round has what changes after the one that was read."""
        self._since = self._read
        self.flows = sum(int(since.live.sum()) for since in self._since.values() if since.live is not None)


class Incoming:
    """Of a VM that comes: what has arrived so far. It is installed as soon as its vNIC is attached.
    `running`: the VM runs here already, and has flows of its own, which know better."""

    def __init__(self, datapath: Datapath, vnics: Sequence[str], running: bool) -> None:
        states = datapath.flow_states
        nothing = states.arrived(NO_FLOWS, NO_PINHOLES, same_policy=True)
        self._datapath = datapath
        self._running = running
        self._arrived: dict[str, Arrived] = dict.fromkeys(vnics, nothing)
        self._flows: dict[str, int] = {}
        """In each table that was put in its place."""
        self._seq = -1
        """Of the policy that was in force then."""
        self._learned: dict[str, tuple[Claim, ...]] = {}
        self._homeless: set[str] = set()

    @property
    def is_installed(self) -> bool:
        return not self._homeless

    @property
    def flows(self) -> int:
        return sum(self._flows.get(vnic, len(arrived.places)) for vnic, arrived in self._arrived.items())

    def take(self, state: VmState, same_policy: bool) -> None:
        """A round, all of it or nothing. Raises Refused."""
        states, now, round_ = self._datapath.flow_states, int(time.time()), {}
        for vnic in state.vnics:
            if vnic.vnic not in self._arrived:
                raise Refused(f"state: vNIC {vnic.vnic} is none of the VM's")
            self._check_room(vnic.vnic, len(vnic.flows))
            arrived = states.arrived(vnic.flows, vnic.pinholes, same_policy=same_policy)
            round_[vnic.vnic] = arrived, vnic.gone
        if not (state.final and self._amend(round_)):
            together = dict(self._arrived)
            for id_, (arrived, gone) in round_.items():
                together[id_] = states.merged(together[id_], arrived, gone)
                self._check_room(id_, len(together[id_].places))
            self._install(together)
            self._arrived = together
        self._learned = {vnic.vnic: _absolute(vnic.learned, now) for vnic in state.vnics}

    def _check_room(self, vnic: str, flows: int) -> None:
        """A source that says ever more must not become memory and time of this host."""
        slot = self._datapath.places.get(vnic)
        room = FLOWS_AT_MOST if slot is None else self._datapath.flow_states.room(slot)
        if flows > room:
            raise Refused(f"flow quota: vNIC {vnic} has room for {room} flows, and {flows} come")

    def settle(self) -> None:
        """What has arrived before its vNIC was attached. Raises Refused."""
        if self._homeless & self._datapath.places.keys():
            self._install(self._arrived)

    def learned(self) -> Mapping[str, tuple[Claim, ...]]:
        """Of vNICs that are here, once."""
        here = {vnic: claims for vnic, claims in self._learned.items() if vnic in self._datapath.slots}
        self._learned = {vnic: claims for vnic, claims in self._learned.items() if vnic not in here}
        return here

    def _amend(self, round_: Mapping[str, tuple[Arrived, Array]]) -> bool:
        """The last round into the tables that are there, which takes less than making them anew: the VM waits
        for it. What has arrived is not put together any more. Not for a VM that runs, nor under another
        policy than the round before."""
        slots, states, held = self._datapath.places, self._datapath.flow_states, self._datapath.holds()
        waiting = self._arrived.keys() <= held.keys() & self._flows.keys() & slots.keys()
        if self._running or not waiting or self._seq != states.policy_seq:
            return False
        found = {}
        for vnic, (arrived, gone) in round_.items():
            amended = states.amended(slots[vnic], self._flows[vnic], arrived, gone)
            if amended is None:
                return False
            found[vnic] = amended
        for vnic, amended in found.items():
            states.amend(slots[vnic], amended)
            self._flows[vnic] = amended.flows
        return True

    def _install(self, together: Mapping[str, Arrived]) -> None:
        """All tables are made before one is put in its place. Of a VM that runs, nothing passes for that
        moment but that it says where it is: that is what it does then, and it does not say it again."""
        slots, states, held = self._datapath.places, self._datapath.flow_states, self._datapath.holds()
        here = [vnic for vnic in together if vnic in slots]
        alive = [vnic for vnic in here if self._running and vnic not in held]
        for vnic in alive:
            self._datapath.hold(vnic, Hold.PAUSED)
        try:
            built = {
                vnic: states.build(slots[vnic], together[vnic], beside_own=vnic in alive) for vnic in here
            }
            for vnic in here:
                states.put(slots[vnic], built[vnic])
                self._flows[vnic] = built[vnic].flows
            self._seq = states.policy_seq
        except NoRoom as error:
            raise Refused(f"flow quota: {error}") from None
        finally:
            for vnic in alive:
                self._datapath.hold(vnic, Hold.NONE)
        self._homeless = together.keys() - set(here)


def _relative(claims: Mapping[str, Claim], now: int) -> tuple[Learned, ...]:
    """Clocks of hosts differ: of a lease goes what is left."""
    return tuple(
        Learned(each.address, each.source, max(1, each.expires - now) if each.expires else 0, each.server)
        for each in claims.values()
    )


def _absolute(learned: Sequence[Learned], now: int) -> tuple[Claim, ...]:
    return tuple(
        Claim(each.address, each.source, now + each.left_s if each.left_s else 0, each.server)
        for each in learned
    )
