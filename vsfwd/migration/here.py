"""This host, as moves need it: its key, its policy, and its datapath on the apply thread."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, Hold
from vsfwd.discovery import Discovery
from vsfwd.identity import Unfit, load_key
from vsfwd.incidents import Incidents
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Binding


@dataclass(frozen=True)
class Here:
    """`key_file` has the private key of its certificate. `policy` is the one in force, `bindings` what is
    plugged, `expect` and `give_up` are the reconciler's."""

    host: str
    key_file: Path
    datapath: Datapath
    apply_thread: ApplyThread
    discovery: Discovery
    policy: Callable[[], DesiredState]
    bindings: Callable[[], Iterable[Binding]]
    expect: Callable[[Collection[str]], None]
    give_up: Callable[[Collection[str]], None]
    incidents: Incidents

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Raises Refused."""
        try:
            return load_key(self.key_file.read_bytes())
        except (OSError, Unfit) as error:
            raise Refused(f"key of this host: {error}") from None

    async def attached(self) -> Mapping[str, int]:
        """vNIC id to slot."""
        return await self.apply_thread(lambda: self.datapath.slots)

    async def devices(self) -> Mapping[str, int]:
        """vNIC id to device number."""
        return await self.apply_thread(lambda: self.datapath.devices)

    async def reserved(self) -> set[str]:
        """vNICs that have a slot and are not here."""
        return await self.apply_thread(lambda: self.datapath.places.keys() - self.datapath.slots.keys())

    async def held(self) -> Mapping[str, Hold]:
        return await self.apply_thread(self.datapath.holds)

    async def hold(self, vnics: Iterable[str], why: Hold, *, settled: bool = True) -> None:
        for vnic in vnics:
            await self.apply_thread(partial(self.datapath.hold, vnic, why, settled=settled))

    async def clear(self, vnics: Collection[str]) -> None:
        """No flow of theirs is left."""
        for vnic in (await self.apply_thread(lambda: self.datapath.places)).keys() & set(vnics):
            await self.apply_thread(self.datapath.empty, vnic)

    async def held_of(self, vm: str, *why: Hold) -> list[str]:
        """vNICs of a VM that are held though no move of it is known: an earlier daemon did."""
        held = await self.held()
        return [each.vnic for each in self.bindings() if each.vm == vm and held.get(each.vnic) in why]
