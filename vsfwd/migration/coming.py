"""A VM that comes to this host: nothing passes its vNICs until it runs here under a policy that is no older
than the one it comes from; what it takes along is installed round by round, each whole or not at all."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from vsfwd.datapath import Hold
from vsfwd.migration import sealed
from vsfwd.migration.here import Here
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.migration import MoveDone, MoveOffer, MoveState, Step

if TYPE_CHECKING:
    from vsfwd.migration.luggage import Incoming
    from vsfwd.migration.state import VmState

log = structlog.get_logger(log="vsfwd.migration")

POLICY_PATIENCE_S: Final = 10.0
"""For the policy that an offer names."""
STATE_PATIENCE_S: Final = 2.0
"""For the last round, once the VM has said that it runs here. Then it has to do with what is here, and with
policy."""
LOOK_S: Final = 0.05


class Coming:
    """Make it with `prepare`. `hooked`: the hypervisor asks for the steps, not the manager."""

    role = "target"

    def __init__(self, here: Here, offer: MoveOffer, hooked: bool, luggage: "Incoming") -> None:
        self._here = here
        self._luggage = luggage
        self._parts: dict[int, bytes] = {}
        self.offer = offer
        self.hooked = hooked
        self.vnics = [binding.vnic for binding in offer.vnics]
        self.step = Step.PREPARE
        self.rounds = 0
        self.final = False
        self.began = time.monotonic()
        self._heard_at = 0.0
        self._left: dict[str, int] = {}
        """By vNIC of a VM that had left this host: the device that it had."""

    @classmethod
    async def prepare(cls, here: Here, offer: MoveOffer, hooked: bool) -> "Coming":
        """The vNICs are held before anything else. Raises Refused, and then they are not, but as before."""
        from vsfwd.migration.luggage import Incoming  # numpy

        vnics = [binding.vnic for binding in offer.vnics]
        new = len(set(vnics) - (await here.attached()).keys())
        if (free := here.datapath.free_slots()) < new:
            raise Refused(f"slots: {free} are free, {new} are needed")
        luggage = await here.apply_thread(Incoming, here.datapath, vnics, offer.running)
        coming = cls(here, offer, hooked, luggage)
        if offer.running:
            await coming._wait_for_policy()
            return coming
        devices, held = await here.devices(), await here.held()
        frozen = {vnic for vnic in vnics if held.get(vnic) == Hold.FROZEN}
        coming._left = {vnic: device for vnic, device in devices.items() if vnic in frozen}
        try:
            await here.hold(vnics, Hold.WAITING)
            await coming._wait_for_policy()
            await here.apply_thread(here.expect, vnics)
            await here.clear(vnics)
        except BaseException:
            await here.apply_thread(coming._let_be, vnics)
            await here.apply_thread(here.give_up, vnics)  # a device that goes keeps its slot while it is held
            raise
        return coming

    async def _wait_for_policy(self) -> None:
        deadline = time.monotonic() + POLICY_PATIENCE_S
        while lacking := self._lacking():
            if time.monotonic() > deadline:
                raise Refused(f"policy: {lacking}, after {POLICY_PATIENCE_S:g} s")
            await asyncio.sleep(LOOK_S)

    def _lacking(self) -> str:
        state, offer = self._here.policy(), self.offer
        if state.position < (offer.epoch, offer.generation):
            return f"generation {offer.generation} is needed, {state.generation} is here"
        missing = [vnic for vnic in self.vnics if vnic not in state.vnics]
        return f"there is none for vNIC {missing[0]}" if missing else ""

    @property
    def flows(self) -> int:
        return self._luggage.flows

    async def take(self, part: MoveState) -> MoveDone | None:
        """One part of a round; with the last of them the round is installed. None: there are more to come.
        Raises Refused, and then nothing of that round is."""
        if part.migration != self.offer.migration:
            raise Refused(f"state: of migration {part.migration}, and the VM is in {self.offer.migration}")
        if part.round != self.rounds:
            raise Refused(f"round: {part.round} is not the next one, which is {self.rounds}")
        self._parts[part.part] = part.data
        if len(self._parts) < part.parts:
            return None
        whole = b"".join(self._parts[number] for number in sorted(self._parts))
        self._parts.clear()
        return await self.take_round(self.rounds, whole)

    async def take_round(self, number: int, whole: bytes) -> MoveDone:
        """Raises Refused."""
        if self.final:
            raise Refused("round: the last one is here")
        if number != self.rounds:
            raise Refused(f"round: {number} is not the next one, which is {self.rounds}")
        state = await asyncio.to_thread(self._opened, whole)
        now, offer = self._here.policy(), self.offer
        same = not offer.generation or now.position == (offer.epoch, offer.generation)
        await self._here.apply_thread(self._luggage.take, state, same)
        self.step, self.rounds, self.final = Step.IMPORT, number + 1, state.final
        await self._listen()
        await self.learn()
        log.info("VM imported", vm=offer.vm, round=number, final=state.final, flows=self.flows)
        return MoveDone(offer.migration, offer.vm, Step.IMPORT, number, self.flows, state.final)

    def _opened(self, whole: bytes) -> "VmState":
        from vsfwd.migration.luggage import decode  # numpy

        source = sealed.load_public(self.offer.source_key, "source")
        bound = sealed.bound(self.offer, self.rounds)
        state = decode(sealed.unseal(whole, bound, self._here.key(), source))
        if (state.vm, state.round) != (bound.vm, bound.round):
            raise Refused(f"state: it says that it is round {state.round} of VM {state.vm}")
        return state

    async def learn(self) -> None:
        """What arrived of addresses, as soon as the vNICs are here."""
        for vnic, claims in (await self._here.apply_thread(self._luggage.learned)).items():
            await self._here.discovery.take_over(vnic, claims)

    async def settle(self) -> None:
        """What arrived before its vNIC was attached. Raises Refused."""
        if not self._luggage.is_installed:
            await self._here.apply_thread(self._luggage.settle)
            await self._listen()
        await self.learn()

    async def forget(self) -> None:
        """What arrived has no place here: the VM has to do with policy."""
        from vsfwd.migration.luggage import Incoming  # numpy

        self._luggage = await self._here.apply_thread(Incoming, self._here.datapath, self.vnics, False)
        await self._listen()

    async def _listen(self) -> None:
        """With all that it takes along, the VM's own word is enough, whether this daemon is there or not."""
        held = await self._here.held()
        if self.final and self._luggage.is_installed:
            await self._here.hold([vnic for vnic in self.vnics if held.get(vnic) == Hold.WAITING], Hold.DEAD)

    async def is_alive(self) -> bool:
        """Whether the VM has said that it runs here, and may. One vNIC is enough: guests do not announce all
        that they have."""
        held, attached = await self._here.held(), await self._here.attached()
        states = {held.get(vnic, Hold.NONE) for vnic in self.vnics if vnic in attached}
        if self.offer.running or Hold.NONE in states:
            return not self.offer.running
        if Hold.HEARD not in states:
            return False
        self._heard_at = self._heard_at or time.monotonic()
        return self.final or time.monotonic() - self._heard_at > STATE_PATIENCE_S

    async def activate(self) -> MoveDone:
        await self._here.hold(self.vnics, Hold.NONE)
        log.info("VM runs here", vm=self.offer.vm, took_all_along=self.final)
        return MoveDone(self.offer.migration, self.offer.vm, Step.ACTIVATE)

    async def abort(self) -> None:
        """Nothing of it is left, but of what has come to life."""
        held = await self._here.held()
        waiting = [vnic for vnic in self.vnics if vnic in held]
        await self._here.clear(waiting)
        await self._here.apply_thread(self._let_be, waiting)
        await self._here.apply_thread(self._here.give_up, self.vnics)

    def _let_be(self, vnics: Sequence[str]) -> None:
        """Held no more, but where the VM had left: what stands on the device that it had is an old copy."""
        datapath = self._here.datapath
        for vnic in vnics:
            is_old = vnic in self._left and self._left[vnic] == datapath.devices.get(vnic)
            datapath.hold(vnic, Hold.FROZEN if is_old else Hold.NONE)
