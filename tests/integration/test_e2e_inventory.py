"""What a host says of its VMs decides what they may do: from the announcement of a vNIC to the packet that
passes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.harness.lab import World, allow
from vagrant.lab import host as hosts
from vagrant.lab.probe import Seen
from vagrant.lab.rest import request
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED
INVENTORY = "/api/v1/vsfw"
GROUP = "domains/default/groups/guests"


def says(world: World, vm: str, **guest: str) -> None:
    """Its host announces the VM anew; returns when that is in force everywhere."""
    there = world.vm(vm)
    said = replace(hosts.guest(there), **guest)
    hosts.announce(world.lab.host(there.host), there, said)
    path = f"{INVENTORY}/vms/{there.id}"

    def heard() -> bool:
        shown = request(world.lab.rest, "GET", path)
        return (shown["display_name"], shown["os_name"]) == (said.name, said.os_name)

    wait_until(heard, f"the manager to hear of {vm}")
    world.lab.wait_applied()


@pytest.fixture
def guests(world: World) -> Iterator[World]:
    """A group of guests that are Plan 9, or called plan*, or tagged with both of two tags, may speak to c."""

    def asked(key: str, operator: str, value: str) -> dict[str, Any]:
        said = {"member_type": "VirtualMachine", "key": key, "operator": operator, "value": value}
        return {"resource_type": "Condition", **said}

    either, both = (
        {"resource_type": "ConjunctionOperator", "conjunction_operator": op} for op in ("OR", "AND")
    )
    tagged = [asked("Tag", "EQUALS", "os|plan"), both, asked("Tag", "STARTSWITH", "release|4")]
    expression = [
        asked("OSName", "MATCHES", "plan [0-9]+"),
        either,
        asked("Name", "STARTSWITH", "plan"),
        either,
        {"resource_type": "NestedExpression", "expressions": tagged},
    ]
    world.lab.publish({GROUP: {"expression": expression}})
    world.enforce({**allow("a", "c", "tcp/80"), "source_groups": [f"/infra/{GROUP}"]})
    yield world
    says(world, "a")
    world.reset()
    request(world.lab.rest, "DELETE", f"/policy/api/v1/infra/{GROUP}")


def seen(world: World) -> Seen:
    return world.seen_all(("a", "c", "tcp/80"))[0]


@pytest.mark.slow
def test_a_vm_that_is_renamed_reinstalled_or_retagged_moves_into_a_group(guests: World) -> None:
    """By its name, its operating system, its tags; each time in and out again, and the verdict with it."""
    assert seen(guests) is DROPPED
    says(guests, "a", name="plan-b")
    assert seen(guests) is ALLOWED
    says(guests, "a", os_name="Plan 10")
    assert seen(guests) is ALLOWED
    says(guests, "a")
    assert seen(guests) is DROPPED
    guests.lab.set_tags("a", "os|plan", "release|4th")
    assert seen(guests) is ALLOWED
    guests.lab.set_tags("a", "os|plan")
    assert seen(guests) is DROPPED
    assert guests.seen("b", "c", "tcp/80") is DROPPED


def test_the_inventory_is_what_hosts_reported(world: World) -> None:
    """Name, operating system, power state, segment and MAC address of every VM: nobody typed them."""
    for vm in world.lab.layout.vms:
        shown = request(world.lab.rest, "GET", f"{INVENTORY}/vms/{vm.id}")
        assert (shown["display_name"], shown["power_state"]) == (vm.name, "VM_RUNNING")
        assert shown["os_name"] == hosts.guest(vm).os_name
        (card,) = shown["vnics"]
        assert (card["mac"], card["segment_path"]) == (vm.mac, f"/infra/segments/{vm.segment}")
