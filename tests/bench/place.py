"""Where traffic runs: the lab's own namespaces, bridges and VXLAN, without its daemons, manager and
broker."""

import dataclasses
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.bench.kernel import run
from tests.bench.nft import bridge_netfilter
from tests.bench.policy import CLIENT, FAR, FLOODER, LAB, NEAR, SINK, SPEC
from vagrant.lab import layout, network
from vagrant.lab.layout import Vm
from vagrant.lab.processes import in_namespace
from vagrant.lab.waiting import wait_until


@dataclass(frozen=True)
class Place:
    """Two VMs and what lies between them. `hosts`: namespaces, each with the VMs of it that firewalls are put
    on."""

    name: str
    client: Vm
    server: Vm
    others: tuple[Vm, ...] = ()

    @property
    def hosts(self) -> dict[str, tuple[Vm, ...]]:
        vms = (self.client, self.server, *self.others)
        return {
            host.namespace: tuple(vm for vm in vms if vm.host == host.name)
            for host in LAB.hosts
            if any(vm.host == host.name for vm in vms)
        }


ONE_HOST: Final = Place("one host", CLIENT, NEAR)
FLOODED: Final = Place("one host", CLIENT, NEAR, (FLOODER, SINK))
TWO_HOSTS: Final = Place("two hosts, VXLAN", CLIENT, FAR)


CONGESTION_CONTROL: Final = "reno"
"""Every kernel allows it in every namespace; one that paces would measure its own timers."""


@contextmanager
def lab() -> Iterator[None]:
    """The lab of both places. `kernel.alone` removes what is left of one that was not ended."""
    try:
        _build()
        yield
    finally:
        network.remove(LAB.name)


def _build() -> None:
    number = network.claim_number(LAB.name)
    built = dataclasses.replace(LAB, number=number, hosts=layout.plan(LAB.name, number, SPEC).hosts)
    network.build_fabric(built)
    for host in built.hosts:
        network.build_host(built, host)
    for vm in built.vms:
        network.build_vm(built, vm)
        network.plug(built, vm)
        run(vm.namespace, ["sysctl", "-qw", f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}"])
    for namespace in (built.mgmt, *(host.namespace for host in built.hosts)):
        bridge_netfilter(namespace, False)
    network.wait_reachable(built)
    for place in (ONE_HOST, TWO_HOSTS):
        _await_path(place)


def _await_path(place: Place) -> None:
    ping = in_namespace(place.client.namespace, ["ping", "-c", "1", "-W", "1", place.server.v4])
    wait_until(
        lambda: subprocess.run(ping, capture_output=True).returncode == 0, f"a way to {place.server.name}", 20
    )
