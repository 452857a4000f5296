"""Workloads in namespaces of their own, on one bridge, each behind a vNIC with the real programs: for
what only real traffic shows (checksum offload, segments that are cut later, the kernel's own verdict on a
reply)."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pyroute2 import IPRoute

from tests.harness.datapath import Host, Port, inside, private_host
from vagrant.lab.network import wait_carrying
from vsfwd.datapath import Flow, Reason, Settings

RTM_SETLINK, NLM_F_REQUEST_AND_ACK = 19, 5
IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE = 41, 63
VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}


@dataclass(frozen=True)
class Wired:
    """Namespaces of the workloads, each behind a port of one bridge; `others` are those besides `here` and
    `twin`."""

    host: Host
    namespace: str
    here: str
    twin: str
    others: tuple[str, ...]
    vnics: Mapping[str, str]

    def offload(self, on: bool) -> None:
        for namespace, device in ((self.here, "far0"), (self.twin, "far1")):
            command = ["ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx", "on" if on else "off"]
            subprocess.run(command, check=True, capture_output=True)

    def replug(self) -> list[Port]:
        """Every vNIC without flows, drops and policy."""
        with inside(self.namespace):
            self.host.unplug()
            return [self.host.port(vnic) for vnic in self.vnics]

    @contextmanager
    def big_tcp(self) -> Iterator[None]:
        """Segments of up to 180,000 bytes, which no length field can say (Linux's BIG TCP), for a while."""
        ends = ((self.here, "far0"), (self.namespace, "port0"), (self.namespace, "port1"))
        for namespace, device in ends:
            _largest_segment(namespace, device, 180_000)
        try:
            yield
        finally:
            for namespace, device in ends:
                _largest_segment(namespace, device, 65_536)

    def install(self, rules: list[str]) -> None:
        with inside(self.namespace):
            self.host.install(rules, vnics=self.vnics)

    def lost(self, rule: int) -> tuple[int, dict[int, dict[Reason, int]]]:
        """What `rule` dropped, and what was dropped before any rule. The kernels of both talk a little by
        themselves (IPv6), so what other rules drop does not count."""
        datapath = self.host.datapath
        drops = {slot: dict(reasons) for slot, reasons in datapath.drops().items()}
        for reasons in drops.values():
            reasons.pop(Reason["RULE_DROP"], None)
        return datapath.rule_counters()[rule].packets, drops

    def _flows(self, *ports: int) -> list[Flow]:
        """The flow of a connection from a port, and to another if that is given, at each vNIC."""
        datapath = self.host.datapath
        every = [flow for slot in datapath.slots.values() for flow in datapath.flows(slot)]
        return [flow for flow in every if {flow.local_port, flow.remote_port} >= set(ports)]

    def states(self, *ports: int) -> list[str]:
        return [flow.state for flow in self._flows(*ports)]

    def largest(self, port: int) -> list[float]:
        """Bytes of the connection's average packet, in its larger direction, at each vNIC."""
        return [max(f.bytes_in / f.packets_in, f.bytes_out / f.packets_out) for f in self._flows(port)]

    def carried(self, port: int) -> list[int]:
        """Bytes of the connection, in its larger direction, at each vNIC."""
        return [max(flow.bytes_in, flow.bytes_out) for flow in self._flows(port)]


def kernel_has_ipv4_big_tcp() -> bool:
    """Linux 6.3. pyroute2 has no name for the attribute."""
    with IPRoute() as netlink:
        (loopback,) = netlink.get_links(1)
    unnamed = [value for name, value in loopback["attrs"] if name == "UNKNOWN"]
    return IFLA_GSO_IPV4_MAX_SIZE in (value["header"]["type"] for value in unnamed)


def _largest_segment(namespace: str, device: str, size: int) -> None:
    """By netlink: the ip command of Debian 12 knows no IFLA_GSO_IPV4_MAX_SIZE."""
    with inside(namespace), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as rtnetlink:
        body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(device), 0, 0)
        for attribute in (IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE):
            body += struct.pack("=HHI", 8, attribute, size)
        rtnetlink.send(struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST_AND_ACK, 1, 0) + body)
        (error,) = struct.unpack_from("=i", rtnetlink.recv(4096), 16)
        assert not error, f"segments of {size} bytes at {device}: {os.strerror(-error)}"


def _ip(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], check=True)


@contextmanager
def wired(name: str = "wired", vnics: Mapping[str, str] = VNICS) -> Iterator[Wired]:
    """These vNICs, plugged and closed."""
    with private_host(name, Settings(flows_per_vnic=1024)) as (host, namespace):
        vms = [f"{namespace}-vm{number}" for number in range(len(vnics))]
        try:
            _ip(namespace, "link", "add", "bridge", "up", "type", "bridge")
            with inside(namespace):
                for number, (vm, vnic) in enumerate(zip(vms, vnics, strict=True)):
                    port = host.port(vnic)
                    subprocess.run(["ip", "netns", "add", vm], check=True)
                    _ip(namespace, "link", "set", port.device, "master", "bridge")
                    _ip(namespace, "link", "set", f"far{number}", "address", port.mac, "netns", vm)
                    for address in vnics[vnic].split()[:2]:
                        length, flags = ("/64", ["nodad"]) if ":" in address else ("/24", [])
                        _ip(vm, "address", "add", address + length, "dev", f"far{number}", *flags)
                    _ip(vm, "link", "set", f"far{number}", "up")
            wait_carrying(namespace, *vms)
            yield Wired(host, namespace, vms[0], vms[1], tuple(vms[2:]), vnics)
        finally:
            for vm in vms:
                subprocess.run(["ip", "netns", "del", vm], check=False, capture_output=True)
