"""The rival: nftables with the kernel's connection tracking, between the ports of a bridge.

The kernel offers bridged packets to `inet` chains by way of br_netfilter, in the namespace and at the time
its sysctls say so. The rules are those of `policy`, each narrowed to one address on either side, which is
in nftables' favour: a linear rule compares two addresses and a port, and a set finds all three by one hash
lookup.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.kernel import run
from tests.bench.policy import CLIENT, PORTS, SERVERS, USED_PORTS, member, pairs
from vsfwd.datapath import TIMEOUTS_S

BRIDGE_SYSCTLS: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
TIME_WAIT_S: Final = TIMEOUTS_S["FIN_WAIT"]
"""As long as vsfwd keeps a closed connection, so that both tables hold as many."""


def linear(rules: int) -> str:
    """A chain of n rules; the last one decides."""
    lines = [
        f"ip saddr {source} ip daddr {destination} tcp dport {port} accept"
        for source, destination, port in _addresses(rules)
    ]
    servers = ", ".join(server.v4 for server in SERVERS)
    last = (
        f"ip saddr {CLIENT.v4} ip daddr {{ {servers} }} meta l4proto {{ tcp, udp }} th dport {_PORTS} accept"
    )
    lines.append(last)
    return _table("linear", "", lines)


def hashed(rules: int) -> str:
    """One set of n elements, and a few for the measured traffic; one rule."""
    elements = [f"{source} . {destination} . tcp . {port}" for source, destination, port in _addresses(rules)]
    for server in SERVERS:
        for protocol in ("tcp", "udp"):
            elements += [f"{CLIENT.v4} . {server.v4} . {protocol} . {port}" for port in USED_PORTS]
    declaration = (
        "set allowed { type ipv4_addr . ipv4_addr . inet_proto . inet_service\n"
        f"elements = {{ {', '.join(elements)} }} }}"
    )
    return _table("hashed", declaration, ["ip saddr . ip daddr . meta l4proto . th dport @allowed accept"])


def _addresses(rules: int) -> list[tuple[str, str, int]]:
    """Source, destination and port of all rules but the last."""
    return [(member(pair.source, 0)[0], member(pair.destination, 0)[0], pair.port) for pair in pairs(rules)]


_PORTS: Final = f"{PORTS[0]}-{PORTS[-1]}"


def _table(name: str, declarations: str, rules: list[str]) -> str:
    body = "\n".join(rules)
    return f"table inet {name} {{\n{declarations}\nchain allowed_pairs {{\n{body}\n}}\n}}\n"


def hook(table: str) -> str:
    """Put a table's rules into the packets' way. Connection tracking is on exactly while this chain is
    there."""
    return (
        f"add chain inet {table} forward {{ type filter hook forward priority 0; policy drop; }}\n"
        f"add rule inet {table} forward ct state established,related accept\n"
        f"add rule inet {table} forward meta l4proto {{ 1, 58 }} accept\n"
        f"add rule inet {table} forward jump allowed_pairs\n"
    )


def load(namespace: str, ruleset: str) -> None:
    run(namespace, ["nft", "-f", "-"], ruleset)


def flush(namespace: str) -> None:
    run(namespace, ["nft", "flush", "ruleset"])


@contextmanager
def active(namespace: str, table: str) -> Iterator[None]:
    """The table decides about bridged packets for the length of this context."""
    bridge_netfilter(namespace, True)
    try:
        load(namespace, hook(table))
        run(namespace, ["sysctl", "-qw", f"net.netfilter.nf_conntrack_tcp_timeout_time_wait={TIME_WAIT_S}"])
        yield
        run(namespace, ["nft", "delete", "chain", "inet", table, "forward"])
    finally:
        bridge_netfilter(namespace, False)


def bridge_netfilter(namespace: str, on: bool) -> None:
    """Off is not what a new namespace begins with. A module, which nobody may have asked for yet."""
    if not Path("/proc/sys/net/bridge").exists():
        run(namespace, ["modprobe", "br_netfilter"])
    run(namespace, ["sysctl", "-qw", *(f"net.bridge.{name}={int(on)}" for name in BRIDGE_SYSCTLS)])
