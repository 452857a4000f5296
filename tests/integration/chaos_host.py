"""A host for chaos: a vsfwd as it runs, its VM and a neighbour on a bridge, a broker behind a wire that
breaks, and a manager that knows what it has said and what the host has confirmed."""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import aio_pika
import msgspec

from tests.harness.crosswise import ENDS, version
from tests.harness.faultyproxy import FaultyProxy
from tests.harness.history import History
from tests.harness.lone import DEVICE, VM_ADDRESSES, VM_MAC, LoneHost, lone_host
from tests.harness.policies import HOST, Objects, objects, vnic_id
from tests.harness.prober import CHANGING, PORTS
from tests.harness.waiting import eventually
from tests.integration.daemon_host import BROKER_ADDRESS
from tests.integration.private_broker import ManagersEnd, PrivateBroker
from tests.unit.policy_messages import Manager
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Applied, Hello

UPLINK: Final = f"vsfwdc{os.getpid()}"
UP0: Final = f"up{os.getpid()}"
HOST_SIDE: Final = ip_address(BROKER_ADDRESS) + 1
VNICS: Final = {"web": f"{' '.join(VM_ADDRESSES)} {VM_MAC}"}
SETTLED_S: Final = 60.0
"""A host waits up to eight seconds between two attempts to reach its broker."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def broker(directory: Path) -> Iterator[PrivateBroker]:
    """On one end of a link whose other end a host gets."""
    node = PrivateBroker(directory, HOST, BROKER_ADDRESS)
    ip("link", "add", UPLINK, "type", "veth", "peer", UP0)
    try:
        ip("address", "add", f"{BROKER_ADDRESS}/30", "dev", UPLINK)
        ip("link", "set", UPLINK, "up")
        node.start()
        node.declare()
        yield node
    finally:
        node.node.kill()
        ip("link", "delete", UPLINK)


class ChaosHost:
    """`history`: of the policies since `begin`. What changes in them is the version (all say the same) and
    whether those of group members may speak to each other on the port that the prober calls changing."""

    def __init__(self, host: LoneHost, wire: FaultyProxy, bus: "_Bus") -> None:
        self.host, self.wire = host, wire
        self._bus = bus
        self._manager = Manager(HOST)
        self._manager.key = host.daemon.key
        self._manager.generation = 1  # is on disk
        self._numbers: dict[int, int] = {}
        bus.host = self

    async def begin(self, seed: int) -> None:
        """As if nothing had been before: what follows is decided by the seed."""
        self._version, self._allows, self._members = 0, True, True
        self.wire.chance = random.Random(seed)
        self.history = History()
        await self.settled(f"before seed {seed}")
        self.history = History()
        self._numbers = {self._manager.generation: self.history.tell(self._lets, time.monotonic())}

    @property
    def _lets(self) -> bool:
        return self._allows and self._members

    def _objects(self) -> Objects:
        action = "allow" if self._allows else "drop"
        rules = [f"{action} from members to members service udp/{PORTS[CHANGING]}", *version(self._version)]
        return objects(rules, {"members": ENDS.split(",") if self._members else ["192.0.2.1"]}, VNICS)

    async def rules(self, amount: float) -> None:
        """Another version, with another verdict or the same."""
        self._version, self._allows = (self._version + 1) % 3, amount < 0.9
        await self._say(self._manager.delta(rules=dict(self._objects()["rules"])))

    async def members(self) -> None:
        """All leave the group, or come back."""
        self._members = not self._members
        await self._say(self._manager.delta(groups=dict(self._objects()["groups"])))

    async def snapshot(self) -> None:
        await self._say(self._manager.snapshot(**{kind: dict(of) for kind, of in self._objects().items()}))

    async def _say(self, message: Message) -> None:
        self._numbers[self._manager.generation] = self.history.tell(self._lets, time.monotonic())
        await self._bus.policy(message)

    async def heard(self, said: Applied | Hello) -> None:
        """Who has no policy, or asks for a whole one, is sent it: a kill between enforcing and saving leaves
        the next daemon without."""
        if isinstance(said, Applied) and (number := self._numbers.get(said.generation)):
            self.history.confirm(number, time.monotonic())
        if said.resync if isinstance(said, Applied) else said.generation == 0:
            await self.snapshot()

    async def settled(self, why: str) -> None:
        """The wire is good again, and the host has confirmed the last policy."""
        self.wire.heal()
        self.wire.cut()
        self._bus.last = None
        await self.snapshot()

        def current() -> bool:
            last = self._bus.last
            return last is not None and (last.generation, last.digest) == (
                self._manager.generation,
                self._manager.digest,
            )

        await eventually(current, f"{why}: the last policy confirmed", SETTLED_S)

    def plug(self) -> None:
        """The vNIC anew: nobody says whose it is before it is on the bridge and the VM sends."""
        namespace, vm = self.host.namespace, self.host.vm
        ip("-n", namespace, "link", "delete", DEVICE)
        ip("-n", namespace, "link", "add", DEVICE, "type", "veth", "peer", "eth0", "netns", vm)
        ip("-n", vm, "link", "set", "eth0", "address", VM_MAC, "up")
        for address in VM_ADDRESSES:
            length, flags = ("/64", ["nodad"]) if ":" in address else ("/24", [])
            ip("-n", vm, "address", "add", address + length, "dev", "eth0", *flags)
        ip("-n", namespace, "link", "set", DEVICE, "addrgenmode", "none", "up")
        ip("-n", namespace, "link", "set", DEVICE, "master", "bridge")
        ip("-n", namespace, "link", "set", DEVICE, "alias", f"vsfwd:{vnic_id('web')}")


class _Bus(ManagersEnd):
    """Tells the host's side what it says, at once."""

    host: ChaosHost | None = None
    last: Any = None

    async def _take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        kind = (message.routing_key or "").rpartition(".")[2]
        if kind not in ("applied", "hello"):
            return
        event = self.last = msgspec.json.decode(message.body, type=Applied if kind == "applied" else Hello)
        if self.host:
            await self.host.heard(event)


@asynccontextmanager
async def chaos_host(directory: Path, node: PrivateBroker) -> AsyncIterator[ChaosHost]:
    """Its daemon runs, with what is on disk."""
    certificate, key = node.host_certificate
    wire = FaultyProxy(BROKER_ADDRESS, node.node.port, 0)
    async with wire.running(BROKER_ADDRESS), _Bus(node) as bus:
        node.purge()
        settings = {
            "broker_urls": [wire.url],
            "ca": str(node.authority.ca),
            "certificate": str(certificate),
            "key": str(key),
            "guard_ports": ["veth-*"],
        }
        with lone_host(directory, **settings) as host:
            ip("link", "set", UP0, "netns", host.namespace)
            ip("-n", host.namespace, "address", "add", f"{HOST_SIDE}/30", "dev", UP0)
            ip("-n", host.namespace, "link", "set", UP0, "up")
            try:
                await asyncio.to_thread(host.daemon.start)
                yield ChaosHost(host, wire, bus)
            finally:
                ip("-n", host.namespace, "link", "set", UP0, "netns", str(os.getpid()))
