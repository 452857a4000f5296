"""A VM that leaves this host: its vNICs are frozen, what it takes along is exported for the target, and its
flows here end with it. Nothing is done to the target."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from vsfwd.datapath import Hold
from vsfwd.migration import sealed
from vsfwd.migration.here import Here
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.migration import MoveDone, MoveOffer, Step

if TYPE_CHECKING:
    from vsfwd.migration.luggage import Outgoing

log = structlog.get_logger(log="vsfwd.migration")


class Leaving:
    """Make it with `prepare`. `hooked`: the hypervisor asks for the steps, not the manager."""

    role = "source"

    def __init__(self, here: Here, offer: MoveOffer, hooked: bool, luggage: "Outgoing") -> None:
        self._here = here
        self._luggage = luggage
        self.offer = offer
        self.hooked = hooked
        self.vnics = [binding.vnic for binding in offer.vnics]
        self.step = Step.PREPARE
        self.rounds = 0
        self.final = False
        self.began = time.monotonic()
        self._exporting = asyncio.Lock()

    @classmethod
    async def prepare(cls, here: Here, offer: MoveOffer, hooked: bool) -> "Leaving":
        """Raises Refused."""
        from vsfwd.migration.luggage import Outgoing  # numpy

        attached, late = await here.attached(), await here.apply_thread(here.datapath.late)
        vnics = [binding.vnic for binding in offer.vnics]
        for vnic in vnics:
            if vnic not in attached and not offer.running:
                raise Refused(f"vnics: {vnic} is not on this host")
            if vnic in late and not offer.running:
                raise Refused(f"vnics: {vnic} bears the programs of the version before, with its connections")
        return cls(here, offer, hooked, await here.apply_thread(Outgoing, here.datapath, vnics))

    @property
    def flows(self) -> int:
        return self._luggage.flows

    async def freeze(self) -> MoveDone:
        """No packet that comes from now on passes. The hypervisor goes on at once: for those under way, which
        may change a flow yet, the last round waits. Raises Refused."""
        if self.offer.running and (back := await self._here.apply_thread(self._back)):
            raise Refused(f"vnics: {back[0]} has left, and is here again")
        await self._hold(Hold.FROZEN, self.vnics, settled=False)
        self.step = Step.FREEZE
        log.info("VM is frozen", migration=self.offer.migration, vm=self.offer.vm)
        return MoveDone(self.offer.migration, self.offer.vm, Step.FREEZE)

    async def export(self) -> tuple[int, bytes]:
        """The next round, and its number, sealed: all at first, then what has changed. The one after the
        freeze is the last. What fails is still the next one. Raises Refused."""
        async with self._exporting:
            if self.final:
                raise Refused("round: the last one has been exported")
            number, frozen = self.rounds, self.step is Step.FREEZE
            found = await self._export(number, frozen)
            self._luggage.keep()
            self.rounds, self.final = number + 1, frozen
        log.info("VM exported", vm=self.offer.vm, round=number, final=frozen, bytes=len(found))
        return number, found

    async def _export(self, number: int, frozen: bool) -> bytes:
        policy = self._here.policy()
        vnics = await self._here.apply_thread(self._luggage.read, self._here.discovery.learned, frozen)

        def packed() -> bytes:
            from vsfwd.migration.luggage import encode  # numpy
            from vsfwd.migration.state import VmState

            state = VmState(self.offer.vm, number, frozen, policy.epoch, policy.generation, vnics)
            target = sealed.load_public(self.offer.target_key, "target")
            return sealed.seal(encode(state), sealed.bound(self.offer, number), self._here.key(), target)

        return await asyncio.to_thread(packed)

    async def finish(self) -> None:
        """The VM runs elsewhere: nothing passes its vNICs for as long as they are here. What was frozen, and
        is not any more, has gone since: a vNIC by that name has come anew, and its VM with it."""
        held, frozen = await self._here.held(), self.step is Step.FREEZE
        left = [vnic for vnic in self.vnics if not frozen or held.get(vnic) == Hold.FROZEN]
        await self._hold(Hold.FROZEN, left)
        await self._here.clear(left)
        log.info("VM has left", migration=self.offer.migration, vm=self.offer.vm)

    async def abort(self) -> None:
        """All is as before."""
        await self._hold(Hold.NONE, self.vnics)

    async def _hold(self, why: Hold, vnics: Sequence[str], *, settled: bool = True) -> None:
        attached = await self._here.attached()
        await self._here.hold([vnic for vnic in vnics if vnic in attached], why, settled=settled)

    def _back(self) -> list[str]:
        """vNICs that were gone a moment ago, and are here."""
        here, departed = self._here.datapath.slots, self._here.datapath.departed
        return [vnic for vnic in self.vnics if vnic in here and departed.get(vnic)]
