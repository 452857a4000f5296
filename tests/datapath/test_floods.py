"""Floods of flows, by real packets through the bridge: `mallory` floods `victim`, and nobody else suffers.

Tables have 1,024 places here, a flood has more than ten times as many flows. The rules allow everything, so
every packet may have a flow. No daemon helps: nothing is asked of the Datapath while traffic runs."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.harness.datapath import inside
from tests.harness.flood import KINDS, frames
from tests.harness.packets import IPV4, IPV6, Net
from tests.harness.pairs import Pair
from tests.harness.wired import VNICS, Wired
from tests.harness.wired import wired as wired_host
from vsfwd.datapath import Reason

pytestmark = pytest.mark.slow

QUOTA = 1024
FLOOD = 12 * QUOTA
EVERYBODY = VNICS | {"mallory": "10.0.0.3 fd00::3 web", "victim": "10.0.0.4 fd00::4 db"}
VICTIM = 3
"""Its slot; slots are given in order."""
MALLORY_MAC, VICTIM_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03"


@pytest.fixture(scope="module")
def four() -> Iterator[Wired]:
    with wired_host("floods", EVERYBODY) as host:
        yield host


@pytest.fixture
def world(four: Wired) -> Iterator[Wired]:
    """No flow of a flood ends by itself while a slow machine looks at what it did: an echo's 20 seconds can
    be less than that takes."""
    four.replug()
    four.install(["allow"])
    with four.host.timers(ECHO=3600, FIRST=3600, SINGLE=3600):
        yield four


def _refused(world: Wired) -> list[bool]:
    """Whether a table was full, by vNIC."""
    drops = world.host.datapath.drops()
    return [Reason["TABLE_FULL"] in drops[slot] for slot in range(len(EVERYBODY))]


@contextmanager
def _flood(world: Wired, kind: str, net: Net) -> Iterator[None]:
    """Runs meanwhile, and to its end."""
    mallory, victim = (EVERYBODY[name].split()[net is IPV6] for name in ("mallory", "victim"))
    flood = list(frames(kind, (MALLORY_MAC, VICTIM_MAC), mallory, victim, FLOOD))

    def send() -> None:
        with inside(world.others[0]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("far2", 0))
            for frame in flood:
                sender.send(frame)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join()


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Net:
    family: Net = request.param
    return family


@pytest.mark.parametrize("kind", KINDS)
def test_x21_x22_a_flood_costs_nobody_a_flow(world: Wired, net: Net, kind: str) -> None:
    """Connections open before it go on, those of the flooding and the flooded vNIC too; others open new ones
    while it runs; and no table but theirs is ever full."""
    mallory, victim = world.others
    address = EVERYBODY["victim"].split()[net is IPV6]
    with ExitStack() as stack:
        pairs = [Pair(world.here, world.twin, net.twin), Pair(mallory, victim, address)]
        before = [pair.connect() for pair in pairs for _ in range(5)]
        for closing in (*before, *pairs):
            stack.callback(closing.close)
        with _flood(world, kind, net):
            for _ in range(30):
                during = pairs[0].connect()
                during.speak()
                during.close()
        for connection in before:
            connection.speak()
            assert world.states(*connection.ports) == ["established", "established"]
    assert _refused(world)[:2] == [False, False]
    if kind != "fragment":  # a fragment has no flow of its own
        assert len(world.host.datapath.flows(VICTIM)) > QUOTA / 2


def test_x21_three_quotas_of_short_connections_pass_without_a_daemon(world: Wired, net: Net) -> None:
    """The programs take places back by themselves: every connection opens, speaks and closes, and nothing is
    dropped for want of a place or of a state."""
    pair = Pair(world.here, world.twin, net.twin)
    for _ in range(3 * QUOTA):
        connection = pair.connect()
        connection.speak()
        connection.close()
    pair.close()
    drops = world.host.datapath.drops()
    for slot in (0, 1):
        assert not {Reason["TABLE_FULL"], Reason["NO_STATE"], Reason["TCP_STATE"]} & drops[slot].keys()
