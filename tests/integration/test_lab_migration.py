"""A VM of a lab changes its host, without firewall: its TCP connections live on, over VXLAN and over a bridge
between the hosts."""

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.harness.lab import name_of, without_firewall
from vagrant.lab import layout as layouts
from vagrant.lab import migration, network
from vagrant.lab.layout import Layout, Vm
from vagrant.lab.probe import Servers, connect
from vagrant.lab.spec import Transport, parse

PATIENCE_S = 10.0
"""TCP says again what was lost meanwhile, the first time after 0.2 s."""


@pytest.fixture(params=list(Transport))
def net(request: pytest.FixtureRequest) -> Iterator[Layout]:
    """Three VMs on two hosts: `near` shares the mover's host, `far` is where it will go."""
    vms = ["mover@host1", "near@host1", "far@host2"]
    with without_firewall(name_of("move"), parse(vms=vms, transport=request.param)) as layout:
        yield layout


def vm(layout: Layout, name: str) -> Vm:
    return next(vm for vm in layout.vms if vm.name == name)


def move(layout: Layout, host: str) -> Layout:
    """The mover goes there, and the network knows."""
    mover = vm(layout, "mover")
    network.carry(layout, mover, host)
    moved = layouts.moved(layout, mover, host)
    migration.go_on(moved, vm(moved, "mover"))
    return moved


def echoed(session: socket.socket, text: bytes) -> bool:
    session.sendall(text)
    return session.recv(64) == text


def test_connections_of_a_vm_that_moves_live_on(net: Layout) -> None:
    """To and from VMs of both hosts, there and back again; its own sockets and those of its peers are
    the same all the time."""
    mover = vm(net, "mover")
    with Servers(mover.namespace, [80]), Servers(vm(net, "far").namespace, [80]):
        sessions = [
            connect(vm(net, "near").namespace, mover.v4, 80, PATIENCE_S),
            connect(vm(net, "far").namespace, mover.v6, 80, PATIENCE_S),
            connect(mover.namespace, vm(net, "far").v4, 80, PATIENCE_S),
        ]
        try:
            for host in ("host2", "host1", "host2"):
                net = move(net, host)
                assert all(echoed(session, host.encode()) for session in sessions)
        finally:
            for session in sessions:
                session.close()


def test_the_port_is_down_and_nowhere_until_it_is_plugged(net: Layout) -> None:
    """At the other host nothing can pass before somebody says so. What it is called it takes along, and
    filters of a qdisc it does not: whoever relied on them would have none."""
    mover = vm(net, "mover")
    source, target = (host.namespace for host in net.hosts)
    for command in (
        ["ip", "-n", source, "link", "set", mover.device, "alias", "vsfwd:it"],
        ["tc", "-n", source, "qdisc", "add", "dev", mover.device, "clsact"],
    ):
        subprocess.run(command, check=True)
    network.carry(net, mover, "host2")
    show = ["ip", "-n", target, "-json", "link", "show", mover.device]
    link = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)[0]
    assert "master" not in link
    assert "UP" not in link["flags"]
    assert link["ifalias"] == "vsfwd:it"
    qdiscs = ["tc", "-n", target, "qdisc", "show", "dev", mover.device]
    assert "clsact" not in subprocess.run(qdiscs, capture_output=True, text=True, check=True).stdout
