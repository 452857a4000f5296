"""Two hosts, a VM that moves from one to the other, and what the manager would order them."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scapy.layers.l2 import ARP, Ether

from tests.harness.datapath import Host, Port, dropped, inside, passed
from tests.harness.packets import Net, tcp
from tests.harness.policies import policy, vnic_id
from vsfwd.identity import key_pem, new_key
from vsfwd.incidents import Incidents
from vsfwd.migration.here import Here
from vsfwd.migration.move import Moves
from vsfwd.migration.sealed import public_der
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.messages import Binding, Claim
from vsfwd.protocol.migration import Move, MoveDone, MoveOffer, Step

VM = "00000000-0000-4000-8000-0000000000aa"
RULES = ["allow in service tcp", "allow service udp", "drop"]
VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
MAC = "02:00:00:00:00:00"
ANNOUNCEMENT = Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=MAC, psrc="10.0.0.1", pdst="10.0.0.1")
DEAD, FROZEN = dropped("dead"), dropped("frozen")


def each(act: Callable[[str], None], vnics: Collection[str]) -> None:
    for vnic in vnics:
        act(vnic)


class Learning:
    """What discovery has seen, and is told."""

    def __init__(self) -> None:
        self.learned: dict[str, Mapping[str, Claim]] = {}

    async def take_over(self, vnic: str, claims: tuple[Claim, ...]) -> None:
        self.learned[vnic] = {claim.address: claim for claim in claims}


class Site:
    """One host: its datapath, and the moves it takes part in. What `say` is told is in `said`, unless it is
    `cut_off` from its broker."""

    def __init__(self, name: str, host: Host, namespace: str, directory: Path) -> None:
        self.name, self.host, self.namespace = name, host, namespace
        self.key = new_key()
        self.key_file = directory / f"{name}.pem"
        self.key_file.write_bytes(key_pem(self.key))
        self.discovery = Learning()
        self.said: list[Move] = []
        self.cut_off = False
        self.incidents = Incidents()
        self.state = DesiredState()
        self.policy: Callable[[], DesiredState] = lambda: self.state
        self.port: Port | None = None
        self._thread = ThreadPoolExecutor(1)
        self.restart()

    def restart(self) -> None:
        """Another daemon: it remembers nothing of moves."""
        self.moves = Moves(
            Here(
                self.name,
                self.key_file,
                self.host.datapath,
                self._apply,  # type: ignore[arg-type]
                self.discovery,  # type: ignore[arg-type]
                lambda: self.policy(),
                lambda: [Binding(vnic_id("here"), VM, MAC, "port0")] if self.port else [],
                lambda vnics: each(self.host.datapath.reserve, vnics),
                lambda vnics: each(self.host.datapath.give_up, vnics),
                self.incidents,
            )
        )
        self.moves.say = self._say

    async def _apply(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return self._there(work, *arguments)

    def _there(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """On the host's own thread: netlink has an event loop of its own, and the test has one already."""

        def run() -> Any:
            with inside(self.namespace):
                return work(*arguments)

        return self._thread.submit(run).result()

    async def _say(self, said: Move) -> bool:
        if not self.cut_off:
            self.said.append(said)
        return not self.cut_off

    def plug(self) -> None:
        """The VM's device is here, and the tables are made with it."""
        if self.port is None:
            self.port = self._there(self.host.port, "here")
            self.install()

    def install(self) -> None:
        self._there(lambda: self.host.install(RULES, vnics=VNICS))
        self.state = policy(RULES, vnics=VNICS)

    def receive(self, packet: Any) -> Any:
        assert self.port
        return self._there(self.port.receive, packet)

    def send(self, packet: Any) -> Any:
        assert self.port
        return self._there(self.port.send, packet)

    def detach(self) -> None:
        """The VM's device is gone."""
        self._there(self.host.datapath.detach, vnic_id("here"))

    def unplug(self) -> None:
        self._there(self.host.unplug)
        self._thread.shutdown()

    def announce(self) -> str:
        """The VM says where it is."""
        frame = ANNOUNCEMENT.copy()
        frame.src = frame[ARP].hwsrc = self.port.mac if self.port else MAC
        verdict: str = self.send(frame).verdict
        return verdict

    def states(self) -> list[str]:
        assert self.port
        return sorted(self.port.states())


Pair = tuple[Site, Site]


def offer(a: Site, b: Site, number: int = 1, **fields: Any) -> MoveOffer:
    keys = public_der(a.key.public_key()), public_der(b.key.public_key())
    binding = Binding(vnic_id("here"), VM, MAC, "port0")
    id = f"00000000-0000-4000-8000-{number:012}"
    given = {"epoch": b.state.epoch, "generation": b.state.generation} | fields
    return MoveOffer(id, VM, a.name, b.name, *keys, (binding,), **given)


def connect(site: Site, net: Net, sport: int = 1000) -> None:
    site.receive(tcp(net.peer, net.here, sport=sport))
    site.send(tcp(net.here, net.peer, sport, "SA", sport=80))
    assert site.receive(tcp(net.peer, net.here, sport=sport, flags="A")) == passed(1)


async def prepare(a: Site, b: Site, number: int = 1) -> MoveOffer:
    given = offer(a, b, number)
    for site in (b, a):
        assert await site.moves.prepare(given) == MoveDone(given.migration, VM, Step.PREPARE)
    return given


async def carry(a: Site, b: Site) -> MoveDone:
    """One round."""
    for part in await a.moves.export(VM):
        done = await b.moves.take(part)
    assert done
    return done


async def move(a: Site, b: Site, number: int = 1) -> None:
    """All of it, until the VM is alive at the target."""
    await prepare(a, b, number)
    assert not (await carry(a, b)).final
    await a.moves.freeze(VM)
    assert (await carry(a, b)).final
    b.plug()
    await b.moves.look()
    assert b.announce() == "pass"
    await b.moves.look()
