"""The names and addresses of a lab: unique, short enough for the kernel, the same after a trip through the
disk."""

import ipaddress
import os
from pathlib import Path

import pytest

from vagrant.lab import layout as layouts
from vagrant.lab import state
from vagrant.lab.broker import Tls
from vagrant.lab.layout import PINS, Layout, plan
from vagrant.lab.processes import Process, living
from vagrant.lab.spec import MAX_HOSTS, MAX_SEGMENTS, MAX_VMS, parse
from vagrant.lab.state import Access, State


def largest() -> Layout:
    """As many of everything as there can be, with the longest names."""
    segments = [f"segment-{number:04}" for number in range(MAX_SEGMENTS - 1)]
    vms = [f"machine-{number:06}+{segments[number % len(segments)]}" for number in range(MAX_VMS)]
    vnis = [f"{name}={number + 1}" for number, name in enumerate(segments)]
    return plan("largest", 254, parse(hosts=MAX_HOSTS, vms=vms, segments=vnis))


def test_addresses_are_addresses_and_unique() -> None:
    """MAC, IPv4, IPv6 of VMs; IPv4 of hosts, management and the root namespace; ids."""
    lab = largest()
    vms = [vm.v4 for vm in lab.vms] + [vm.v6 for vm in lab.vms]
    fabric = [host.address for host in lab.hosts] + [lab.mgmt_address, lab.root_address]
    for texts in (
        vms,
        fabric,
        [vm.mac for vm in lab.vms],
        [vm.id for vm in lab.vms] + [vm.vnic for vm in lab.vms],
    ):
        assert len(set(texts)) == len(texts)
    assert all(str(ipaddress.ip_address(text)) == text for text in vms + fabric)
    assert all(ipaddress.ip_address(text) in ipaddress.ip_network("198.18.254.0/24") for text in fabric)


def test_names_of_devices_fit_the_kernel() -> None:
    """15 characters; each device once a host, whatever VMs and segments are called."""
    lab = largest()
    odd = plan("lab", 0, parse(vms=["x-default", "r-default", "uplink"]))
    assert not {vm.device for vm in odd.vms} & {"uplink", "lo", "br-default", "ov-default"}
    ports = [f"h-{host.name}" for host in lab.hosts]
    devices = [vm.device for vm in lab.vms]
    bridges = [f"br-{segment.name}" for segment in lab.segments] + [
        f"ov-{segment.name}" for segment in lab.segments
    ]
    assert max(map(len, ports + devices + bridges)) <= 15
    assert len(set(devices + bridges)) == len(devices + bridges)


def test_pins_are_named_after_lab_and_host() -> None:
    """So that what a killed run pinned is found without asking anybody."""
    assert plan("lab", 0, parse()).hosts[0].pins == PINS / "vsfw-lab-host-host1"


def test_the_state_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, and for nobody else to read."""
    monkeypatch.setattr(layouts, "RUN", tmp_path)
    vms = ["web@host2#tier|web"]
    lab = plan("lab", 3, parse(vms=vms, clusters=["c=host1"], datacenters=["d=c"]))
    lab.directory.mkdir()
    tls = Tls(Path("/ca"), Path("/certificate"), Path("/key"))
    written = State(lab, Process(1, 2), Access("https://x", Path("/ca"), "user", "word", tls, "other"))
    state.save(written)
    assert state.load("lab") == written
    assert state.load("another") is None
    assert (lab.directory / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_lab_is_up_while_its_owner_lives() -> None:
    """Or when nobody owns it; the leftovers of a killed run have an owner who is dead."""
    lab = plan("lab", 0, parse())
    ours = living(os.getpid())
    assert ours is not None
    assert State(lab, None).up()
    assert State(lab, ours).up()
    assert not State(lab, Process(ours.pid, ours.started - 1)).up()


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever builds or removes a lab keeps others of its name out meanwhile."""
    monkeypatch.setattr(layouts, "RUN", tmp_path)
    with state.locked("lab"):
        with pytest.raises(state.LabError, match="another process"), state.locked("lab"):
            pass
        with state.locked("other"):
            pass
    with state.locked("lab"):
        pass
