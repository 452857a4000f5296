"""The lab's VMs on real hosts: what `./run demo` shows on namespaces for hosts, for a machine that stays up.

    python -m vagrant.machine.tiers NAME=ADDRESS...

The names and addresses of all hosts; the VMs of the one that has this machine's name are made here, anew at
every start, announced to its vsfwd, and answer until this ends. Tags and the three-tier policy are entered at
the manager by root's settings for vsfwctl.
"""

import dataclasses
import signal
import socket
import ssl
import sys
import tomllib
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from vagrant.lab import demo, layout, network, rest
from vagrant.lab import host as hosts
from vagrant.lab.layout import Host, Layout, Vm
from vagrant.lab.probe import Protocol, Servers
from vagrant.lab.spec import parse
from vagrant.lab.waiting import wait_until
from vsfwd.daemon import notify

NAME: Final = "tiers"
SETTINGS: Final = Path.home() / ".config/vsfwctl/manager.toml"
_NAMESPACE: Final = uuid.UUID("6f1d6a0c-7c0a-4c4c-9e39-5f0d6a1b7a52")
"""VMs and vNICs are the same after every boot."""


def plan(addresses: dict[str, str]) -> Layout:
    """The demo's VMs: all on one host if there is one only."""
    names = list(addresses)
    vms = [vm if len(names) > 1 else vm.replace("@host2", "@host1") for vm in demo.VMS]
    planned = layout.plan(NAME, 0, parse(hosts=len(names), vms=vms))
    return dataclasses.replace(
        planned,
        hosts=tuple(
            Host(name=name, namespace="", address=addresses[name], directory=Path("/run/vsfwd"))
            for name in names
        ),
        vms=tuple(
            dataclasses.replace(vm, id=_id("vm", vm.name), vnic=_id("vnic", vm.name)) for vm in planned.vms
        ),
    )


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{kind} {name}"))


def manager() -> httpx.Client:
    said = tomllib.loads(SETTINGS.read_text())
    return httpx.Client(
        base_url=said["manager"],
        auth=(said["user"], said["password"]),
        verify=ssl.create_default_context(cafile=said["ca"]),
        timeout=60.0,
        trust_env=False,
    )


def build(planned: Layout, here: Host) -> list[Vm]:
    """Segment and VMs of this host, plugged; what was left of the last time is removed first."""
    vms = [vm for vm in planned.vms if vm.host == here.name]
    network.remove(NAME)
    network.leave(planned, here)
    network.join(planned, here)
    for vm in vms:
        network.build_vm(planned, vm)
        hosts.announce(here, vm, hosts.guest(vm))
        network.plug(planned, vm)
    return vms


def enter_policy(client: httpx.Client, planned: Layout, here: Host) -> None:
    """Once: the first host does it, the others wait. Before the VMs: those are on a segment."""
    policy = demo.policy()
    if here == planned.hosts[0]:
        rest.enter_policy(client, planned)
        for path, body in policy.items():
            rest.put(client, path, body)
    else:
        last = f"{rest.INFRA}/{[*policy][-1]}"
        wait_until(lambda: client.get(last).is_success, "the policy", timeout_s=300.0)


def is_enforced(client: httpx.Client, here: Host, vms: list[Vm]) -> bool:
    """On every VM, and it is what the manager wants."""
    known = client.get("/api/v1/vsfw/hosts").raise_for_status().json()["results"]
    in_sync = any(host["in_sync"] for host in known if host["display_name"] == here.name)
    return in_sync and hosts.are_open(here, {vm.vnic for vm in vms})


def main(arguments: list[str]) -> None:
    planned = plan(dict(each.split("=", 1) for each in arguments))
    here = planned.host(socket.gethostname())
    wait_until(lambda: hosts.answers(here), "vsfwd answers", timeout_s=300.0)
    with manager() as client:
        enter_policy(client, planned, here)
        vms = build(planned, here)
        for vm in vms:
            rest.complete_vm(client, vm)
        wait_until(lambda: is_enforced(client, here, vms), "the policy of the VMs in force", timeout_s=300.0)
    with ExitStack() as servers:
        for vm in vms:
            ports = {
                kind: [each.port for each in demo.SERVICES if each.protocol is kind]
                for kind in (Protocol.TCP, Protocol.UDP)
            }
            servers.enter_context(Servers(vm.namespace, ports[Protocol.TCP], ports[Protocol.UDP]))
        notify("READY=1")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1:])
