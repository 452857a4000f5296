"""Rules that never decide, and rules nobody would miss: what is said of them, against the evaluator."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import chain, product
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from manager_stub.covering import Covered, Sets, covered, covering
from tests.harness.policies import after, policy
from tests.harness.strategies import frames, mixed_policies, packets, policies
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, Packet, evaluate, evaluate_frame, mismatches
from vsfwd.policy.model import Action, Direction, Group, Rule, Schedule, Service
from vsfwd.protocol.envelope import Kind

pytestmark = pytest.mark.slow

DIRECTIONS = (Direction.IN, Direction.OUT)
ENDS = (
    "",
    "web",
    "all",
    "nets",
    "wide",
    "10.0.0.0/30",
    "10.0.0.2,fd00::1",
    "web,10.0.0.9",
    "not web",
    "nobody",
)
SERVICES = (
    "",
    "tcp",
    "tcp/80-81",
    "tcp/80,udp/53",
    "tcp/80@1000-2000",
    "icmp/8,icmpv6/128",
    "icmp",
    "nobody",
)
SCOPES = ("", "web", "all", "nets")
WAYS = ("", "in", "out ipv4", "ipv6")
GROUPS = {
    "web": ["10.0.0.5"],
    "all": ["10.0.0.5", "10.0.0.9"],
    "nets": ["10.0.0.2", "fd00::/127"],
    "wide": ["10.0.0.0/28", "fd00::/16"],
}
VNICS = {"here": "10.0.0.1 fd00::5 web all", "other": "10.0.0.2 fd00::1", "away": "10.0.0.9 fd00::9 all"}
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.9", "192.0.2.1", "fd00::1", "fd00::5", "2001:db8::1")
DETAILS = ((6, 80, 1500), (6, 80, 9), (6, 82, 9), (17, 53, 9), (1, 8, 0), (1, 0, 0), (58, 128, 0), (47, 0, 0))


def sets(state: DesiredState) -> Sets:
    """What holds for the state's own vNICs: which groups have no member, which have all that another has."""
    members = {
        group: {id for id, vnic in state.vnics.items() if group in vnic.groups} for group in state.groups
    }
    wider = {
        group: {
            other
            for other, more in state.groups.items()
            if members[group] <= members[other]
            and set(state.groups[group].addresses) <= set(more.addresses)
            and set(state.groups[group].macs) <= set(more.macs)
        }
        for group in state.groups
    }
    literal = {group for group in state.groups if not members[group] and not state.groups[group].macs}
    return Sets(state.groups, wider, literal)


def small_world(stride: int) -> DesiredState:
    """Every so many of the rules that can be said with these words."""
    said = [
        f"allow {way} {from_ and f'from {from_}'} {to and f'to {to}'} "
        f"{service and f'service {service}'} {scope and f'on {scope}'}"
        for way, from_, to, service, scope in product(WAYS, ENDS, ENDS, SERVICES, SCOPES)
    ]
    return policy(said[::stride], GROUPS, VNICS)


def matched(state: DesiredState) -> dict[int, int]:
    """By rule, a bit for every packet of the small world that it matches at some vNIC, in or out."""
    found, bit = dict.fromkeys(state.rules, 0), 1
    for source, destination in product(map(ip_address, ADDRESSES), repeat=2):
        for protocol, port, source_port in DETAILS:
            if source.version != destination.version or protocol == (58 if source.version == 4 else 1):
                continue
            packet = Packet(source, destination, protocol, port, icmp_type=port, source_port=source_port)
            for vnic, direction in product(state.vnics, DIRECTIONS):
                for rule, against in mismatches(state, packet, vnic, direction):
                    found[rule] |= 0 if against else bit
                bit <<= 1
    return found


@pytest.mark.parametrize(
    "stride",
    [
        pytest.param(97, marks=pytest.mark.slow),
        pytest.param(11, marks=pytest.mark.deep),
    ],
)
def test_a_rule_that_covers_another_matches_all_that_it_matches(stride: int) -> None:
    """Every pair of rules of a small closed world, every packet there can be in it. Nearly every rule that
    covers another one by what it says is found."""
    state = small_world(stride)
    matches, rules = matched(state), list(state.rules.values())
    assert sets(state) == Sets(state.groups, sets(state).wider, {"nets", "wide"})
    masks = [matches[id] for id in state.rules]
    pairs = 0
    for place, cover in enumerate(covering(rules, sets(state), ethernet=False)):
        assert cover >> place & 1 or not masks[place], rules[place]
        for other in range(len(rules)):
            if cover >> other & 1 and other != place:
                assert masks[place] & ~masks[other] == 0, (rules[place].name, rules[other].name)
                pairs += 1
    assert pairs > len(rules)


def verdicts(state: DesiredState, asked: list[Packet | Frame]) -> list[tuple[object, int | None]]:
    """What is decided at every vNIC, in and out, and by which rule."""
    found: list[tuple[object, int | None]] = []
    for packet, vnic, direction in product(asked, state.vnics, DIRECTIONS):
        ask = evaluate_frame if isinstance(packet, Frame) else evaluate
        verdict = ask(state, packet, vnic, direction)  # type: ignore[operator]
        found.append(((verdict.action, verdict.no_state), verdict.rule_id))
    return found


def check(state: DesiredState, found: Covered, asked: list[Packet | Frame]) -> None:
    before = verdicts(state, asked)
    never = found.never.keys() | found.together.keys()
    assert not {rule for _, rule in before} & never
    rest = {id: rule for id, rule in state.rules.items() if id not in never | found.spare.keys()}
    after_ = verdicts(replace(state, rules=rest), asked)
    assert [action for action, _ in after_] == [action for action, _ in before]
    assert not {*found.never.values(), *chain(*found.together.values())} & never
    assert not set(found.spare.values()) - rest.keys()


SCHEDULES = (None, None, Schedule(days=(0,)), Schedule(days=(1,)))


@given(
    policies | mixed_policies,
    st.lists(packets() | frames(), min_size=6, max_size=6),
    st.lists(st.sampled_from(SCHEDULES), min_size=9, max_size=9),
    st.sets(st.sampled_from(SCHEDULES[2:])),
)
@settings(max_examples=250, deadline=None)
def test_what_is_found_decides_nothing_and_nobody_misses_it(objects, asked, when, shut) -> None:  # type: ignore[no-untyped-def]
    """Random policies with jumps, monitored rules, Ethernet rules and schedules: a rule of `never` decides no
    packet, and with all that is found taken out every verdict stays, whichever schedules are open."""
    state = after(DesiredState(), objects, Kind.SNAPSHOT)
    rules = {id: structs.replace(rule, schedule=when[id - 1]) for id, rule in state.rules.items()}
    found = covered(rules, sets(state))
    there = {id: rule for id, rule in rules.items() if rule.schedule not in shut}
    never = {id: by for id, by in found.never.items() if id in there}
    spare = {id: by for id, by in found.spare.items() if id in there}
    together = {id: by for id, by in found.together.items() if id in there}
    check(replace(state, rules=there), Covered(never, spare, together), asked)


NEVER = [
    ("drop from web", "allow from web to 10.0.0.1"),
    ("drop service tcp", "allow service tcp/80,tcp/90-99"),
    ("drop service tcp/80-90", "allow service tcp/80@1-9,tcp/82-83,tcp/84-90"),
    ("drop service icmp", "allow service icmp/3/1"),
    ("drop from 10.0.0.0/8,fd00::/64", "allow from nets"),
    ("drop from wide", "allow from nets"),
    ("drop from all", "allow in from web"),
    ("drop from not web", "allow ipv4 from not web"),
    ("drop on all", "allow on web"),
    ("drop service 47", "allow service 47 monitored"),
    ("jump from web", "allow from web to 10.0.0.1"),
    ("drop from web", "jump from web"),
    ("drop frames any", "allow frames 806"),
]
NOT_NEVER = [
    ("drop from web", "allow from all"),
    ("drop from web monitored", "allow from web"),
    ("drop in from web", "allow from web"),
    ("drop ipv4", "allow"),
    ("drop service tcp/80@1-9", "allow service tcp/80"),
    ("drop service tcp/80-89,tcp/91-99", "allow service tcp/80-99"),
    ("drop from nets", "allow from 10.0.0.0/8"),
    ("drop from 10.0.0.0/8", "allow from nets"),
    ("drop from 10.0.0.0,10.0.0.8/30", "allow from 10.0.0.0/28"),
    ("drop from not 10.0.0.1", "allow from web"),
    ("drop on web", "allow"),
    ("jump from web", "allow from web app"),
    ("drop frames any", "allow"),
    ("drop frames any vlan 10", "allow frames 806"),
]


def test_what_one_rule_above_leaves_nothing_is_found() -> None:
    """By each field: groups in groups, addresses in groups, ranges of ports, source ports, frames; and what
    leaves something is not."""
    for pairs, expected in ((NEVER, {2: 1}), (NOT_NEVER, {})):
        for pair in pairs:
            state = policy(pair, GROUPS, VNICS)
            known = Sets(state.groups, {"web": {"all"}}, {"nets", "wide"} & state.groups.keys())
            assert covered(state.rules, known).never == expected, pair


def test_a_jump_above_makes_what_lies_between_unsure() -> None:
    """Of an application's rule a rule that jumps, or one behind it, leaves perhaps all; one before it
    nothing."""
    behind = policy(["jump from web", "drop to 10.0.0.1", "allow to 10.0.0.1 app"])
    before = policy(["drop to 10.0.0.1", "jump from web", "allow to 10.0.0.1 app"])
    assert covered(behind.rules, Sets(behind.groups)).never == {}
    assert covered(before.rules, Sets(before.groups)).never == {3: 1}


def test_what_a_rule_below_decides_the_same_is_found() -> None:
    """Unless a rule between says otherwise, or it would be logged otherwise; and of two that are the same one
    stays."""
    for rules, never, spare in (
        (["allow service tcp/80", "allow in service tcp/81", "allow service tcp"], {}, {1: 3, 2: 3}),
        (["allow service tcp/80", "drop from web", "allow service tcp"], {}, {}),
        (["allow service tcp/80 logged", "allow service tcp"], {}, {}),
        (["allow from web", "allow from web"], {2: 1}, {}),
        (["allow from web", "drop monitored", "allow"], {}, {1: 3}),
    ):
        state = policy(rules)
        assert covered(state.rules, Sets(state.groups)) == Covered(never, spare), rules


def test_a_rule_with_a_schedule_hides_only_what_is_in_force_with_it() -> None:
    """The same schedule; nothing of another one, or of a rule that always is."""
    days = Schedule(days=(0,)), Schedule(days=(1,)), None
    for above, below in product(days, repeat=2):
        rules = policy(["drop from web", "allow from web"]).rules
        rules = {1: structs.replace(rules[1], schedule=above), 2: structs.replace(rules[2], schedule=below)}
        hides = above in (None, below)
        assert covered(rules, Sets({"web": Group("web")})).never == ({2: 1} if hides else {}), (above, below)


RANGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=3)


@given(st.lists(RANGES, min_size=2, max_size=12))
@settings(max_examples=200, deadline=None)
def test_many_ranges_of_ports_are_looked_up_in_blocks(every: list[list[tuple[int, int]]]) -> None:
    """Blocks of two, against the ports themselves."""
    ports = [{port for low, more in each for port in range(low, low + more + 1)} for each in every]
    rules = [
        Rule("r", "s", (4, number), Action.ALLOW, services=(Service(6, tuple((p, p) for p in sorted(each))),))
        for number, each in enumerate(ports)
    ]
    with patch("manager_stub.covering.fields.BLOCK", 2):
        found = covering(rules, Sets({}), ethernet=False)
    for place, other in product(range(len(rules)), repeat=2):
        assert found[place] >> other & 1 == (ports[place] <= ports[other])
