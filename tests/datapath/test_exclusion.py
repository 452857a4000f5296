"""A vNIC on the exclusion list: everything passes, unparsed, untracked, counted."""

import pytest
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PASSED_UNSEEN, PEER_MAC, Host, dropped, passed
from tests.harness.packets import Net, tcp, udp
from tests.harness.policies import policy
from vsfwd.image import Flip

ENFORCED = {"here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}
EXCLUDED = {"here": "10.0.0.1 fd00::1 excluded", "twin": "10.0.0.2 fd00::2"}
ODD: tuple[Packet, ...] = (
    Dot1Q(vlan=5) / Raw(bytes(50)),
    Raw(bytes(50)),
    ARP(),
)


def test_everything_passes_and_is_counted(host: Host, net: Net) -> None:
    """What the rules deny, what no packet should be, what is for another MAC: in both directions, without a
    flow."""
    here = host.port("here")
    host.install(["drop"], vnics=EXCLUDED)
    packets = [tcp(net.peer, net.here), tcp(net.here, net.peer, flags="A"), udp(net.peer, net.here)]
    frames = [here.frame_in(packet) for packet in (*packets, *ODD)]
    frames.append(Ether(src=PEER_MAC, dst="02:00:00:00:77:77") / udp(net.peer, net.here))
    for frame in frames:
        assert here.receive(frame) == PASSED_UNSEEN
        assert here.send(frame) == PASSED_UNSEEN
    assert here.flows() == []
    assert host.datapath.unfiltered() == {here.slot: 2 * len(frames)}
    assert host.datapath.modes() == {here.slot: "excluded"}


def test_only_that_vnic_is_excluded(host: Host, net: Net) -> None:
    """X50: its neighbour on the host is enforced as ever."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["drop"], vnics=EXCLUDED)
    assert here.receive(udp(net.peer, net.here)) == PASSED_UNSEEN
    assert twin.receive(udp(net.peer, net.twin)) == dropped("rule_drop", 1)
    assert host.datapath.unfiltered() == {here.slot: 1, twin.slot: 0}


def test_taken_off_the_list_it_is_enforced_again(host: Host, net: Net) -> None:
    """From the flip on; a flow from before the exclusion is asked again, and the count stays."""
    here = host.port("here")
    host.install(["allow"], vnics=ENFORCED)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    host.install(["allow"], vnics=EXCLUDED)
    assert here.receive(udp(net.peer, net.here)) == PASSED_UNSEEN
    host.install(["drop"], vnics=ENFORCED)
    assert here.receive(udp(net.peer, net.here)) == dropped("rule_drop", 1)
    assert here.send(Ether(src=here.mac, dst=PEER_MAC, type=0x88CC) / Raw(bytes(50))).verdict == "drop"
    assert host.datapath.unfiltered() == {here.slot: 1}


@pytest.mark.parametrize("again", [pytest.param("restart", marks=pytest.mark.slow), "replug", "neighbour"])
def test_an_exclusion_survives_what_is_not_policy(host: Host, net: Net, again: str) -> None:
    """A new daemon, the vNIC announced again, another one that comes and goes."""
    here = host.port("here")
    host.install(["drop"], vnics=EXCLUDED)
    if again == "restart":
        host.restart()
    elif again == "replug":
        host.datapath.attach(here.id, here.ifindex, here.mac)
    else:
        twin = host.port("twin")
        host.datapath.detach(twin.id)
    assert here.receive(udp(net.peer, net.here)) == PASSED_UNSEEN
    host.install(["drop"], vnics=ENFORCED)
    assert here.receive(udp(net.peer, net.here)) == dropped("rule_drop", 1)


def test_the_next_vnic_of_a_slot_is_not_excluded(host: Host, net: Net) -> None:
    """The exclusion goes with the vNIC, and so does its count."""
    here = host.port("here")
    host.install(["drop"], vnics=EXCLUDED)
    here.receive(udp(net.peer, net.here))
    host.datapath.detach(here.id)
    twin = host.port("twin")
    assert twin.slot == here.slot
    assert twin.receive(udp(net.peer, net.twin)) == dropped("closed")
    assert host.datapath.unfiltered() == {twin.slot: 0}


def test_a_bank_that_could_not_be_written_excludes_nobody(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs look, and find in the bank in force that the vNIC is enforced."""
    here = host.port("here")
    host.install(["drop"], vnics=ENFORCED)
    image = host.image(policy(["drop"], vnics=EXCLUDED))

    def failing(plan: Flip) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(host.datapath._policy, "flip", failing)
    with pytest.raises(OSError, match="no memory"):
        host.flip(image)
    assert here.receive(udp(net.peer, net.here)) == dropped("rule_drop", 1)
