"""A slot that is reserved for a vNIC which is to come: its policy, timers and flows wait there for it."""

import pytest
from scapy.layers.l2 import ARP

from tests.harness.datapath import Host, dropped, passed
from tests.harness.packets import Net, tcp
from tests.harness.policies import vnic_id
from vsfwd.datapath import DatapathError, Hold
from vsfwd.datapath.flowstate import Round

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
RULES = ["allow in service tcp/80", "drop"]


def test_o33_a_vnic_that_comes_has_its_policy_from_the_first_packet(host: Host, net: Net) -> None:
    """Nothing is installed between its attachment and the packet."""
    host.port("twin")
    host.datapath.reserve(vnic_id("here"))
    host.install(RULES, vnics=VNICS)
    here = host.port("here")
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)
    assert here.receive(tcp(net.peer, net.here, port=81)) == dropped("rule_drop", 2)


def test_flows_that_were_there_before_it_go_on(host: Host, net: Net) -> None:
    """They are put into the table of the slot, and the vNIC that is attached does not empty it."""
    twin = host.port("twin")
    host.install(RULES, vnics=VNICS)
    twin.receive(tcp(net.peer, net.here, port=80))
    states = host.datapath.flow_states
    flows, _ = states.export(twin.slot, Round())
    id = vnic_id("here")
    host.datapath.reserve(id)
    host.install(RULES, vnics=VNICS)
    arrived = states.arrived(flows, states.pinholes(twin.slot), same_policy=True)
    slot = host.datapath.places[id]
    states.put(slot, states.build(slot, arrived))
    here = host.port("here")
    assert here.slot == slot
    assert here.states() == twin.states() != []


def test_o33_what_waits_for_a_vnic_waits_while_it_cannot_be_attached(host: Host, net: Net) -> None:
    """Its device is gone again, say: when it is there the policy is in force, and nobody has said it anew."""
    id = vnic_id("here")
    host.datapath.reserve(id)
    host.install(RULES, vnics=VNICS)
    slot = host.datapath.places[id]
    with pytest.raises(DatapathError, match="attach the programs to device 99999"):
        host.datapath.attach(id, 99999, "02:00:00:00:00:00")
    assert (host.datapath.slots, host.datapath.places) == ({}, {id: slot})
    here = host.port("here")
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)


def test_o33_who_has_come_keeps_its_slot_when_it_is_given_up(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel was against its programs, and against taking off what is there of them."""
    id = vnic_id("here")
    host.datapath.reserve(id)
    host.install(RULES, vnics=VNICS)

    def fails(*_: object) -> None:
        raise DatapathError("out of memory")

    with monkeypatch.context() as full:
        for call in ("attach", "detach"):
            full.setattr(host.datapath._hooks, call, fails)
        with pytest.raises(DatapathError):
            host.port("here")
    host.datapath.give_up(id)
    host._next = 0
    here = host.port("here")
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)


def test_what_is_counted_of_a_vnic_begins_when_it_is_attached(host: Host, net: Net) -> None:
    """Also where its slot has waited for it, since it was at another device before."""
    here = host.port("here")
    here.receive(tcp(net.peer, net.here, port=80))
    assert here.drops() == {"closed": 1}
    host.datapath.hold(here.id, Hold.WAITING)
    host.datapath.detach(here.id)
    again = host.port("here")
    assert (again.slot, again.drops()) == (here.slot, {})


def test_a_slot_is_one_vnic_s(host: Host) -> None:
    """Nobody else gets what is reserved, reserving it again changes nothing, and who has been given up has
    none."""
    id = vnic_id("here")
    free = host.datapath.free_slots()
    for _ in range(2):
        host.datapath.reserve(id)
    assert host.datapath.free_slots() == free - 1
    twin = host.port("twin")
    assert twin.slot != host.datapath.places[id]
    assert host.datapath.slots == {twin.id: twin.slot}
    host.datapath.give_up(id)
    assert host.datapath.places == host.datapath.slots
    assert host.datapath.free_slots() == free - 1


def test_o2_what_is_reserved_goes_with_the_daemon(host: Host) -> None:
    """The next one does not know of it, and gives the slot to whoever comes: without the policy, and without
    the addresses, of whom it was for."""
    host.datapath.reserve(vnic_id("here"))
    host.install(["allow"], vnics={"here": "10.0.0.1 spoofguard=manual"})
    host.restart()
    assert host.datapath.places == {}
    twin = host.port("twin")
    assert (twin.slot, host.datapath.closed()) == (0, {twin.id})
    assert twin.receive(tcp("10.0.9.9", "10.0.0.1", port=22)) == dropped("closed")
    assert twin.send(tcp("10.0.0.1", "10.0.9.9", port=22)) == dropped("closed")
    assert twin.send(ARP(hwsrc=twin.mac, psrc="10.0.0.1", pdst="10.0.9.9")) == dropped("spoofed_arp")
