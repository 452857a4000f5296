"""vNICs whose devices were made anew between two looks of the daemon: it sees the same vNICs, by other
numbers, and each has its policy there."""

from collections.abc import Set
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.datapath import Host, Port, dropped, passed
from tests.harness.packets import Net, tcp
from tests.harness.policies import HOST, policy
from vsfwd import reconciler as of_daemon
from vsfwd.datapath import Hold
from vsfwd.reconciler import Reconciler
from vsfwd.statefile import StateFile

RULES = ["allow in service tcp/80", "drop"]
VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}


@pytest.fixture
def reconciler(host: Host, tmp_path: Path) -> Reconciler:
    """Of a host that has its policy already."""
    key = Ed25519PrivateKey.generate().public_key()
    reconciler = Reconciler(HOST, key, host.datapath, StateFile(tmp_path), "1.0")
    reconciler.state = policy(RULES, vnics=VNICS)
    return reconciler


def look(reconciler: Reconciler, *ports: Port, anew: Set[str] = frozenset()) -> None:
    """The daemon sees these devices, in this order."""
    found = [(port.id, f"veth{port.ifindex}", port.ifindex, port.mac) for port in ports]
    reconciler.vnics_changed({each[0]: of_daemon.Port(*each) for each in found}, frozenset(), anew)


@pytest.mark.parametrize("first", ["here", "twin"])
def test_two_vnics_whose_devices_have_changed_numbers_are_open(
    host: Host, net: Net, reconciler: Reconciler, first: str
) -> None:
    """One has the number that the other had, which loses its slot for that and gets the same again, empty."""
    ports = {name: host.port(name) for name in ("here", "twin")}
    numbers = {name: port.ifindex for name, port in ports.items()}
    for here, twin in (("here", "twin"), ("twin", "here")):
        ports["here"].ifindex, ports["twin"].ifindex = numbers[here], numbers[twin]
        look(reconciler, *sorted(ports.values(), key=lambda port: port is not ports[first]))
        for name, port in ports.items():
            port.slot = host.datapath.slots[port.id]
            address = net.here if name == "here" else net.twin
            assert port.receive(tcp(net.peer, address, port=80)).verdict == "pass"
            assert port.receive(tcp(net.peer, address, port=81)) == dropped("rule_drop", 2)


def test_o34_a_vnic_that_has_left_and_is_back_on_another_device_is_open(
    host: Host, net: Net, reconciler: Reconciler
) -> None:
    """Nobody has seen that its device was gone, with which what is frozen ends. Nothing of before is left."""
    here, other = host.port("here"), host.port("twin")
    look(reconciler, here)
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)
    host.datapath.hold(here.id, Hold.FROZEN)
    look(reconciler, here)
    assert here.receive(tcp(net.peer, net.here, port=80)) == dropped("frozen")
    here.ifindex = other.ifindex
    look(reconciler, here)
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)


def test_o34_a_vnic_that_is_back_on_a_device_by_the_same_number_is_open(
    host: Host, net: Net, reconciler: Reconciler
) -> None:
    """What is frozen ended with the device before. Programs that are on this one stay on it all the time."""
    here = host.port("here")
    look(reconciler, here)
    host.datapath.hold(here.id, Hold.FROZEN)
    look(reconciler, here, anew={here.id})
    assert here.receive(tcp(net.peer, net.here, port=80)) == passed(1, new=True)
    host.datapath.forget(here.id)
    assert host.datapath._hooks.attached(here.ifindex)


def test_o35_a_vnic_that_is_to_come_is_held_on_another_device(
    host: Host, net: Net, reconciler: Reconciler
) -> None:
    """Its state may be here already."""
    here, other = host.port("here"), host.port("twin")
    look(reconciler, here)
    host.datapath.hold(here.id, Hold.WAITING)
    here.ifindex = other.ifindex
    look(reconciler, here)
    assert here.receive(tcp(net.peer, net.here, port=80)) == dropped("dead")
