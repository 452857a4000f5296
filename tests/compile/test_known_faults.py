"""Faults that other firewalls shipped, one test each; the name of the advisory stands in the docstring."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from itertools import permutations

import pytest

from tests.harness.imagelookup import classify
from tests.harness.policies import HOST, after, group, objects, policy, rule, vnic_id
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import Action, Direction
from vsfwd.protocol.envelope import Kind

IN, OUT = Direction.IN, Direction.OUT
DEFAULT = "drop"


def decided(
    state: DesiredState,
    source: str,
    destination: str,
    port: int = 80,
    direction: Direction = IN,
    protocol: int = 6,
) -> int | None:
    """The rule that decides on a packet at the vNIC `here`, by image and by specification alike."""
    packet = Packet(ip_address(source), ip_address(destination), protocol, port)
    verdict = classify(compile(state, {vnic_id("here"): 7}), 7, direction, packet)
    assert verdict == evaluate(state, packet, vnic_id("here"), direction)
    return verdict.rule_id


def at_here(
    rules: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None, **vnics: str
) -> DesiredState:
    return policy(rules, groups, {"here": "10.0.0.1 fd00::1", **vnics})


@pytest.mark.parametrize(
    "poison",
    [
        b'{"name":"p","section":"s","order":[1],"action":"drop","sources":{"addresses":["10.0.0.0/33"]}}',
        b'{"name":"p","section":"s","order":[1],"action":"drop","services":[{"protocol":112,"ports":[[22,22]]}]}',
        b'{"name":"p","section":"s","order":[1],"action":"drop","services":[{"protocol":6,"ports":[[9,8]]}]}',
        b'{"name":"p","section":"s","order":[1],"action":"drop","sources":{"groups":["never sent"]}}',
        b'{"name":"p","section":"s","order":[1],"action":"maybe"}',
        b'{"name":"p","section":"s","order":[1],"action":"drop","priority":7}',
        b'{"name":"p","section":"s","order":"first","action":"drop"}',
        b"[]",
        b"17",
        b'"rule"',
    ],
)
def test_a_bad_rule_never_stops_the_others(poison: bytes) -> None:
    """CVE-2014-0187, CVE-2019-9735: the bad rule is named and left out, the rules below it are enforced."""
    sent = objects(["allow service tcp/80", DEFAULT], {}, {"here": "10.0.0.1"})
    state = after(DesiredState(), {**sent, "rules": {"9": poison, **sent["rules"]}}, Kind.SNAPSHOT)
    assert [(refusal.kind, refusal.id) for refusal in state.refusals] == [("rules", "9")]
    assert decided(state, "10.9.9.9", "10.0.0.1", 80) == 1
    assert decided(state, "10.9.9.9", "10.0.0.1", 81) == 2


@pytest.mark.parametrize(("everything", "source"), [("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8::1")])
def test_a_prefix_of_length_zero_is_a_prefix(everything: str, source: str) -> None:
    """CVE-2015-3221: /0 is all of its family and nothing of the other, alone, excluded, in a group and as
    scope."""
    destination = "10.0.0.1" if ":" not in source else "fd00::1"
    other, there = ("2001:db8::1", "fd00::1") if ":" not in source else ("192.0.2.1", "10.0.0.1")
    for rules, groups in (
        ([f"allow from {everything}", DEFAULT], {}),
        (["allow from all", DEFAULT], {"all": [everything]}),
    ):
        state = at_here(rules, groups)
        assert decided(state, source, destination) == 1
        assert decided(state, other, there) == 2
    excluding = at_here([f"allow from not {everything}", DEFAULT])
    assert decided(excluding, source, destination) == 2
    assert decided(excluding, other, there) == 1
    assert decided(at_here(["allow on all", DEFAULT], {"all": [everything]}), source, destination) == 1


def test_overlapping_port_ranges_are_their_union() -> None:
    """CVE-2019-10876, CVE-2024-52529: a range inside, beside and across another loses nothing and adds
    nothing."""
    state = at_here(
        [
            "allow service tcp/10-20,tcp/15-30,tcp/15-15,tcp/31-40,tcp/40-45",
            "allow service tcp/35-50",
            DEFAULT,
        ]
    )
    expected = {
        9: 3,
        10: 1,
        15: 1,
        20: 1,
        21: 1,
        30: 1,
        31: 1,
        40: 1,
        45: 1,
        46: 2,
        50: 2,
        51: 3,
        0: 3,
        65535: 3,
    }
    assert {port: decided(state, "10.9.9.9", "10.0.0.1", port) for port in expected} == expected


def test_the_last_port_and_the_first_of_the_next_protocol() -> None:
    """A range up to 65535 ends there: TCP does not run on into UDP, nor UDP into ICMP."""
    state = at_here(["allow service tcp/65000-65535", "allow service udp/0", DEFAULT])
    assert decided(state, "10.9.9.9", "10.0.0.1", 65535) == 1
    assert decided(state, "10.9.9.9", "10.0.0.1", 0, protocol=17) == 2
    assert decided(state, "10.9.9.9", "10.0.0.1", 1, protocol=17) == 3


def test_a_broad_drop_beside_a_narrow_allow() -> None:
    """CVE-2024-47825: which of two overlapping prefixes is longer does not matter, their order does."""
    for rules, expected in (
        (["drop from 10.0.0.0/8", "allow from 10.1.0.0/16", DEFAULT], 1),
        (["allow from 10.1.0.0/16", "drop from 10.0.0.0/8", DEFAULT], 1),
        (["allow from 10.1.2.0/24", "drop from 10.0.0.0/8", DEFAULT], 2),
    ):
        assert decided(at_here(rules), "10.1.9.9", "10.0.0.1") == expected


def test_prefixes_inside_prefixes_add_up() -> None:
    """Every prefix around an address counts, not only the longest; a host inside them counts for all."""
    groups = {"wide": ["10.0.0.0/8"], "middle": ["10.1.0.0-10.1.2.255"], "host": ["10.1.1.1"]}
    for name in groups:
        for source in ("10.1.1.1", "10.1.1.2", "10.2.0.1"):
            inside = name == "wide" or (name == "middle" and source != "10.2.0.1") or source == "10.1.1.1"
            rules = [
                f"allow from {name}",
                *(f"drop from {other}" for other in groups if other != name),
                "reject",
            ]
            assert decided(at_here(rules, groups), source, "10.0.0.1") == (1 if inside else 2), (name, source)


@pytest.mark.parametrize(
    "empty", ["from nobody", "to nobody", "service nobody", "on nobody", "from void", "on void"]
)
def test_what_is_empty_matches_nothing(empty: str) -> None:
    """CVE-2025-64715: an empty list is not any, also after it travelled as JSON; nor is a group without
    members."""
    assert decided(at_here([f"allow {empty}", DEFAULT]), "10.9.9.9", "10.0.0.1") == 2


@pytest.mark.parametrize("empty", ["from not nobody", "to not nobody", "from not void"])
def test_what_excludes_nothing_matches_everything(empty: str) -> None:
    """The other side of the same: there is nothing to exclude."""
    assert decided(at_here([f"allow {empty}", DEFAULT]), "10.9.9.9", "10.0.0.1") == 1


def test_a_wildcard_rule_does_not_widen_others() -> None:
    """CVE-2023-30851: a rule for any source leaves a rule for one source as it is."""
    state = at_here(["allow from web service tcp/22", "allow service tcp/80", DEFAULT], web1="10.0.0.8 web")
    assert decided(state, "10.0.0.8", "10.0.0.1", 22) == 1
    assert decided(state, "10.9.9.9", "10.0.0.1", 22) == 3
    assert decided(state, "10.9.9.9", "10.0.0.1", 80) == 2


def test_a_rule_for_one_direction_leaves_the_other() -> None:
    """CVE-2022-0567: allowing out does not open in."""
    state = at_here(["allow out", DEFAULT])
    assert decided(state, "10.0.0.1", "10.9.9.9", direction=OUT) == 1
    assert decided(state, "10.9.9.9", "10.0.0.1", direction=IN) == 2


def test_the_65537th_order_comes_after_the_second() -> None:
    """CVE-2026-25804: an order of any size sorts as a number, and then by rule id."""
    late, early = rule("drop service tcp", 65537), rule("allow service tcp/80", 2)
    assert late.order > early.order
    state = policy([], vnics={"here": "10.0.0.1"})
    state = after(
        state, {"rules": {"1": late, "2": early, "3": rule("reject", 2**40), "4": rule("allow", 2**40)}}
    )
    assert decided(state, "10.9.9.9", "10.0.0.1", 80) == 2
    assert decided(state, "10.9.9.9", "10.0.0.1", 81) == 1
    assert decided(state, "10.9.9.9", "10.0.0.1", 53, protocol=17) == 3


def test_the_order_in_which_groups_are_joined_does_not_matter() -> None:
    """CVE-2024-42488: group, member and rule may come in any order of messages; in the end the rule holds."""
    sent = objects(["drop from bad", "allow"], {}, {"here": "10.0.0.1", "far": "10.0.0.9 bad"})
    for kinds in permutations(sent):
        state = DesiredState()
        for number, kind in enumerate(kinds):
            state = after(state, {kind: sent[kind]}, Kind.DELTA if number else Kind.SNAPSHOT)
        assert state.refusals == ()
        assert decided(state, "10.0.0.9", "10.0.0.1") == 1


def test_nobody_joins_a_group_by_forging_a_source() -> None:
    """X33, I8: a packet out of a vNIC from another's address has none of that vNIC's groups, here or
    elsewhere."""
    rules = ["allow from admins", "allow from 10.0.0.8/31 service udp", DEFAULT]
    state = at_here(rules, local="10.0.0.8 admins", far="10.0.0.9 fd00::9 admins")
    for forged in ("10.0.0.8", "10.0.0.9"):
        assert decided(state, forged, "10.7.7.7", direction=OUT) == 3
        assert decided(state, forged, "10.7.7.7", direction=OUT, protocol=17) == 2
        assert decided(state, forged, "10.0.0.1", direction=IN) == 1
    assert decided(state, "fd00::9", "fd00::7", direction=OUT) == 3
    assert decided(state, "10.9.9.9", "10.7.7.7", direction=OUT) == 3


def test_both_families_mean_the_same() -> None:
    """GHSA-wc5v-r48v-g4vh: a policy written on objects gives both families the same verdicts."""
    groups = {"net": ["10.5.0.0/16", "fd05::/16"]}
    state = at_here(
        ["allow from web to net", "reject from net", DEFAULT], groups, web1="10.0.0.8 fd00::8 web"
    )
    pairs = (("10.0.0.8", "fd00::8"), ("10.5.0.1", "fd05::1"), ("192.0.2.1", "2001:db8::1"))
    for source4, source6 in pairs:
        for destination4, destination6 in pairs:
            assert decided(state, source4, destination4) == decided(state, source6, destination6)


def test_a_group_is_not_taken_for_an_address_or_a_vnic() -> None:
    """CVE-2025-30163: a group that is named like an address, or like a vNIC, is only a group."""
    name = "10.0.0.8/32"
    sent = objects([DEFAULT], {}, {"here": "10.0.0.1"})
    odd = {
        "name": "odd",
        "section": "s",
        "order": [0],
        "action": Action.ALLOW,
        "sources": {"groups": [name, HOST]},
    }
    rules = {"9": odd, **sent["rules"]}
    groups = {name: group("10.6.6.6"), HOST: group()}
    state = after(DesiredState(), {**sent, "rules": rules, "groups": groups}, Kind.SNAPSHOT)
    assert decided(state, "10.6.6.6", "10.0.0.1") == 9
    assert decided(state, "10.0.0.8", "10.0.0.1") == 1
