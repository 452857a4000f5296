"""What others can make the firewall do again and again has a rate: log lines, replies to rejected packets."""

import subprocess
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import Host, add_device, dropped, passed, rejected, until
from tests.harness.packets import Net, echo, tcp, udp
from vsfwd.datapath import Event, Limit

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
BURST = 3
LIMITED = dropped("reject_limited", 1)


@pytest.fixture(autouse=True)
def slow(host: Host) -> Iterator[None]:
    """One a second, three at once. On devices of this test alone, since a bucket is a device's."""
    for number in (0, 1):
        subprocess.run(["ip", "link", "del", f"port{number}"], check=True)
        add_device(number)
    limit = Limit(rate=1, burst=BURST)
    with host.configured(log_limit=limit, reject_limit=limit):
        yield


def _suppressed(host: Host, rule: int) -> int:
    return host.datapath.rule_counters()[rule].suppressed


def _logged(see: Callable[[int], list[Event]]) -> tuple[list[Event], int]:
    """The events of a burst and of the packet that is logged next; and how many in between were not."""
    events = [event for number in range(BURST) for event in see(number)]
    silent = 0

    def again() -> bool:
        nonlocal silent
        seen = see(BURST + silent)
        events.extend(seen)
        silent += not seen
        return bool(seen)

    until(again)
    return events, silent


@pytest.mark.parametrize("action", ["allow", "drop", "reject"])
def test_x47_a_rule_is_logged_at_its_rate(host: Host, net: Net, action: str) -> None:
    """Beyond it nothing is logged but counted: the next event says how many, and so does the rule."""
    here = host.port("here")
    host.install([f"{action} logged"], vnics=VNICS)
    before = _suppressed(host, 1)
    events, silent = _logged(lambda n: list(here.receive(udp(net.peer, net.here, sport=1000 + n)).events))
    assert silent > 0
    assert [event.suppressed for event in events] == [0] * BURST + [silent]
    assert _suppressed(host, 1) == before + silent


def test_x47_frames_are_logged_at_a_rate(host: Host) -> None:
    """Rules of an Ethernet section likewise: after a pause there is a line again."""
    here = host.port("here")
    host.install(["drop frames 88cc logged"], vnics=VNICS)
    frame = Ether(src="02:00:00:00:99:99", dst=here.mac, type=0x88CC) / Raw(bytes(50))
    events, silent = _logged(lambda n: list(here.receive(frame).events))
    assert silent > 0
    assert [event.suppressed for event in events] == [0] * BURST + [silent]


def test_x47_what_is_not_logged_is_judged_as_ever(host: Host, net: Net) -> None:
    """The limit is the log's: packets are dropped and counted as before."""
    here = host.port("here")
    host.install(["drop logged"], vnics=VNICS)
    for _ in range(BURST + 5):
        assert here.receive(udp(net.peer, net.here)) == dropped("rule_drop", 1)


def test_x47_a_flood_on_one_rule_or_vnic_silences_no_other(host: Host, net: Net) -> None:
    """Each rule has a limit of its own at each vNIC."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["drop service udp/53 logged", "drop logged"], vnics=VNICS)
    for _ in range(BURST + 5):
        here.receive(udp(net.peer, net.here))
    assert not here.receive(udp(net.peer, net.here)).events
    assert here.receive(udp(net.peer, net.here, 54)).events[0].suppressed == 0
    assert twin.receive(udp(net.peer, net.twin)).events[0].suppressed == 0


@pytest.mark.parametrize("kind", [tcp, udp, echo])
def test_x45_replies_have_a_rate(host: Host, net: Net, kind: Callable[[str, str], Packet]) -> None:
    """Who asks too often is not answered for a while. What comes in and what goes out have replies of their
    own."""
    here = host.port("here")
    host.install(["reject"], vnics=VNICS)
    assert [here.receive(kind(net.peer, net.here)) for _ in range(BURST)] == [rejected(1)] * BURST
    assert here.receive(kind(net.peer, net.here)) == LIMITED
    assert [here.send(kind(net.here, net.peer)) for _ in range(BURST)] == [rejected(1)] * BURST
    assert here.send(kind(net.here, net.peer)) == LIMITED
    until(lambda: here.receive(kind(net.peer, net.here)) == rejected(1))


def test_x45_replies_of_one_vnic_are_not_another_s(host: Host, net: Net) -> None:
    """A flood at one vNIC leaves the other's senders answered; a packet that is allowed needs no reply."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["reject service udp/53", "allow"], vnics=VNICS)
    for _ in range(BURST + 5):
        here.receive(udp(net.peer, net.here))
    assert here.receive(udp(net.peer, net.here)) == LIMITED
    assert here.receive(udp(net.peer, net.here, 54)) == passed(2, new=True)
    assert twin.receive(udp(net.peer, net.twin)) == rejected(1)


def test_x45_what_is_not_answered_costs_no_reply(host: Host, net: Net) -> None:
    """A storm of packets that are never answered, as echo replies, leaves the senders of others theirs."""
    here = host.port("here")
    host.install(["reject"], vnics=VNICS)
    for _ in range(BURST + 5):
        assert here.receive(echo(net.peer, net.here, reply=True)) == dropped("rule_reject", 1)
    assert here.receive(udp(net.peer, net.here)) == rejected(1)


def test_x45_a_new_vnic_may_answer(host: Host, net: Net) -> None:
    """Who gets the slot of a vNIC that has spent its replies has all of its own."""
    here = host.port("here")
    host.install(["reject"], vnics=VNICS)
    for _ in range(BURST):
        here.receive(udp(net.peer, net.here))
    assert here.receive(udp(net.peer, net.here)) == LIMITED
    host.unplug()
    twin = host.port("twin")
    host.install(["reject"], vnics=VNICS)
    assert twin.slot == here.slot
    assert twin.receive(udp(net.peer, net.twin)) == rejected(1)
