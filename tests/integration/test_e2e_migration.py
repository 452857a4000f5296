"""A VM moves between hosts that have a firewall: what its policy forbids never passes, before, while and
after; what it allows passes again."""

import functools
from collections.abc import Iterator

import pytest

from tests.harness.lab import World, allow
from tests.harness.traffic import Stream
from vagrant.lab import host as hosts
from vagrant.lab.probe import Seen, connect
from vagrant.lab.waiting import wait_until

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


@pytest.fixture
def at_home(world: World) -> Iterator[World]:
    """Every VM is on its host again afterwards."""
    homes = {vm.name: vm.host for vm in world.lab.layout.vms}
    yield world
    for vm in world.lab.layout.vms:
        if vm.host != homes[vm.name]:
            world.lab.migrate(vm.name, homes[vm.name])


@pytest.mark.slow
def test_a_vm_that_moves_keeps_its_policy(at_home: World) -> None:
    """There and back under traffic that begins a new flow with each datagram: of what is forbidden nothing
    arrives, what is allowed arrives again, from the old host and from the new one, and the manager knows
    where the VM is."""
    world = at_home
    world.enforce(allow("a", "c", "udp/7000", "tcp/80"), allow("c", "d", "tcp/80"))
    with (
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "d", "c", 7001, fresh=True) as forbidden,
    ):
        for host in ("host1", "host2"):
            world.lab.migrate("c", host)
            before = len(allowed.received)
            wait_until(lambda before=before: len(allowed.received) > before, "datagrams")  # type: ignore[misc]
            forbidden.flowing()
            assert world.seen_all(("a", "c", "tcp/80"), ("c", "d", "tcp/80")) == [ALLOWED, ALLOWED]
            assert world.seen_all(("b", "c", "tcp/80"), ("c", "d", "tcp/81")) == [DROPPED, DROPPED]
            assert host_at_manager(world, "c") == world.lab.host(host).id
    assert not forbidden.received


@pytest.mark.slow
def test_the_old_host_forgets_a_vm_that_has_moved(at_home: World) -> None:
    """Nothing of its vNIC is left there: no port, and with it no flow."""
    world = at_home
    world.enforce(allow("a", "c", "tcp/80"))
    with connect(world.vm("a").namespace, world.address("c"), 80):
        world.lab.migrate("c", "host1")
        old, vnic = world.lab.host("host2"), world.vm("c").vnic
        wait_until(lambda: not hosts.are_open(old, {vnic}), "the old host to let go")
        ask = functools.partial(hosts.status, old)
        wait_until(lambda: vnic not in {each.vnic for each in ask().vnics}, "the vNIC to go")


def host_at_manager(world: World, vm: str) -> str:
    """Where the manager has a VM's vNIC."""
    answer = world.lab.rest.get("/api/v1/fabric/vifs", params={"owner_vm_id": world.vm(vm).id})
    (vif,) = answer.raise_for_status().json()["results"]
    return str(vif["host_id"])
