"""Every rule that can be written in a small closed world, against every packet there can be in it."""

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from itertools import islice, permutations, product

import pytest

from tests.harness.imagelookup import classify, matching
from tests.harness.policies import policy, vnic_id
from vsfwd.image import Image
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, evaluate, mismatches
from vsfwd.policy.model import Direction

IN, OUT = Direction.IN, Direction.OUT

ENDS = ("", "nobody", "web", "10.0.0.0/30", "web,10.0.0.9", "not web", "not nobody", "not 10.0.0.2,web")
SERVICES = ("", "nobody", "tcp", "tcp/80-81", "tcp/80,udp/53", "icmp/8,icmpv6/128", "47")
SCOPES = ("", "nobody", "web", "lab")
WAYS = ("", "in", "out ipv4", "ipv6")

GROUPS = {"web": ["10.0.0.2", "fd00::/127"], "lab": ["10.0.0.4/31"]}
VNICS = {
    "here": "10.0.0.1 fd00::5 web",
    "other": "10.0.0.5 fd00::6",
    "away": "10.0.0.9 10.0.0.2 fd00::9 web lab",
}
SLOTS = {vnic_id("here"): 0, vnic_id("other"): 1}

ADDRESSES = (
    *("10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.9", "192.0.2.1"),
    *("fd00::1", "fd00::5", "fd00::9", "2001:db8::1"),
)
PROTOCOLS = ((6, 80), (6, 82), (17, 53), (1, 8), (1, 0), (58, 128), (58, 1), (47, 0))


def packets() -> Iterator[Packet]:
    for source, destination in product(map(ip_address, ADDRESSES), repeat=2):
        for protocol, detail in PROTOCOLS:
            if source.version == destination.version and protocol != (58 if source.version == 4 else 1):
                yield Packet(source, destination, protocol, port=detail, icmp_type=detail)


@cache
def world() -> tuple[DesiredState, Image]:
    rules = [
        f"allow {way} {_said('from', source)} {_said('to', destination)} "
        f"{_said('service', service)} {_said('on', scope)}"
        for way, source, destination, service, scope in product(WAYS, ENDS, ENDS, SERVICES, SCOPES)
    ]
    state = policy(rules, GROUPS, VNICS)
    return state, compile(state, SLOTS)


@pytest.mark.parametrize("direction", [IN, OUT])
@pytest.mark.parametrize("vnic", ["here", "other"])
@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_each_rule_matches_the_packets_the_model_says(vnic: str, direction: Direction, stride: int) -> None:
    """All 7,168 rules of the world at once: the AND of the rows has exactly the bits of the rules that
    match."""
    state, image = world()
    for packet in islice(packets(), 0, None, stride):
        found = matching(image, SLOTS[vnic_id(vnic)], direction, packet)
        bits = enumerate(mismatches(state, packet, vnic_id(vnic), direction))
        expected = sum(1 << bit for bit, (_, against) in bits if against is None)
        assert found == expected, (packet, _rules(image, found ^ expected))


def test_the_first_match_decides() -> None:
    """Every order of three rules that overlap, and the verdict is that of the first that matches."""
    rules = (
        "allow from web service tcp",
        "drop to 10.0.0.0/30",
        "reject from not web service tcp/80",
        "allow out on web",
        "drop",
    )
    sample = list(islice(packets(), 0, None, 5))
    for order in permutations(rules, 3):
        state = policy(order, GROUPS, VNICS)
        image = compile(state, SLOTS)
        for packet, direction in product(sample, (IN, OUT)):
            expected = evaluate(state, packet, vnic_id("here"), direction)
            assert classify(image, 0, direction, packet) == expected, (order, packet)


def _said(name: str, value: str) -> str:
    return f"{name} {value}" if value else ""


def _rules(image: Image, row: int) -> list[int]:
    return [entry.id for bit, entry in enumerate(image.rules) if row >> bit & 1]
