"""SpoofGuard and IP discovery, from a workload's first word to the packet that passes. Row X33 of the
attack catalogue."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.harness.lab import World, allow
from tests.integration.test_e2e_policy import send_frames
from vagrant.lab.layout import Vm
from vagrant.lab.probe import Seen
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

VMS = "/api/v1/vsfw/vms"
ADDRESSES = "/api/v1/vsfw/addresses"


def ip(vm: Vm, *words: str) -> None:
    subprocess.run(["ip", "-n", vm.namespace, *words], check=True, capture_output=True)


@contextmanager
def typed(world: World, vm: Vm, **fields: Any) -> Iterator[None]:
    """The VM's vNIC with other fields for a while."""
    path = f"{VMS}/{vm.id}"
    before = world.lab.rest.get(path).raise_for_status().json()["vnics"]
    try:
        _put(world, path, [{**before[0], **fields}])
        yield
    finally:
        _put(world, path, before)


def _put(world: World, path: str, vnics: list[dict[str, Any]]) -> None:
    body = world.lab.rest.get(path).raise_for_status().json()
    kept = {field: body[field] for field in ("display_name", "tags")}
    world.lab.rest.put(path, json={**kept, "vnics": vnics}).raise_for_status()
    world.lab.wait_applied()


def tentative(vm: Vm) -> bool:
    shown = subprocess.run(
        ["ip", "-n", vm.namespace, "address", "show", "tentative"], check=True, capture_output=True, text=True
    )
    return bool(shown.stdout)


def detects_duplicates(vm: Vm, on: int) -> None:
    """The lab's VMs do without, to come up faster."""
    command = ["sysctl", "-q", "-w", f"net.ipv6.conf.eth0.accept_dad={on}"]
    subprocess.run(["ip", "netns", "exec", vm.namespace, *command], check=True)


@contextmanager
def moved(vm: Vm, family: int, last: int) -> Iterator[str]:
    """The VM gives itself another address of its network, and speaks from that."""
    own = vm.v4 if family == 4 else vm.v6
    network = own.rpartition("." if family == 4 else ":")[0]
    other = f"{network}.{last}" if family == 4 else f"{network}:{last}"
    length, flags = ("24", []) if family == 4 else ("64", ["nodad"])
    detects_duplicates(vm, 1)
    ip(vm, "address", "del", f"{own}/{length}", "dev", "eth0")
    ip(vm, "address", "add", f"{other}/{length}", "dev", "eth0")
    wait_until(lambda: not tentative(vm), "duplicate address detection")
    try:
        yield other
    finally:
        detects_duplicates(vm, 0)
        ip(vm, "address", "del", f"{other}/{length}", "dev", "eth0")
        ip(vm, "address", "add", f"{own}/{length}", "dev", "eth0", *flags)


def claim(world: World, vm: Vm, address: str) -> dict[str, Any] | None:
    """What the manager knows of the VM and this address."""
    answer = world.lab.rest.get(ADDRESSES, params={"vnic": vm.vnic}).raise_for_status().json()
    return next((each for each in answer["results"] if each["address"] == address), None)


def decide(world: World, vm: Vm, address: str, action: str) -> None:
    named = {"vnic": vm.vnic, "address": address}
    world.lab.rest.post(ADDRESSES, params={"action": action}, json=named).raise_for_status()
    world.lab.wait_applied()


@pytest.mark.parametrize("family", [4, 6])
def test_x33_a_vm_that_changes_its_address_is_cut_until_approved(world: World, family: int) -> None:
    """Manual: cut, seen, waiting; approved, it passes as a member of its groups; revoked, it is cut."""
    a = world.vm("a")
    world.enforce(allow("a", "c", "tcp/80"))
    with typed(world, a, spoofguard="MANUAL"):
        assert world.seen("a", "c", "tcp/80", family) is Seen.ALLOWED
        with moved(a, family, 250) as other:
            assert world.seen("a", "c", "tcp/80", family) is Seen.DROPPED
            wait_until(lambda: claim(world, a, other) is not None, "the manager hears of the address")
            found = claim(world, a, other)
            assert found is not None
            assert (found["state"], found["source"]) == ("WAITING", "ARP" if family == 4 else "ND")
            decide(world, a, other, "approve")
            # What a has asked meanwhile was cut, and its kernel waits a second before it asks again who c is.
            wait_until(lambda: world.seen("a", "c", "tcp/80", family) is Seen.ALLOWED, "approved, it passes")
            decide(world, a, other, "revoke")
            assert world.seen("a", "c", "tcp/80", family) is Seen.DROPPED
            decide(world, a, other, "forget")
        assert world.seen("a", "c", "tcp/80", family) is Seen.ALLOWED


@pytest.mark.parametrize("family", [4, 6])
def test_x33_a_vm_without_typed_addresses_is_known_by_its_first(world: World, family: int) -> None:
    """Trust on first use: nothing is typed, the first address it speaks from enters its groups."""
    a = world.vm("a")
    world.enforce(allow("a", "c", "tcp/80"))
    with typed(world, a, spoofguard="TOFU", addresses=[]):
        world.seen("a", "c", "tcp/80", family)  # its first word, which may be too early to pass
        own = a.v4 if family == 4 else a.v6
        wait_until(lambda: claim(world, a, own) is not None, "the manager hears of the address")
        world.lab.wait_applied()
        assert world.seen("a", "c", "tcp/80", family) is Seen.ALLOWED
        with moved(a, family, 251) as other:
            assert world.seen("a", "c", "tcp/80", family) is Seen.DROPPED
            wait_until(lambda: claim(world, a, other) is not None, "the manager hears of the other")
            decide(world, a, other, "forget")
        decide(world, a, own, "forget")


def vsfwctl(world: World, vm: Vm, *words: str) -> Any:
    """What the VM's host says."""
    (socket,) = (host.socket for host in world.lab.layout.hosts if host.name == vm.host)
    command = [sys.executable, "-m", "vsfwd.ctl", "--socket", str(socket), *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def alarms(world: World, vm: Vm) -> list[tuple[str, str]]:
    return [
        (alarm["event_type"], alarm["description"])
        for alarm in vsfwctl(world, vm, "status")["alarms"]
        if alarm["entity"] == vm.vnic
    ]


def test_x33_a_vm_does_not_take_anothers_address(world: World) -> None:
    """b is seen with the address of a: refused, with the owner's name, an alarm at its host, and a keeps its
    groups. Forgotten at the manager, the claim is forgotten at the host, too."""
    a, b = world.vm("a"), world.vm("b")
    world.enforce(allow("a", "c", "tcp/80"))
    # To a MAC address nobody has, so that no cache is poisoned: b has no SpoofGuard.
    announcement = Ether(src=b.mac, dst="02:00:00:00:ff:fe") / ARP(hwsrc=b.mac, psrc=a.v4, pdst=a.v4)
    send_frames(b.namespace, [bytes(announcement)])
    wait_until(lambda: claim(world, b, a.v4) is not None, "the manager hears of the claim")
    found = claim(world, b, a.v4)
    assert found is not None
    assert (found["state"], a.vnic in found["reason"]) == ("REFUSED", True)
    assert world.seen("a", "c", "tcp/80") is Seen.ALLOWED
    duplicate = ("duplicate_ip_address", f"it was seen with {a.v4} of a")
    wait_until(lambda: duplicate in alarms(world, b), "the alarm", timeout_s=20)
    decide(world, b, a.v4, "forget")

    def remembered() -> bool:
        return a.v4 in [row["address"] for row in vsfwctl(world, b, "addresses", "--vnic", b.vnic)]

    wait_until(lambda: not remembered(), "the host forgets it")
    assert claim(world, b, a.v4) is None
