"""A packet sees one policy, whole, also while policies change under it."""

import threading
from collections.abc import Callable

import pytest

from tests.harness.crosswise import VERSIONS, version
from tests.harness.datapath import Host, Port, dropped, inside
from tests.harness.packets import IPV4, IPV6, Net, udp
from tests.harness.pieces import pieces
from tests.harness.policies import policy
from tests.harness.prober import DROP, PORTS, Prober, figures
from tests.harness.wired import Wired
from vsfwd.datapath import bpf

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
FILLER = [f"drop service tcp/{port}" for port in range(1, 300)]


class Traffic(threading.Thread):
    """One packet again and again through a program; remembers every verdict it saw."""

    def __init__(self, host: Host, port: Port, frame: bytes) -> None:
        super().__init__()
        self._program, self._ifindex, self._frame = host.datapath.vnic_in, port.ifindex, frame
        self._stop_asked = threading.Event()
        self.verdicts: dict[int, int] = {}

    def run(self) -> None:
        while not self._stop_asked.is_set():
            verdict = bpf.run_program(self._program, self._frame, ifindex=self._ifindex)[0]
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1

    def finish(self) -> dict[int, int]:
        self._stop_asked.set()
        self.join(10)
        return self.verdicts


def flip_under(host: Host, port: Port, frame: bytes, policies: list[list[str]], times: int) -> dict[int, int]:
    """Verdicts of a packet while the policies take turns."""
    images = [host.image(policy(rules, vnics=VNICS)) for rules in policies]
    host.flip(images[0])
    traffic = Traffic(host, port, frame)
    traffic.start()
    try:
        for turn in range(times):
            host.flip(images[turn % len(images)])
    finally:
        verdicts = traffic.finish()
    return verdicts


def test_no_packet_sees_a_mixture(host: Host, net: Net) -> None:
    """X44. Three policies take turns, so that a bank never holds what it held before. Each drops the packet
    by a rule, but of another number and for another reason: with the tables of two of them it would pass, or
    find no rule."""
    here = host.port("here")
    policies = [
        ["drop from db", "allow service udp/53", *FILLER, "allow"],
        [*FILLER, "allow from 192.0.2.0/24,2001:db8::/32", "drop service udp/53", "allow from db"],
        ["allow service tcp", "drop in on web", "allow", *FILLER],
    ]
    verdicts = flip_under(host, here, bytes(here.frame_in(udp(net.twin, net.here))), policies, 60)
    assert verdicts.keys() == {2}
    assert here.drops() == {"rule_drop": verdicts[2]}
    assert verdicts[2] > 100


@pytest.mark.slow
@pytest.mark.parametrize("generations", [pytest.param(range(100), id="few"), *pieces(10_000, 5_000)])
def test_x44_no_packet_of_many_generations_sees_a_mixture(
    wired: Wired, generations: range, record_property: Callable[[str, str], None]
) -> None:
    """Traffic of every kind between two vNICs, and besides a packet that must be dropped as fast as one CPU
    can send it, while one generation follows on the other."""
    here, _ = wired.replug()
    wired.install(version(0))
    images = [wired.host.image(policy(version(number), vnics=VNICS)) for number in range(VERSIONS)]
    with inside(wired.namespace), Prober(wired.twin, wired.here, (IPV4.here, IPV6.here)) as prober:
        frame = bytes(here.frame_in(udp(IPV4.twin, IPV4.here, PORTS[DROP])))
        flood = Traffic(wired.host, here, frame)
        flood.start()
        try:
            for generation in generations:
                prober.note(f"generation {generation}")
                wired.host.flip(images[generation % VERSIONS])
        finally:
            verdicts = flood.finish()
    passed = sum(count for verdict, count in verdicts.items() if verdict != 2)
    flooded = f"of {sum(verdicts.values()):,} packets beside {passed} passed"
    probes = figures([prober.counted()])
    record_property("figure", f"{len(generations)} generations: {probes}; {flooded}")
    assert prober.violations() == []
    assert verdicts.keys() == {2}


def test_a_bank_rests_before_it_is_written_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that began under it may still read its maps: a grace period passes since the flip before, that
    of putting a map of the bank in force where it is, and then its maps are exchanged."""
    host.port("here")
    host.install(["allow"], vnics=VNICS)
    live = host.datapath.status()["bank"]
    put, banks = bpf.put_inner, []

    def recorded(outer: int, index: int, inner: int) -> None:
        banks.append(index)
        put(outer, index, inner)

    monkeypatch.setattr(bpf, "put_inner", recorded)
    host.install(["drop"], vnics=VNICS)
    assert banks[0] == live
    assert 1 - live in banks


def test_the_last_policy_is_in_force_when_install_returns(host: Host, net: Net) -> None:
    """After each flip the very next packet is judged by it."""
    here = host.port("here")
    images = [host.image(policy([rule], vnics=VNICS)) for rule in ("allow", "drop")]
    for turn in range(20):
        host.flip(images[turn % 2])
        assert (here.receive(udp(net.peer, net.here)).verdict == "drop") == bool(turn % 2)


def test_a_policy_of_thousands_of_rows_is_there_whole(host: Host) -> None:
    """More rows and addresses than one system call writes: the first, the last and those at its end."""
    here = host.port("here")
    sources = [f"10.9.{number >> 8}.{number & 255}" for number in range(2500)]
    host.install([f"drop from {source}" for source in sources], vnics=VNICS)
    for number in (0, 1022, 1023, 1024, 2047, 2048, 2499):
        seen = here.receive(udp(sources[number], IPV4.here))
        assert seen == dropped("rule_drop", number + 1)
