"""vNICs whose devices were made anew between two looks of the daemon: it sees the same vNICs, by other
numbers, and each has its policy there."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.datapath import Host, dropped
from tests.harness.packets import Net, tcp
from tests.harness.policies import HOST, policy
from vsfwd import reconciler as reconciler_module
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


@pytest.mark.parametrize("first", ["here", "twin"])
def test_two_vnics_whose_devices_have_changed_numbers_are_open(
    host: Host, net: Net, reconciler: Reconciler, first: str
) -> None:
    """One has the number that the other had, which loses its slot for that and gets the same again, empty."""
    ports = {name: host.port(name) for name in ("here", "twin")}
    numbers = {name: port.ifindex for name, port in ports.items()}
    for here, twin in (("here", "twin"), ("twin", "here")):
        ports["here"].ifindex, ports["twin"].ifindex = numbers[here], numbers[twin]
        order = sorted(ports, key=lambda name: name != first)
        found = [(ports[name].id, ports[name].ifindex, ports[name].mac) for name in order]
        reconciler.vnics_changed(
            {id: reconciler_module.Port(id, f"veth{ifindex}", ifindex, mac) for id, ifindex, mac in found}
        )
        for name, port in ports.items():
            port.slot = host.datapath.slots[port.id]
            address = net.here if name == "here" else net.twin
            assert port.receive(tcp(net.peer, address, port=80)).verdict == "pass"
            assert port.receive(tcp(net.peer, address, port=81)) == dropped("rule_drop", 2)
