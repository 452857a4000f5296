"""Rules that several above leave nothing together: what is said of them, against the evaluator."""

from ipaddress import ip_address
from itertools import combinations, product

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from manager_stub.covering import Sets, covered
from manager_stub.covering.together import Together
from tests.harness.policies import policy
from tests.unit.manager.test_covering import GROUPS, VNICS, matched, sets
from vsfwd.policy.evaluate import Packet, mismatches
from vsfwd.policy.model import Direction

pytestmark = pytest.mark.slow


WAYS = ("", "in", "out", "ipv4", "ipv6")
ENDS = ("", "web", "nets", "web,10.0.0.9", "not web", "10.0.0.9")
NEAR_PORTS = ("", "tcp/80", "tcp/81-90", "tcp/80-82", "tcp/80@1000-2000,udp")


@pytest.mark.parametrize(
    "stride",
    [pytest.param(11, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.deep)],
)
def test_rules_that_leave_nothing_leave_nothing(stride: int) -> None:
    """Every three rules of a small closed world, every packet there can be in it: what two are said to leave
    nothing of matches no packet that neither of them does."""
    words = product(WAYS, ENDS, ("", "web", "on web"), NEAR_PORTS)
    said = [
        f"allow {way} {source and f'from {source}'} {end if end[:2] == 'on' else end and f'to {end}'} "
        f"{service and f'service {service}'}"
        for way, source, end, service in words
    ]
    state = policy(said[::stride], GROUPS, VNICS)
    matches, rules = list(matched(state).values()), list(state.rules.values())
    together = Together(rules, sets(state), ethernet=False)
    found = 0
    for place, (one, other) in product(range(len(rules)), combinations(range(len(rules)), 2)):
        if place in (one, other) or not matches[place]:
            continue
        together._steps_left = 9
        if by := together.hide(place, 1 << one | 1 << other):
            assert not matches[place] & ~(matches[one] | matches[other]), [
                rules[n].name for n in (place, *by)
            ]
            found += len(by) == 2
    assert found > stride


PLACES = ("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3")
ADDRESSES = ("", "10.0.0.0", "10.0.0.0/31", "10.0.0.2/31,fd00::/127", "10.0.0.1-10.0.0.2", "two", "0.0.0.0/1")
ADDRESSES += ("128.0.0.0/1,::/0", "10.0.0.0,10.0.0.3,fd00::")
SERVICES = ("", "tcp", "tcp/80", "tcp/81-82", "tcp/80-81,udp", "tcp/0-80", "tcp/82-65535", "tcp/80@1-9")
SERVICES += ("tcp/80@0-0,tcp/80@10-65535", "udp,icmp", "icmpv6")


def said(ways: tuple[str, ...], ends: tuple[str, ...], services: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda way, source, destination, service: (
            f"drop {way} {source and f'from {source}'} {destination and f'to {destination}'} "
            f"{service and f'service {service}'}"
        ),
        *map(st.sampled_from, (ways, ends, ("", "", *ends[1:3]), services)),
    )


PACKETS = [
    Packet(ip_address(source), ip_address(destination), protocol, port, source_port=source_port)
    for source, destination in product(
        (*PLACES, "192.0.2.1", "fd00::", "2001:db8::1"),
        (*PLACES, "192.0.2.1", "fd00::", "2001:db8::1"),
    )
    if (":" in source) == (":" in destination)
    for protocol, port, source_port in (
        *((6, port, source_port) for port in (79, 80, 81, 82, 83) for source_port in (0, 5, 10)),
        (17, 80, 5),
        (47, 0, 0),
        (58 if ":" in source else 1, 0, 0),
    )
]


@given(
    st.lists(said(WAYS, ADDRESSES, SERVICES), min_size=2, max_size=5),
    said(WAYS[:3], ADDRESSES[1:6], SERVICES[2:7]),
)
@settings(max_examples=80, deadline=None)
def test_of_addresses_and_ports_it_is_said_exactly_where_it_is_so(above: list[str], words: str) -> None:
    """No group has a member: a rule is said to decide nothing if, and only if, every packet it matches is
    matched above, by one rule or by several together."""
    state = policy([*above, words], {"two": ["10.0.0.0/31"]}, {"here": "192.0.2.9"})
    (vnic,) = state.vnics
    last, matches, left = len(above) + 1, False, False
    for packet, direction in product(PACKETS, (Direction.IN, Direction.OUT)):
        matching = {rule for rule, against in mismatches(state, packet, vnic, direction) if against is None}
        matches |= last in matching
        left |= matching == {last}
    found = covered(state.rules, Sets(state.groups, {}, state.groups.keys()))
    event("hidden" if matches and not left else "not hidden")
    event("together" if last in found.together else "not together")
    assert not matches or (last in found.never or last in found.together) is not left, [*above, words]


TOGETHER = [
    ("drop in from web", "drop out", "allow from web"),
    ("drop ipv4", "reject ipv6", "allow from web"),
    ("drop service tcp/80", "drop service tcp/81-90", "allow service tcp/80-85"),
    ("drop service tcp/1-9@1-9", "drop service tcp/1-9@0-0,tcp/1-9@10-65535", "allow service tcp/5"),
    ("drop from 0.0.0.0/1", "drop from 128.0.0.0/1,::/0", "allow to web"),
    ("drop from web", "drop from 10.0.0.0/24", "allow from web,10.0.0.7"),
    ("drop from 10.0.0.2", "drop from fd00::/64", "allow from nets"),
    ("drop on web", "drop on nets", "allow on web,nets"),
    ("drop from web", "jump from 10.0.0.7", "allow from web,10.0.0.7"),
    ("drop from web", "drop from 10.0.0.7", "allow from web,10.0.0.7 monitored"),
    ("drop in service icmp", "drop out service icmp", "allow ipv4 service icmp,icmpv6"),
    ("drop frames 806", "drop frames 88cc", "allow frames 806,88cc"),
    ("drop frames any vlan 1-9", "drop frames any vlan 10", "allow frames 806 vlan 5-10"),
]
NOT_TOGETHER = [
    ("drop in from web", "drop out from 10.0.0.5", "allow from web"),
    ("drop service tcp/80", "drop service tcp/82-90", "allow service tcp/80-85"),
    ("drop ipv4", "drop ipv6 from 10.0.0.1", "allow"),
    ("drop from web", "drop from 10.0.0.7 monitored", "allow from web,10.0.0.7"),
    ("drop from web", "drop from all", "allow on web"),
    ("drop on web", "drop on all", "allow"),
    ("drop from 0.0.0.0/1", "drop from 128.0.0.0/1,::/0", "allow from web"),  # names are whole
    ("drop frames 806", "drop frames 88cc", "allow frames any"),
    ("drop frames any vlan 10", "drop frames any vlan 11", "allow frames 806"),
]


def test_what_several_rules_above_leave_nothing_of_is_found() -> None:
    """By each field, with who does it; and what leaves something is not."""
    for rules, expected in ((TOGETHER, {3: (1, 2)}), (NOT_TOGETHER, {})):
        for three in rules:
            state = policy(three, GROUPS, VNICS)
            known = Sets(state.groups, {}, {"nets", "wide"} & state.groups.keys())
            found = covered(state.rules, known)
            assert (found.never, found.together) == ({}, expected), three


def test_only_the_rules_that_it_takes_are_named() -> None:
    """Of four that have something of it, the three without which something would be left."""
    ports = ("85-95", "80-90", "91-93", "94-99")
    state = policy([*(f"drop service tcp/{each}" for each in ports), "allow service tcp/80-99"])
    assert covered(state.rules, Sets(state.groups)).together == {5: (1, 2, 4)}


def test_a_late_rule_is_hidden_by_what_nobody_jumps_over() -> None:
    """Behind a jump, rules of earlier categories are not sure to be asked."""
    sure = policy(["drop from web", "jump", "drop from 10.0.0.7 app", "allow from web,10.0.0.7 app"])
    unsure = policy(["jump", "drop from web", "drop from 10.0.0.7 app", "allow from web,10.0.0.7 app"])
    assert covered(sure.rules, Sets(sure.groups)).together == {4: (1, 3)}
    assert covered(unsure.rules, Sets(unsure.groups)).together == {}


def test_it_ends_in_time_where_everything_overlaps() -> None:
    """A thousand rules that each have a little of all others: no answer for some, and soon; what is cheap to
    say is said."""
    words = [
        f"drop service tcp/{n}-{n + 900} from 10.{n % 250}.0.0/15"
        for n in range(0, 2000, 2)
        if n % 250 % 2 == 0
    ]
    state = policy(["drop in service udp", "drop out service udp", "allow service udp", *words])
    assert covered(state.rules, Sets(state.groups)).together == {3: (1, 2)}
