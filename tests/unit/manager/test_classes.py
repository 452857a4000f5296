"""How many classes of addresses a host must tell apart, counted before it is sent them."""

import pytest
from hypothesis import given, settings

from manager_stub import levels
from manager_stub.classes import classes
from manager_stub.levels import TooMuch, check_size
from tests.harness import strategies
from tests.harness.policies import Objects, after, policy
from vsfwd.image import Image
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Kind

pytestmark = pytest.mark.slow


def told_apart(image: Image) -> int:
    """Pairs of rows that addresses have in the tables of a host."""
    entries = (*image.hosts.values(), *image.prefixes.values())
    return len({(image.rows[entry.source], image.rows[entry.destination]) for entry in entries})


def test_what_is_known_by_the_same_groups_and_prefixes_is_one_class() -> None:
    """Of web, the same of IPv6, of db, of both, of web in 10.0.1.0/24; then what has no group: in
    10.0.1.0/24, the address that a rule names, and the rest, IPv4 and IPv6."""
    state = policy(
        ["allow from web to db", "drop from 10.0.1.0/24", "drop to 10.0.2.9"],
        vnics={
            "one": "10.0.0.1 10.0.0.2 fd00::1 web",
            "two": "10.0.0.3 web",
            "db": "10.0.0.4 db",
            "both": "10.0.0.5 web db",
            "within": "10.0.1.6 10.0.1.7 web",
            "without": "web",
        },
    )
    assert classes(state.raw, 0) == 9
    assert classes(state.raw, 8) == 9


def test_mac_addresses_have_classes_of_their_own() -> None:
    """Where an Ethernet rule asks: of locked, of printers by its list, of both, and all others. To these
    belong one that two vNICs have, and a group that only rules for packets name."""
    vnics = {
        "one": "02:00:00:00:00:01 locked",
        "two": "02:00:00:00:00:02 locked",
        "printer": "02:00:00:00:00:03 locked",
        "twin": "02:00:00:00:00:04 locked",
        "same": "02:00:00:00:00:04 locked",
        "web": "02:00:00:00:00:05 web",
    }
    groups = {"printers": ["02:00:00:00:00:03", "02:00:00:00:00:06"]}
    packets = ["allow from web", "drop from locked"]
    frames = ["drop from locked frames any", "drop to printers frames any"]
    everything_else = classes(policy(packets, groups, vnics).raw, 0)
    assert classes(policy([*frames, *packets], groups, vnics).raw, 0) == everything_else + 4


@settings(max_examples=150, deadline=None)
@given(objects=strategies.mixed_policies)
def test_ethernet_rules_make_no_more_classes_than_were_counted(objects: Objects) -> None:
    """As of the others."""
    state = after(DesiredState(), objects, Kind.SNAPSHOT)
    counted = classes(state.raw, 0)
    assert told_apart(compile(state, {id: 0 for id in strategies.VNICS[:1]})) <= counted
    assert counted <= classes(state.raw, 10**6)


def test_few_addresses_are_not_counted_by_class() -> None:
    """Nothing is looked at twice where even the number of addresses is within the limit."""
    state = policy(["allow from web"], vnics={"one": "10.0.0.1 10.0.0.2 10.0.0.3 web"})
    assert classes(state.raw, 5) == 5
    assert classes(state.raw, 4) == 3


@settings(max_examples=150, deadline=None)
@given(objects=strategies.policies)
def test_a_host_never_has_more_classes_than_were_counted(objects: Objects) -> None:
    """Whatever the policy: the rows in the tables of the host, and a count that stops early, which is no
    smaller."""
    state = after(DesiredState(), objects, Kind.SNAPSHOT)
    counted = classes(state.raw, 0)
    assert told_apart(compile(state, {id: 0 for id in strategies.VNICS[:1]})) <= counted
    assert counted <= classes(state.raw, 10**6)


def test_more_classes_than_a_host_tells_apart_are_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit fits, one more does not, and the reason has both numbers."""
    state = policy(["allow from web to db"], vnics={"a": "10.0.0.1 web", "b": "10.0.0.2 db"})
    wanted = levels.state(state.raw)
    monkeypatch.setattr(levels, "MAX_CLASSES", 4)
    check_size(wanted)
    monkeypatch.setattr(levels, "MAX_CLASSES", 3)
    with pytest.raises(TooMuch, match=r"of 4 classes.* at most 3 apart"):
        check_size(wanted)
