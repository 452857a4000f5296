"""Namespaces, bridges and VXLAN of a lab, without firewall: who can reach whom, and that nothing stays."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lab import name_of, without_firewall
from vagrant.lab import layout as layouts
from vagrant.lab import network
from vagrant.lab.layout import Layout, Vm
from vagrant.lab.processes import recall, spawn
from vagrant.lab.spec import parse


@pytest.fixture(scope="module")
def net() -> Iterator[Layout]:
    """Two hosts, two segments: a and b share a host, c is across, x and y are on another segment."""
    vms = ["a@host1", "b@host1", "c@host2", "x@host1+blue", "y@host2+blue"]
    with without_firewall(name_of("net"), parse(vms=vms, segments=["blue=77"])) as layout:
        yield layout


def vm(layout: Layout, name: str) -> Vm:
    return next(vm for vm in layout.vms if vm.name == name)


def ping(layout: Layout, source: str, address: str, *options: str) -> bool:
    """One echo; the search for its neighbour is repeated after a second, and the echo waits for that."""
    argv = ["ip", "netns", "exec", vm(layout, source).namespace, "ping", "-c1", "-W5", *options, address]
    return subprocess.run(argv, capture_output=True).returncode == 0


@pytest.mark.parametrize(("source", "destination"), [("a", "b"), ("a", "c"), ("c", "b"), ("x", "y")])
def test_vms_of_a_segment_reach_each_other(net: Layout, source: str, destination: str) -> None:
    """On one host and across hosts, IPv4 and IPv6, from the first packet on (no duplicate address
    detection)."""
    assert ping(net, source, vm(net, destination).v4)
    assert ping(net, source, vm(net, destination).v6)


def test_a_full_frame_crosses_hosts(net: Layout) -> None:
    """1500 bytes, not fragmented: the fabric has room for the VXLAN header."""
    assert ping(net, "a", vm(net, "c").v4, "-M", "do", "-s", "1472")


def test_segments_are_apart(net: Layout) -> None:
    """An address of another segment is not found, though its VM sits on the same host."""
    argv = ["ip", "-n", vm(net, "a").namespace, "route", "add", "10.20.1.0/24", "dev", "eth0"]
    subprocess.run(argv, check=True)
    assert not ping(net, "a", vm(net, "x").v4, "-W1")


def test_a_host_has_no_address_among_its_vms(net: Layout) -> None:
    """Bridges, VXLAN devices and the host ends of veths carry none, not even a link-local one."""
    show = subprocess.run(["ip", "-n", net.hosts[0].namespace, "-br", "addr"], capture_output=True, text=True)
    addressed = {
        line.split()[0].partition("@")[0] for line in show.stdout.splitlines() if len(line.split()) > 2
    }
    assert addressed == {"lo", "uplink"}


def test_two_labs_stand_side_by_side(net: Layout) -> None:
    """Another name, another number; removing one leaves the other."""
    other = name_of("other")
    try:
        number = network.claim_number(other)
        assert number != net.number
    finally:
        network.remove(other)
    assert network.found(other) == []
    assert not Path(f"/sys/class/net/vsfw{number}").exists()
    assert ping(net, "a", vm(net, "c").v4)


def test_remove_takes_everything(tmp_path: Path) -> None:
    """Whatever a killed run left, without any memory of it: half a lab, a stray process in it, an empty
    file."""
    name = name_of("gone")
    try:
        number = network.claim_number(name)
        pid_file = tmp_path / "pid"
        spawn(["sleep", "300"], pid_file=pid_file, log=tmp_path / "log", namespace=f"vsfw-{name}-mgmt")
        Path(f"/run/netns/vsfw-{name}-vm-half").touch()
    finally:
        network.remove(name)
    process = recall(pid_file)
    assert process is not None
    assert not process.alive()
    assert network.found(name) == []
    assert not Path(f"/sys/class/net/vsfw{number}").exists()


def test_a_failed_command_is_named() -> None:
    """The error says what was asked of which namespace and what the kernel answered."""
    with pytest.raises(network.NetworkError, match="vsfw-nowhere-mgmt"):
        network.build_fabric(layouts.plan("nowhere", 0, parse()))
