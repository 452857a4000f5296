"""Namespaces, bridges, VXLAN and veths of a lab, made by the commands a person would type, and removed.

Everything made here is recognised by name: namespaces begin with `layout.prefix`; the one device in the root
namespace, `vsfw<number>`, carries the lab's name in its ifalias. So `remove` needs no memory of what was
made.

Hosts are joined by a fabric bridge in the management namespace. A segment is one bridge a host and one device
that joins it to the same bridge of the other hosts. That is a VXLAN device: flooded frames go to a fixed
list of hosts, unicast frames where the fdb says the VM is, and nothing is learned from the fabric. Or it is a
port of the segment's bridge in the management namespace, as a VLAN of a physical switch would be: every
bridge on the way learns.

A VM that moves takes its sockets along: its namespace stays, and the host end of its veth goes to the
namespace of the other host.
"""

import contextlib
import functools
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vagrant.lab import probe
from vagrant.lab.layout import Host, Layout, Vm, prefix
from vagrant.lab.processes import in_namespace, inside
from vagrant.lab.spec import Segment, Transport
from vagrant.lab.waiting import wait_until

FABRIC_MTU = 1600
"""Room for 50 bytes of VXLAN around the VMs' 1500."""
ANNOUNCED_S = 0.03
ANNOUNCED_EVERY_S = 0.005
"""A device that has just come up may drop the first, and a port that is not open yet more."""
_NAMESPACES = Path("/run/netns")
_DEVICES = Path("/sys/class/net")
_FLOOD = "00:00:00:00:00:00"

_NO_IPV6 = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
"""Hosts only bridge: a host with addresses on its bridges would talk to the VMs."""
_NO_BRIDGE_NETFILTER = tuple(
    f"net.bridge.bridge-nf-call-{each}=0" for each in ("iptables", "ip6tables", "arptables")
)
"""Where the kernel has it, a new namespace begins with it on, and every frame on a bridge goes through
netfilter as well."""
_VM = (
    # Addresses are static and can be used at once.
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    # Everybody may ping.
    "net.ipv4.ping_group_range=0 2147483647",
)


class NetworkError(Exception):
    """A command on a namespace or device failed; the text names both."""


def claim_number(name: str) -> int:
    """Make the management namespace and the root namespace's way into it. The kernel gives a device name
    once, so two labs never get the same number."""
    mgmt = f"{prefix(name)}mgmt"
    _add_namespace(mgmt, _NO_IPV6)
    for number in range(255):
        device = f"vsfw{number}"
        try:
            _ip(None, f"link add {device} mtu {FABRIC_MTU} type veth peer name root netns {mgmt}")
        except NetworkError:
            if (_DEVICES / device).exists():
                continue
            raise
        _ip(None, f"link set {device} alias vsfw:{name}")
        return number
    raise NetworkError("all 255 lab numbers are taken")


def build(layout: Layout) -> None:
    """All of it, but no VM is plugged."""
    build_fabric(layout)
    for host in layout.hosts:
        build_host(layout, host)
    for vm in layout.vms:
        build_vm(layout, vm)


def build_fabric(layout: Layout) -> None:
    """The bridge that joins hosts, management and the root namespace."""
    vlans = layout.segments if layout.transport is Transport.VLAN else ()
    _ip(
        layout.mgmt,
        *(f"link add {_switch(each)} up type bridge forward_delay 0 mcast_snooping 0" for each in vlans),
        "link set lo up",
        f"link add fabric mtu {FABRIC_MTU} type bridge forward_delay 0 mcast_snooping 0",
        f"addr add {layout.mgmt_address}/24 dev fabric",
        "link set fabric up",
        f"link set root mtu {FABRIC_MTU} master fabric up",
    )
    _ip(
        None,
        f"addr add {layout.root_address}/24 dev vsfw{layout.number}",
        f"link set vsfw{layout.number} up",
    )


def build_host(layout: Layout, host: Host) -> None:
    """The host's uplink, and for each segment its bridge and its VXLAN device."""
    port = f"h-{host.name}"
    _add_namespace(host.namespace, _NO_IPV6)
    _run(in_namespace(host.namespace, ["sysctl", "-q", "-e", "-w", *_NO_BRIDGE_NETFILTER]))
    _ip(
        host.namespace,
        "link set lo up",
        f"link add uplink mtu {FABRIC_MTU} type veth peer name {port} netns {layout.mgmt}",
        f"addr add {host.address}/24 dev uplink",
        "link set uplink up",
    )
    _ip(layout.mgmt, f"link set {port} mtu {FABRIC_MTU} master fabric up")
    join(layout, host)
    if layout.transport is Transport.VLAN:
        for segment in layout.segments:
            _ip(layout.mgmt, f"link set {_port(segment, host)} master {_switch(segment)} up")


def join(layout: Layout, host: Host) -> None:
    """The segments' bridges, and the way from there to those of the other hosts."""
    for segment in layout.segments:
        _ip(host.namespace, *_segment(layout, segment, host))
    for other in layout.hosts:
        if other != host:
            introduce(layout, host, other)


def leave(layout: Layout, host: Host) -> None:
    """Take away what `join` made, if it is there."""
    for segment in layout.segments:
        for device in (f"br-{segment.name}", f"ov-{segment.name}"):
            subprocess.run(["ip", *_in(host.namespace), "link", "del", device], capture_output=True)


def introduce(layout: Layout, host: Host, other: Host) -> None:
    """Tell a host where another is, and the VMs there."""
    if layout.transport is Transport.VLAN:
        return
    for segment in layout.segments:
        there = [vm.mac for vm in layout.vms if vm.host == other.name and vm.segment == segment.name]
        _run(
            ["bridge", *_in(host.namespace), "-batch", "-"],
            [
                f"fdb append {mac} dev ov-{segment.name} dst {other.address} self permanent"
                for mac in (_FLOOD, *there)
            ],
        )


def _switch(segment: Segment) -> str:
    return f"sw-{segment.name}"


def _port(segment: Segment, host: Host) -> str:
    return f"p{segment.number}-{host.name}"


def _segment(layout: Layout, segment: Segment, host: Host) -> Iterable[str]:
    bridge = f"br-{segment.name}"
    if layout.transport is Transport.OVERLAY:
        joint = f"ov-{segment.name}"
        kind = f"vxlan id {segment.number} local {host.address} dstport 4789 nolearning"
    else:
        joint = f"vl-{segment.name}"
        kind = f"veth peer name {_port(segment, host)} netns {layout.mgmt}"
    return (
        f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0",
        f"link add {joint} mtu 1500 type {kind}",
        f"link set {joint} master {bridge} up",
        f"link set {bridge} up",
    )


def build_vm(layout: Layout, vm: Vm) -> None:
    """The VM's namespace and its veth, whose host end hangs nowhere yet and is down: see `plug`."""
    _add_namespace(vm.namespace, _VM)
    _ip(
        layout.host(vm.host).namespace,
        f"link add {vm.device} type veth peer name eth0 address {vm.mac} netns {vm.namespace}",
    )
    _ip(
        vm.namespace,
        "link set lo up",
        f"addr add {vm.v4}/24 dev eth0",
        f"addr add {vm.v6}/64 dev eth0 nodad",
        "link set eth0 up",
    )


def plug(layout: Layout, vm: Vm) -> None:
    """Put the VM on its segment: from here on frames flow."""
    _ip(layout.host(vm.host).namespace, f"link set {vm.device} master br-{vm.segment} up")


def wait_carrying(*namespaces: str | None) -> None:
    """Until every device in them that is set up takes frames, and as a port of a bridge forwards them: the
    kernel brings a carrier up by itself, after `ip link set up` has returned, and drops without a word what
    is sent before. None: the namespace of this thread."""
    for namespace in namespaces:
        wait_until(functools.partial(_carrying, namespace), f"carriers in {namespace}", every_s=0.01)


def wait_reachable(layout: Layout) -> None:
    """Until the VMs, all of them plugged, reach each other."""
    hosts, vms = ([each.namespace for each in kind] for kind in (layout.hosts, layout.vms))
    wait_carrying(layout.mgmt, *hosts, *vms)


def _carrying(namespace: str | None) -> bool:
    links: list[dict[str, Any]] = json.loads(_run(["ip", *_in(namespace), "-details", "-json", "link"]))
    return all(_carries(link.get("linkinfo", {}), link) for link in links if "UP" in link["flags"])


def _carries(info: dict[str, Any], link: dict[str, Any]) -> bool:
    """Other kinds have no carrier that comes and goes."""
    if info.get("info_kind") in ("veth", "bridge") and link["operstate"] != "UP":
        return False
    return info.get("info_slave_kind") != "bridge" or info["info_slave_data"]["state"] == "forwarding"


def carry(layout: Layout, vm: Vm, host: str) -> None:
    """Take the host end of the VM's veth to another host, where it hangs nowhere yet and is down: `plug` it
    there. The kernel takes it off its bridge, takes qdiscs and their filters off, leaves programs of a tcx
    chain and the alias on it (Linux 6.18), and keeps its number where that is free."""
    source, target = layout.host(vm.host), layout.host(host)
    _ip(
        source.namespace,
        f"link set {vm.device} nomaster down",
        f"link set {vm.device} netns {target.namespace}",
    )


def redirect(layout: Layout, vm: Vm) -> None:
    """Tell the hosts where the VM is now."""
    if layout.transport is Transport.VLAN:
        return
    there = layout.host(vm.host)
    entry = f"{vm.mac} dev ov-{vm.segment}"
    for host in layout.hosts:
        told = f"del {entry} self" if host == there else f"replace {entry} dst {there.address} self permanent"
        _run(["bridge", "-n", host.namespace, "-batch", "-"], [f"fdb {told}"])


@contextlib.contextmanager
def announcing(vm: Vm) -> Iterator[None]:
    """Tell the switches on the way where the VM is now, again and again, in its name: RARP and gratuitous
    ARP, as hypervisors do for guests that are silent (QEMU's announce-self)."""
    stop = threading.Event()

    def announce() -> None:
        with eth0:
            eth0.bind(("eth0", 0))
            while not stop.is_set():
                with contextlib.suppress(OSError):  # the port is away again
                    for frame in announcements(vm):
                        eth0.send(frame)
                stop.wait(ANNOUNCED_EVERY_S)

    with probe.inside(vm.namespace):
        eth0 = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    thread = threading.Thread(target=announce)
    thread.start()
    try:
        yield
        time.sleep(ANNOUNCED_S)
    finally:
        stop.set()
        thread.join()


def announcements(vm: Vm) -> tuple[bytes, bytes]:
    """A RARP request for the VM's own address (RFC 903), and an ARP announcement of it (RFC 5227)."""
    mac, address = bytes.fromhex(vm.mac.replace(":", "")), socket.inet_aton(vm.v4)
    ethernet = b"\xff" * 6 + mac
    rarp = struct.pack("!HHHBBH", 0x8035, 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    arp = struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address
    return ethernet + rarp, ethernet + arp


def remove(name: str) -> None:
    """All of the lab of this name that the kernel holds, whoever left it: processes, devices, namespaces."""
    for device in _DEVICES.glob("vsfw*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if (device / "ifalias").read_text().strip() == f"vsfw:{name}":
                _ip(None, f"link del {device.name}")
    for namespace in found(name):
        _end_processes(namespace)
        subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True)
        # A run killed inside `ip netns add` leaves a plain file, which `del` does not take.
        namespace.unlink(missing_ok=True)


def found(name: str) -> list[Path]:
    """The namespaces of the lab of this name."""
    return sorted(_NAMESPACES.glob(f"{prefix(name)}*"))


def _end_processes(namespace: Path) -> None:
    """Again until none is left: one may have forked meanwhile."""

    def none_left() -> bool:
        processes = inside(namespace)
        for process in processes:
            process.kill()
        return not processes

    wait_until(none_left, f"end of every process in {namespace.name}")


def _add_namespace(namespace: str, sysctls: Iterable[str]) -> None:
    _run(["ip", "netns", "add", namespace])
    _run(in_namespace(namespace, ["sysctl", "-q", "-w", *sysctls]))


def _ip(namespace: str | None, *lines: str) -> None:
    _run(["ip", *_in(namespace), "-batch", "-"], lines)


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _run(argv: list[str], lines: Iterable[str] = ()) -> str:
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(argv, input=text, capture_output=True, text=True)
    if done.returncode:
        raise NetworkError(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}".rstrip())
    return done.stdout
