"""Which addresses the vNICs here are seen with: learned from the frames the programs show, kept on disk, told
to the manager.

The manager decides what a claim is worth; this only says what was seen. Of a vNIC the first addresses are
kept for which there is room (`messages.has_room`), so that a workload which claims a whole network fills
nothing but its own share. A lease that ends is forgotten, what ARP and neighbour discovery said is not,
unless the manager asks; a vNIC that goes takes all with it."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, NoReturn

import structlog

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, DatapathError, Snoop
from vsfwd.policy.model import Vnic
from vsfwd.protocol.messages import LEASED, MAX_CLAIMS_AT_ONCE, Addresses, Claim, has_room
from vsfwd.reconciler import Port
from vsfwd.snooping import claims
from vsfwd.statefile import StateFile

log = structlog.get_logger(log="vsfwd.discovery")

PERIOD_S: Final = 1.0
_IPV4_MAPPED: Final = 0xFFFF << 32

Learned = Mapping[str, Mapping[str, Claim]]
"""vNIC → address → claim."""


def learn(learned: Learned, seen: Iterable[tuple[str, Claim]]) -> Learned:
    """What is known after some more was seen. A lease is told in place of what the workload says itself; what
    it is worth depends on its server."""
    after = {vnic: dict(known) for vnic, known in learned.items()}
    for vnic, claim in seen:
        known = after.setdefault(vnic, {})
        before, leased = known.get(claim.address), claim.source in LEASED
        renews = leased and before is not None and before.source in LEASED
        fits = has_room((each.source for each in known.values()), claim.source)
        if renews or (fits and (leased or before is None)):
            known[claim.address] = claim
    return after


def current(learned: Learned, vnics: Iterable[str], now: int) -> Learned:
    """Without vNICs that are gone and leases that have ended."""
    return {
        vnic: {claim.address: claim for claim in learned[vnic].values() if not 0 < claim.expires <= now}
        for vnic in vnics
        if vnic in learned
    }


def duplicates(learned: Learned, policy: Mapping[str, Vnic]) -> Mapping[str, str]:
    """vNICs here that were seen with the address of another one of their segment, and in words which."""
    owners = {(vnic.segment, address): vnic for vnic in policy.values() for address in vnic.addresses}
    found: dict[str, str] = {}
    for id in learned.keys() & policy.keys():
        taken = [
            f"{address} of {owner.vm_name or owner.vm}"
            for address in learned[id]
            if address not in policy[id].addresses and (owner := owners.get((policy[id].segment, address)))
        ]
        if taken:
            found[id] = f"it was seen with {', '.join(taken)}"
    return found


class Discovery:
    """`ports` are the vNICs plugged here, `report` sends to the manager."""

    def __init__(
        self,
        statefile: StateFile,
        datapath: Datapath,
        apply_thread: ApplyThread,
        ports: Callable[[], Mapping[str, Port]],
        report: Callable[[Addresses], None],
    ) -> None:
        self._statefile = statefile
        self._datapath = datapath
        self._apply_thread = apply_thread
        self._ports = ports
        self._report = report
        self._told: dict[int, tuple[Port, frozenset[int]]] = {}
        self._not_saved = ""
        try:
            loaded = statefile.load_addresses()
        except ValueError as error:
            log.error("addresses on disk are spoiled; they are learned again", reason=str(error))
            loaded = Addresses({})
        self.learned: Learned = {
            vnic: {claim.address: claim for claim in found} for vnic, found in loaded.vnics.items()
        }

    async def run(self) -> NoReturn:
        """Take frames off the ring as soon as there are some, and every second look what has ended."""
        loop, readable, ring = asyncio.get_running_loop(), asyncio.Event(), self._datapath.snoops()
        loop.add_reader(ring, readable.set)
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_S):
                        await readable.wait()
                readable.clear()
                await self.take(self._datapath.poll_snoops(), int(time.time()))
        finally:
            loop.remove_reader(ring)

    async def take(self, snoops: Iterable[Snoop], now: int) -> None:
        ports = self._ports()
        await self._become(current(learn(self.learned, _seen(snoops, ports, now)), ports, now), ports)

    async def take_over(self, vnic: str, claims: Iterable[Claim]) -> None:
        """What another host has seen of a vNIC that is here now."""
        now, ports = int(time.time()), self._ports()
        seen = ((vnic, claim) for claim in claims)
        await self._become(current(learn(self.learned, seen), ports, now), ports)

    async def forget(self, vnic: str, address: str) -> None:
        """As if it had not been seen, so that it is shown again when it is."""
        known = dict(self.learned.get(vnic, {}))
        if known.pop(address, None) is not None:
            log.warning("address forgotten, as the manager asks", vnic=vnic, address=address)
            await self._become({**self.learned, vnic: known}, self._ports())

    async def _become(self, after: Learned, ports: Mapping[str, Port]) -> None:
        changed = {
            vnic
            for vnic in self.learned.keys() | after.keys()
            if self.learned.get(vnic, {}) != after.get(vnic, {})
        }
        self.learned = after
        await self._tell_kernel(ports)
        if changed or self._not_saved:
            await self._save()
        for addresses in reports({vnic: after[vnic] for vnic in changed if vnic in after}):
            self._report(addresses)

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._statefile.save_addresses, Addresses(_tuples(self.learned)))
        except OSError as error:
            if str(error) != self._not_saved:
                log.error("addresses not saved, tried again: a restart forgets them", reason=str(error))
            self._not_saved = str(error)
        else:
            self._not_saved = ""

    async def _tell_kernel(self, ports: Mapping[str, Port]) -> None:
        """What is known need not be shown again."""
        known = {
            port.slot: (port, frozenset(map(_number, self.learned.get(vnic, ()))))
            for vnic, port in ports.items()
        }
        for slot in known:
            if known[slot] != self._told.get(slot):
                try:
                    await self._apply_thread(self._datapath.know, slot, known[slot][1])
                except DatapathError as error:
                    log.warning("claims are shown again and again", reason=str(error))
        self._told = known

    def all(self) -> Iterator[Addresses]:
        """For a manager that may know nothing."""
        return reports(self.learned)


def reports(learned: Learned) -> Iterator[Addresses]:
    """Of a size the manager takes; each vNIC whole."""
    batch: dict[str, tuple[Claim, ...]] = {}
    for vnic, found in _tuples(learned).items():
        if sum(map(len, batch.values())) + len(found) > MAX_CLAIMS_AT_ONCE:
            yield Addresses(batch)
            batch = {}
        batch[vnic] = found
    if batch:
        yield Addresses(batch)


def _seen(snoops: Iterable[Snoop], ports: Mapping[str, Port], now: int) -> Iterator[tuple[str, Claim]]:
    by_slot = {port.slot: port for port in ports.values()}
    for snoop in snoops:
        port = by_slot.get(snoop.slot)
        if port is not None:
            mac = bytes.fromhex(port.mac.replace(":", ""))
            for claim in claims(snoop.frame, snoop.direction, mac, now):
                yield port.vnic, claim


def _tuples(learned: Learned) -> dict[str, tuple[Claim, ...]]:
    return {vnic: tuple(found.values()) for vnic, found in learned.items()}


def _number(text: str) -> int:
    """As the datapath writes addresses."""
    address = ip_address(text)
    return int(address) | (_IPV4_MAPPED if address.version == 4 else 0)
