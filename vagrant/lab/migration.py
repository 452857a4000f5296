"""A VM moves from host to host while it runs, as a hypervisor would do it: its memory, here its network
namespace, stays the same, and the port it hangs on becomes another host's.

    manager   may it move? The target has its policy, and what it takes along so far
    source    freeze: nothing passes any more, and the rest of what it takes along follows
              the port leaves, down and in no bridge
    target    the port is up and in the bridge, and the VM says where it is; nothing passes: vsfwd recognises
              the vNIC that it was told of, and until its programs are there the port guard is in the way
              what it takes along is there: now all that its policy allows passes

Where that cannot be, the VM goes back to where it was.
"""

import functools
import time
from typing import Any, Final

import httpx

from vagrant.lab import host as hosts
from vagrant.lab import layout as layouts
from vagrant.lab import network, rest
from vagrant.lab.layout import Layout, Vm
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until

PATH: Final = "/api/v1/vsfw/migrations"
PATIENCE_S: Final = 30.0
"""For each step."""
EVERY_S: Final = 0.01
"""The manager is asked how far it is."""


def migrate(layout: Layout, manager: httpx.Client, vm: Vm, host: str) -> tuple[Layout, dict[str, Any]]:
    """With all that it takes along: what the lab is afterwards, and the manager's record of the move. Raises
    LabError, and all is as before."""
    source, target = layout.host(vm.host), layout.host(host)
    there, arrived = _moved(layout, vm, host)
    path = f"{PATH}/{rest.request(manager, 'POST', PATH, {'vm': vm.id, 'target': target.id})['id']}"
    try:
        hosts.announce(target, arrived, hosts.guest(arrived))
        hosts.freeze(source, vm)
        network.carry(layout, vm, host)
        try:
            network.plug(there, arrived)
            network.redirect(there, arrived)
            with network.announcing(arrived):
                hosts.announce(target, arrived, hosts.guest(arrived))
                move = _active(manager, path)
        except BaseException:
            network.carry(there, arrived, vm.host)
            raise
    except BaseException:
        manager.delete(path)
        hosts.withdraw(target, arrived)
        hosts.announce(source, vm, hosts.guest(vm))
        network.plug(layout, vm)
        raise
    hosts.withdraw(source, vm)
    hosts.take_off(source, vm, target.namespace)
    return there, move


def _active(manager: httpx.Client, path: str) -> dict[str, Any]:
    """The record, when the VM runs at its target. Raises LabError when it never will."""
    deadline = time.monotonic() + PATIENCE_S
    while (move := rest.request(manager, "GET", path))["state"] != "active":
        if move["state"] in ("aborted", "failed") or time.monotonic() > deadline:
            raise LabError(f"the move of {move['vm']['display_name']} is {move['state']}: {move['reason']}")
        time.sleep(EVERY_S)
    return dict(move)


def migrate_unannounced(layout: Layout, vm: Vm, host: str) -> Layout:
    """By nobody's leave, with its policy and nothing else."""
    there, arrived = _moved(layout, vm, host)
    network.carry(layout, vm, host)
    try:
        _take_over(there, vm.host, arrived)
    except BaseException:
        network.carry(there, arrived, vm.host)
        _take_over(layout, host, vm)
        network.plug(layout, vm)
        raise
    go_on(there, arrived)
    hosts.take_off(layout.host(vm.host), vm, there.host(host).namespace)
    return there


def go_on(layout: Layout, vm: Vm) -> None:
    """Its port is on its host: up, in the bridge, and the others are told."""
    network.plug(layout, vm)
    network.redirect(layout, vm)
    with network.announcing(vm):
        pass


def _moved(layout: Layout, vm: Vm, host: str) -> tuple[Layout, Vm]:
    if vm.host == host:
        raise LabError(f"VM {vm.name} is on {host} already")
    there = layouts.moved(layout, vm, host)
    return there, next(each for each in there.vms if each.id == vm.id)


def _take_over(layout: Layout, before: str, vm: Vm) -> None:
    """The port is there, and down: it becomes the vNIC of its host, with its policy."""
    host = layout.host(vm.host)
    hosts.announce(host, vm, hosts.guest(vm))
    hosts.withdraw(layout.host(before), vm)
    wait_until(
        functools.partial(hosts.are_open, host, {vm.vnic}), f"policy for {vm.name} on {host.name}", PATIENCE_S
    )
