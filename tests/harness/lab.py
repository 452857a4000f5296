"""A lab for the end-to-end tests, and the words they speak of it in.

    world.enforce(allow("a", "b", "tcp/80"), reject(ANY, "b"))
    assert world.seen("a", "b", "tcp/80") is Seen.ALLOWED

VMs a and b are on host1, c and d on host2. Every VM answers on every port of `PORTS`. A rule's source and
destination are VM names, tags, or ANY; each exists as a group (by name, by tag). The default rule drops. VM
e is beside all this, on a segment of its own, with tags.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.documents import by_shell, commands
from vagrant.lab import layout as layouts
from vagrant.lab import network
from vagrant.lab.lab import Lab, take_down
from vagrant.lab.layout import Layout, Vm
from vagrant.lab.probe import Attempt, Protocol, Seen, Servers, probe_all
from vagrant.lab.rest import put, request
from vagrant.lab.spec import Spec, parse
from vagrant.lab.state import LabError


def name_of(kind: str) -> str:
    """Of a lab that this process makes: test runs side by side never take each other's."""
    return f"test{kind}{os.getpid()}"


NAME = name_of("world")
VMS = ("a@host1", "b@host1", "c@host2", "d@host2", "e@host2#tier|web,linux+blue")
TAGS = ("red", "blue")
PORTS = (80, 81)
ANY = "ANY"
SECTION = "domains/default/security-policies/under-test"
_ECHO = (("ICMPv4", 8), ("ICMPv6", 128))

Rule = dict[str, Any]


def allow(source: str, destination: str, *services: str, **more: Any) -> Rule:
    return _rule("ALLOW", source, destination, services, more)


def drop(source: str, destination: str, *services: str, **more: Any) -> Rule:
    return _rule("DROP", source, destination, services, more)


def reject(source: str, destination: str, *services: str, **more: Any) -> Rule:
    return _rule("REJECT", source, destination, services, more)


@dataclass(frozen=True)
class World:
    """The lab, with its VMs' servers running."""

    lab: Lab

    def vm(self, name: str) -> Vm:
        return self.lab.vm(name)

    def enforce(self, *rules: Rule) -> None:
        """These, and the default rule; returns when every host enforces them."""
        self.order(*rules)
        self.lab.wait_applied()

    def order(self, *rules: Rule) -> None:
        """Like `enforce`, but returns as soon as the manager has taken it."""
        put(self.lab.rest, SECTION, section(rules))

    def address(self, vm: str, family: int = 4) -> str:
        return self.vm(vm).v4 if family == 4 else self.vm(vm).v6

    def attempt(self, source: str, destination: str, service: str, family: int = 4) -> Attempt:
        protocol, _, port = service.partition("/")
        address = self.address(destination, family)
        return Attempt(self.vm(source).namespace, Protocol(protocol), address, int(port or 0))

    def seen(self, source: str, destination: str, service: str, family: int = 4) -> Seen:
        """What becomes of one attempt; `service` as in "tcp/80", "udp/80", "icmp"."""
        return probe_all([self.attempt(source, destination, service, family)])[0]

    def seen_all(self, *attempts: tuple[str, str, str]) -> list[Seen]:
        """Source, destination, service, each over IPv4 and IPv6 and the same over both."""
        both = [self.attempt(*attempt, family) for attempt in attempts for family in (4, 6)]
        seen = probe_all(both)
        assert seen[::2] == seen[1::2], f"IPv4 and IPv6 differ: {list(zip(both, seen, strict=True))}"
        return seen[::2]

    def by_hand(self, script: str) -> str:
        """What a shell prints that asks the manager as the documents show it."""
        about, *_ = commands("manager_stub/api/README.md", "By hand")
        access = self.lab.access
        here = {"HOST:PORT": access.url.removeprefix("https://"), "DIR/ca.crt": str(access.ca)}
        for shown, known in (here | {"PASSWORD": access.password}).items():
            about = about.replace(shown, known)
        names = {"MANAGER": access.url, "CA": str(access.ca), "USER": access.user}
        names["PASSWORD"] = access.password
        settings = {f"VSFWCTL_{name}": text for name, text in names.items()}
        vsfwctl = {"vsfwctl": [sys.executable, "-m", "vsfwd.ctl"]}
        done = by_shell(about + script, vsfwctl, env={**os.environ, **settings})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def reset(self) -> None:
        """As at the start: no rules, no tags (but those of e), every vsfwd running, and nothing that a host
        has refused among the dead letters."""
        for host in self.lab.layout.hosts:
            if self.lab.vsfwd(host.name) is None:
                self.lab.start_vsfwd(host.name)
        self.enforce()
        for vm in self.lab.layout.vms:
            self.lab.set_tags(vm.name, *map(str, vm.tags))
        request(self.lab.rest, "DELETE", "/api/v1/vsfw/dead-letters")


@contextmanager
def without_firewall(name: str, spec: Spec) -> Iterator[Layout]:
    """The network of a lab, and nothing that decides: every VM is plugged."""
    network.remove(name)
    try:
        layout = layouts.plan(name, network.claim_number(name), spec)
        network.build(layout)
        for vm in layout.vms:
            network.plug(layout, vm)
        network.wait_reachable(layout)
        yield layout
    finally:
        network.remove(name)


@contextmanager
def world() -> Iterator[World]:
    with ExitStack() as stack:
        spec = parse(vms=VMS, segments=["blue=77"], clusters=["c=host1,host2"], datacenters=["dc=c"])
        lab = stack.enter_context(Lab.up(spec, NAME))
        for vm in lab.layout.vms:
            stack.enter_context(Servers(vm.namespace, PORTS, PORTS))
        lab.publish({f"domains/default/groups/{name}": _group("Name", name[3:]) for name in _names()})
        lab.publish({f"domains/default/groups/{tag}": _group("Tag", tag) for tag in TAGS})
        yield World(lab)


def remove_leftovers() -> None:
    """The labs that test runs which were killed have left: their process is gone."""
    known = {path.name for where in ("/run", "/run/netns") for path in Path(where).glob("vsfw-test*")}
    for found in {re.match(r"vsfw-(test[a-z]+(\d+))", name) for name in known}:
        if found and not Path("/proc", found[2]).exists():
            with suppress(LabError):  # another test run is at it
                take_down(found[1])


def root_devices(name: str) -> list[str]:
    """The devices of a lab in the root namespace, where others' come and go."""
    devices = []
    for device in Path("/sys/class/net").glob("vsfw*"):
        with suppress(OSError):
            if (device / "ifalias").read_text().strip() == f"vsfw:{name}":
                devices.append(device.name)
    return devices


def section(rules: Sequence[Rule]) -> dict[str, Any]:
    numbered = [{"id": f"r{index}", "sequence_number": index, **rule} for index, rule in enumerate(rules)]
    return {"category": "Application", "sequence_number": 1, "rules": numbered}


def group_path(name: str) -> str:
    """Of a VM (by its name), or of a tag."""
    return f"/infra/domains/default/groups/{name if name in TAGS else f'vm-{name}'}"


def _names() -> list[str]:
    return [f"vm-{vm.partition('@')[0]}" for vm in VMS]


def _group(key: str, value: str) -> dict[str, Any]:
    condition = {
        "resource_type": "Condition",
        "member_type": "VirtualMachine",
        "key": key,
        "operator": "EQUALS",
        "value": value,
    }
    return {"expression": [condition]}


def _rule(action: str, source: str, destination: str, services: Sequence[str], more: dict[str, Any]) -> Rule:
    entries = [entry for service in services for entry in _entries(service)]
    return {
        "action": action,
        "source_groups": [ANY if source == ANY else group_path(source)],
        "destination_groups": [ANY if destination == ANY else group_path(destination)],
        "service_entries": entries,
        **more,
    }


def _entries(service: str) -> list[dict[str, Any]]:
    protocol, _, port = service.partition("/")
    if protocol == "icmp":
        icmp = "ICMPTypeServiceEntry"
        return [{"resource_type": icmp, "protocol": name, "icmp_type": number} for name, number in _ECHO]
    ports = {"l4_protocol": protocol.upper(), "destination_ports": [port]}
    return [{"resource_type": "L4PortSetServiceEntry", **ports}]
