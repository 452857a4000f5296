"""The kernel's own firewall as a second opinion: a namespace that routes between `here` and everybody
else, with a policy as nftables rules behind `ct state established,related accept`.

Frames are sent for real. Behind each goes a sentinel that always passes: what has not arrived before it never
will, so nobody waits."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final, Self

from pyroute2 import netns

from tests.harness.datapath import PREFIX, inside
from tests.harness.policies import vnic_id
from tests.oracle import frames
from tests.oracle.policies import ADDRESSES, OUTSIDE, OWN
from tests.oracle.talk import packed
from vagrant.lab.network import wait_carrying
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import Action, Direction, Family, Match, Rule, Service

SENTINEL: Final = 253
"""A protocol for experiments (RFC 3692)."""
_FORWARDS: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_SYSCTLS: Final = {
    **{f"net/{name}": 1 for name in _FORWARDS},
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/here/rp_filter": 0,
    "net/ipv4/conf/others/rp_filter": 0,
    "net/netfilter/nf_conntrack_tcp_loose": 0,
    "net/netfilter/nf_conntrack_tcp_be_liberal": 1,
}
_FAMILIES: Final = {4: ("ip", Family.IPV4), 6: ("ip6", Family.IPV6)}
_ICMP: Final = {1: "icmp", 58: "icmpv6"}


class Router:
    """Use `router`. `here` is the workload's side, `others` everybody else's."""

    def __init__(self) -> None:
        self._sockets = {name: _listener(f"{name}-end") for name in ("here", "others")}

    def passes(self, direction: str, packet: bytes) -> bool:
        """Whether an IP packet comes out on the other side."""
        source, target = ("others", "here") if direction == "in" else ("here", "others")
        ends = [packed(OUTSIDE[0]), packed(OWN["here"][0])]
        sentinel = frames.ip(*(ends if direction == "in" else ends[::-1]), SENTINEL, b"")
        for one in (packet, sentinel):
            self._sockets[source].send(frames.ethernet(_mac(source), frames.PEER_MAC, one))
        arrived = False
        while True:
            frame, sender = self._sockets[target].recvfrom(2048)
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            if frame[14] >> 4 == 4 and frame[23] == SENTINEL:
                return arrived
            arrived |= _ends(frame[14:]) == _ends(packet)  # the kernel says things of its own

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def router(name: str, state: DesiredState) -> Iterator[Router]:
    """A fresh one, which remembers no connection."""
    namespace = f"{PREFIX}{name}-{os.getpid()}"
    netns.create(namespace)
    try:
        with inside(namespace):
            for side in ("here", "others"):
                _plug(side)
            for path, value in _SYSCTLS.items():
                Path("/proc/sys", path).write_text(str(value))
            subprocess.run(["nft", "-f", "-"], input=ruleset(state), text=True, check=True)
            wait_carrying(namespace)
            with Router() as made:
                yield made
    finally:
        netns.remove(namespace)


def _plug(side: str) -> None:
    words = [f"link add {side} address {_mac(side).hex(':')} type veth peer {side}-end"]
    for end in (side, f"{side}-end"):
        words += [f"link set {end} addrgenmode none", f"link set {end} up"]
    mine = OWN["here"] if side == "here" else ("0.0.0.0/0", "::/0")
    words += [f"route add {where} dev {side}" for where in mine]
    for address in OWN["here"] if side == "here" else set(ADDRESSES) - {*OWN["here"]}:
        words.append(f"neigh add {address} lladdr {frames.PEER_MAC.hex(':')} dev {side}")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(words), text=True, check=True)


def _ends(packet: bytes) -> bytes:
    """Source and destination: what routing leaves as it is."""
    return packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]


def _mac(side: str) -> bytes:
    return bytes([2, 0, 0, 0, 1, side == "here"])


def _listener(device: str) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    listener.bind((device, 3))
    listener.settimeout(5)
    return listener


def ruleset(state: DesiredState) -> str:
    """The policy of `here`. What it rejects is dropped: whether it is answered is another matter."""
    ordered = sorted(state.rules.items(), key=lambda item: (item[1].order, item[0]))
    lines = [line for _, rule in ordered for line in _rule(state, rule)]
    return "\n".join(
        [
            "table inet said {",
            "chain forward { type filter hook forward priority 0; policy drop;",
            f"meta l4proto {SENTINEL} accept",
            "ct state established,related accept",
            "ct state invalid drop",
            *lines,
            "}\n}",
        ]
    )


def _rule(state: DesiredState, rule: Rule) -> Iterator[str]:
    here = state.vnics[vnic_id("here")]
    if rule.scope is not None and not {*rule.scope} & _groups_of(state, here.addresses, here.groups):
        return
    ways = {Direction.IN: "oifname here", Direction.OUT: "iifname here", Direction.INOUT: ""}
    verdict = "accept" if rule.action is Action.ALLOW else "drop"
    for number, (word, family) in _FAMILIES.items():
        if rule.family not in (family, Family.BOTH):
            continue
        source = _addresses(state, rule.sources, number, f"{word} saddr")
        destination = _addresses(state, rule.destinations, number, f"{word} daddr")
        if source is None or destination is None:
            continue
        for service in [""] if rule.services is None else map(_service, rule.services):
            kind = f"meta nfproto ipv{number}"
            yield " ".join((ways[rule.direction], kind, source, destination, service, verdict))


def _groups_of(state: DesiredState, addresses: tuple[str, ...], groups: tuple[str, ...]) -> set[str]:
    listing = {id for id, group in state.groups.items() if set(addresses) & _hosts(group.addresses)}
    return {*groups} | listing


def _hosts(texts: tuple[str, ...]) -> set[str]:
    """Of all addresses there are, those that an address, a prefix or a range covers: the world is small."""
    return {address for address in ADDRESSES if any(_covers(text, ip_address(address)) for text in texts)}


def _covers(text: str, address: IPv4Address | IPv6Address) -> bool:
    low, _, high = text.partition("-")
    if high:
        first = ip_address(low)
        return first.version == address.version and int(first) <= int(address) <= int(ip_address(high))
    return address in ip_network(low)


def _addresses(state: DesiredState, match: Match | None, family: int, field: str) -> str | None:
    """None: it matches nothing."""
    if match is None:
        return ""
    named = _hosts(match.addresses)
    for id in match.groups:
        named |= _hosts(state.groups[id].addresses)
        named |= {a for vnic in state.vnics.values() if id in vnic.groups for a in vnic.addresses}
    mine = sorted(a for a in named if (":" in a) == (family == 6))
    if not mine:
        return "" if match.excluded else None
    return f"{field} {'!= ' if match.excluded else ''}{{ {', '.join(mine)} }}"


def _service(service: Service) -> str:
    sides = (("sport", service.source_ports), ("dport", service.ports))
    named = [(side, ", ".join(f"{low}-{high}" for low, high in ports)) for side, ports in sides if ports]
    if named:
        protocol = "tcp" if service.protocol == 6 else "udp"
        return " ".join(f"{protocol} {side} {{ {ranges} }}" for side, ranges in named)
    if service.icmp_type is not None:
        word = _ICMP[service.protocol]
        code = "" if service.icmp_code is None else f"{word} code {service.icmp_code}"
        return f"{word} type {service.icmp_type} {code}"
    return f"meta l4proto {service.protocol}"
