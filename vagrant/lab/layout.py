"""What a lab consists of: every name, number and address, derived from the spec before anything is made.

Pure. The layout is also what stands in the state file, so that any later command knows the lab without asking
the kernel.

    root namespace           vsfw<number>, 198.18.<number>.254
    vsfw-<lab>-mgmt          bridge fabric, 198.18.<number>.1: broker, manager
    vsfw-<lab>-host-<host>   uplink, 198.18.<number>.<10 + i>: vsfwd; per segment a bridge and a VXLAN
                             device or a port of a bridge in mgmt
    vsfw-<lab>-vm-<vm>       eth0, 10.20.<segment>.<10 + j>/24 and fd00:20:<segment>::<10 + j>/64
"""

import dataclasses
import ipaddress
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vagrant.lab import spec
from vagrant.lab.spec import Default, Segment, Spec, Tag, Transport

RUN: Final = Path("/run")
PINS: Final = Path("/sys/fs/bpf/vsfwd")
CACHE: Final = Path(__file__).parents[2] / "build" / "cache"
"""Compiled programs, of all labs of this checkout. It stays."""
GUARD_PORTS: Final = ("v*",)
"""Devices of VMs, and of nothing else in a host's namespace."""


@dataclass(frozen=True)
class Host:
    """`id` is the manager's to give, None until then. `directory` holds all that its vsfwd has on disk.
    Without a namespace ("") it is the machine itself."""

    name: str
    namespace: str
    address: str
    directory: Path
    id: str | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "vsfwd.sock"

    @property
    def log(self) -> Path:
        return self.directory / "vsfwd.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "vsfwd.pid"

    @property
    def guests(self) -> Path:
        """Where a guest is told of to the context agent."""
        return self.directory / "guests"

    @property
    def pins(self) -> Path:
        return PINS / self.namespace


@dataclass(frozen=True)
class Vm:
    """`device` is the host's end of its veth; the VM's own is eth0."""

    name: str
    id: str
    vnic: str
    namespace: str
    host: str
    device: str
    mac: str
    v4: str
    v6: str
    tags: tuple[Tag, ...]
    segment: str


@dataclass(frozen=True)
class Layout:
    """`number` tells labs on one machine apart: each has its own management subnet."""

    name: str
    number: int
    hosts: tuple[Host, ...]
    vms: tuple[Vm, ...]
    segments: tuple[Segment, ...]
    clusters: dict[str, tuple[str, ...]]
    datacenters: dict[str, tuple[str, ...]]
    default: Default
    transport: Transport

    @property
    def mgmt(self) -> str:
        """The namespace of fabric, broker and manager."""
        return f"{prefix(self.name)}mgmt"

    @property
    def mgmt_address(self) -> str:
        return f"198.18.{self.number}.1"

    @property
    def root_address(self) -> str:
        return f"198.18.{self.number}.254"

    @property
    def directory(self) -> Path:
        return directory(self.name)

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def directory(name: str) -> Path:
    """Everything on disk of the lab of this name."""
    return RUN / f"vsfw-{name}"


def prefix(name: str) -> str:
    """How every namespace of the lab begins. No lab's prefix begins another's: names have no dash."""
    return f"vsfw-{name}-"


def plan(name: str, number: int, wanted: Spec) -> Layout:
    return Layout(
        name=name,
        number=number,
        hosts=tuple(_host(name, number, index, host) for index, host in enumerate(wanted.hosts)),
        vms=tuple(_vm(name, wanted.segments, index, vm) for index, vm in enumerate(wanted.vms)),
        segments=wanted.segments,
        clusters=wanted.clusters,
        datacenters=wanted.datacenters,
        default=wanted.default,
        transport=wanted.transport,
    )


def grown(layout: Layout, vms: Sequence[str]) -> Layout:
    """With one host more, on which these VMs are, written NAME[#tag,tag][+segment]. Raises BadSpec."""
    name = f"host{len(layout.hosts) + 1}"
    segments = [f"{each.name}={each.number}" for each in layout.segments if each.name != spec.DEFAULT_SEGMENT]
    wanted = spec.parse(hosts=len(layout.hosts) + 1, vms=vms, segments=segments, transport=layout.transport)
    host = _host(layout.name, layout.number, len(layout.hosts), name)
    there = tuple(
        _vm(layout.name, layout.segments, index, dataclasses.replace(vm, host=name))
        for index, vm in enumerate(wanted.vms, len(layout.vms))
    )
    return dataclasses.replace(layout, hosts=(*layout.hosts, host), vms=(*layout.vms, *there))


def moved(layout: Layout, vm: Vm, host: str) -> Layout:
    """With this VM on another host."""
    there = dataclasses.replace(vm, host=host)
    return dataclasses.replace(layout, vms=tuple(there if each == vm else each for each in layout.vms))


def _host(lab: str, number: int, index: int, name: str) -> Host:
    return Host(
        name=name,
        namespace=f"{prefix(lab)}host-{name}",
        address=f"198.18.{number}.{10 + index}",
        directory=directory(lab) / name,
    )


def _vm(name: str, segments: Sequence[Segment], index: int, vm: spec.Vm) -> Vm:
    segment = next(i for i, segment in enumerate(segments) if segment.name == vm.segment)
    number = 10 + index
    return Vm(
        name=vm.name,
        id=str(uuid.uuid4()),
        vnic=str(uuid.uuid4()),
        namespace=f"{prefix(name)}vm-{vm.name}",
        host=vm.host,
        device=f"v{vm.name}",
        mac=f"02:00:0a:14:{segment:02x}:{number:02x}",
        v4=f"10.20.{segment}.{number}",
        v6=str(ipaddress.IPv6Address(f"fd00:20:{segment:x}::{number:x}")),
        tags=vm.tags,
        segment=vm.segment,
    )
