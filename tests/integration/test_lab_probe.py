"""Probes: what they call allowed, dropped and rejected, against a filter that is not ours."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.harness.lab import name_of, without_firewall
from vagrant.lab.layout import Layout
from vagrant.lab.probe import Attempt, Protocol, Seen, Servers, probe_all
from vagrant.lab.spec import parse

RULES = """
table inet filter {
    chain input {
        type filter hook input priority 0;
        tcp dport 81 drop
        udp dport 81 drop
        tcp dport 82 reject with tcp reset
        udp dport 82 reject with icmpx admin-prohibited
        tcp dport 83 reject with icmpx admin-prohibited
    }
}
"""
NO_PING = """
add rule inet filter input icmp type echo-request {0}
add rule inet filter input icmpv6 type echo-request {0}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Layout]:
    """A client, and a server whose own nftables decide."""
    with without_firewall(name_of("probe"), parse(hosts=1, vms=["server", "client"])) as layout:
        nft(layout, RULES)
        with Servers(layout.vms[0].namespace, tcp=[80, 81, 82, 83], udp=[80, 81, 82]):
            yield layout


def nft(layout: Layout, commands: str) -> None:
    argv = ["ip", "netns", "exec", layout.vms[0].namespace, "nft", "-f", "-"]
    subprocess.run(argv, input=commands, text=True, check=True)


def seen(layout: Layout, protocol: Protocol, port: int = 0) -> list[Seen]:
    """Over IPv4 and over IPv6."""
    server, client = layout.vms
    return probe_all(
        [Attempt(client.namespace, protocol, address, port) for address in (server.v4, server.v6)]
    )


@pytest.mark.parametrize(
    ("port", "expected"), [(80, Seen.ALLOWED), (81, Seen.DROPPED), (82, Seen.REJECTED), (83, Seen.REJECTED)]
)
def test_tcp(net: Layout, port: int, expected: Seen) -> None:
    """An answer, silence, RST, ICMP."""
    assert seen(net, Protocol.TCP, port) == [expected, expected]


@pytest.mark.parametrize(("port", "expected"), [(80, Seen.ALLOWED), (81, Seen.DROPPED), (82, Seen.REJECTED)])
def test_udp(net: Layout, port: int, expected: Seen) -> None:
    """An answer, silence, ICMP."""
    assert seen(net, Protocol.UDP, port) == [expected, expected]


def test_icmp(net: Layout) -> None:
    """An echo comes back; then it is dropped; then it is rejected."""
    assert seen(net, Protocol.ICMP) == [Seen.ALLOWED, Seen.ALLOWED]
    nft(net, NO_PING.format("drop"))
    assert seen(net, Protocol.ICMP) == [Seen.DROPPED, Seen.DROPPED]
    nft(net, "flush ruleset" + RULES + NO_PING.format("reject with icmpx admin-prohibited"))
    assert seen(net, Protocol.ICMP) == [Seen.REJECTED, Seen.REJECTED]
