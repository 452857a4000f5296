"""A VM moves from host to host while it runs, as a hypervisor would do it: its memory, here its network
namespace, stays the same, and the port it hangs on becomes another host's.

The order is what counts. Nothing is in a bridge, or up, from before the VM leaves one host until the other
enforces its policy there; where that cannot be, the VM goes back to where it was.
"""

import functools

from vagrant.lab import host as hosts
from vagrant.lab import layout as layouts
from vagrant.lab import network
from vagrant.lab.layout import Layout, Vm
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until

PATIENCE_S = 30.0
"""For the VM's policy at its new host."""


def migrate(layout: Layout, vm: Vm, host: str) -> Layout:
    """What the lab is afterwards. Raises LabError, and all is as before."""
    if vm.host == host:
        raise LabError(f"VM {vm.name} is on {host} already")
    there = layouts.moved(layout, vm, host)
    arrived = next(each for each in there.vms if each.id == vm.id)
    network.carry(layout, vm, host)
    try:
        _take_over(there, vm.host, arrived)
    except BaseException:
        network.carry(there, arrived, vm.host)
        _take_over(layout, host, vm)
        network.plug(layout, vm)
        raise
    network.plug(there, arrived)
    network.redirect(there, arrived)
    return there


def _take_over(layout: Layout, before: str, vm: Vm) -> None:
    """The port is there, and down: it becomes the vNIC of its host, with its policy."""
    host = layout.host(vm.host)
    hosts.announce(host, vm, hosts.guest(vm))
    hosts.withdraw(layout.host(before), vm)
    wait_until(
        functools.partial(hosts.are_open, host, {vm.vnic}), f"policy for {vm.name} on {host.name}", PATIENCE_S
    )
