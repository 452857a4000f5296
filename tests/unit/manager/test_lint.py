"""What is found in a policy that does nothing, or more than it should; and what is not."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager_stub.catalogue import objects
from manager_stub.findings import Finding, Kind
from manager_stub.lint import lint
from manager_stub.span import realise
from manager_stub.world import World
from tests.unit.manager.expressions import paths
from tests.unit.manager.rest import DOMAIN, INFRA, Manager
from tests.unit.manager.test_span import SECTIONS, literal, path, state, tagged, vm, whole, world
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import Direction

SERVICES = "/infra/services"
R = f"{SECTIONS}/s/rules"


def policy(
    *rules: dict[str, Any],
    section: dict[str, Any] | None = None,
    address: str = "192.0.2.1",
    more: Sequence[tuple[str, dict[str, Any]]] = (),
    **groups: Any,
) -> World:
    """web and db with a VM each, that of db at `address`, `web-and-db` of both, `nets` of addresses, `empty`,
    and other groups; the rules of one section, named one, two, three."""
    every = {
        "web": tagged("web"),
        "db": tagged("db"),
        "web-and-db": {"expression": [paths(path("web"), path("db"))]},
        "nets": literal("10.0.0.0/24", "fd00::/64"),
        "empty": tagged("nobody"),
    }
    names = ("one", "two", "three")
    return world(
        *((path(name), body) for name, body in (every | groups).items()),
        (f"{SECTIONS}/s", section or {}),
        *(
            (f"{R}/{name}", {"action": "ALLOW", "sequence_number": number, **rule})
            for number, (name, rule) in enumerate(zip(names, rules, strict=False))
        ),
        vm(0, ["web"], ["10.0.0.1"]),
        vm(1, ["db"], [address]),
        *more,
    )


def found(objects: World, *kinds: Kind) -> list[tuple[str, tuple[str, ...]]]:
    """Of these kinds: what, by its last name, and because of which others."""
    return [
        (finding.path.rpartition("/")[2], tuple(other.rpartition("/")[2] for other in finding.others))
        for finding in lint(realise(objects))
        if finding.kind in kinds
    ]


def tcp(*ports: str) -> list[dict[str, Any]]:
    return [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": [*ports]}]


def test_a_shadowed_rule_and_the_rule_that_shadows_it() -> None:
    """By a group in a group, by addresses in a prefix; not when it is the other way round, or disabled."""
    wide = {"action": "DROP", "source_groups": [path("web-and-db")]}
    narrow = {"source_groups": [path("web")], "service_entries": tcp("80")}
    assert found(policy(wide, narrow), Kind.SHADOWED) == [("two", ("one",))]
    assert found(policy(narrow, wide), Kind.SHADOWED) == []
    assert found(policy({**wide, "disabled": True}, narrow), Kind.SHADOWED) == []
    listed = {"action": "DROP", "source_groups": [path("nets")]}
    address = {"source_groups": ["10.0.0.7"]}
    assert found(policy(listed, address), Kind.SHADOWED) == [("two", ("one",))]
    prefixes = {"action": "DROP", "source_groups": ["10.0.0.0/8", "fd00::/8"]}
    assert found(policy(prefixes, {"source_groups": [path("nets")]}), Kind.SHADOWED) == [("two", ("one",))]


def test_a_group_that_has_members_too_is_more_than_its_addresses() -> None:
    """Its members may have any."""
    conjunction = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
    mixed = {"expression": [*literal("10.0.0.7")["expression"], conjunction, *tagged("web")["expression"]]}
    rules = {"action": "DROP", "source_groups": ["10.0.0.0/24"]}, {"source_groups": [path("mixed")]}
    assert found(policy(*rules, mixed=mixed), Kind.SHADOWED) == []
    assert found(policy(*rules, mixed=literal("10.0.0.7")), Kind.SHADOWED) == [("two", ("one",))]


def test_a_redundant_rule_and_the_one_that_does_the_same() -> None:
    """Above it or below it, if none between says otherwise."""
    wide, narrow = {"service_entries": tcp("80-89")}, {"service_entries": tcp("81")}
    assert found(policy(wide, narrow), Kind.REDUNDANT) == [("two", ("one",))]
    assert found(policy(narrow, wide), Kind.REDUNDANT) == [("one", ("two",))]
    drop = {"action": "DROP", "source_groups": [path("web")]}
    assert found(policy(narrow, drop, wide), Kind.REDUNDANT) == []


def test_a_rule_that_several_above_leave_nothing_together() -> None:
    """Shadowed if one of them does something else, redundant if all do the same; each is named."""
    halves = [{"action": "DROP", "service_entries": tcp(ports)} for ports in ("80-89", "90-99")]
    whole = {"source_groups": [path("web")], "service_entries": tcp("85-95")}
    (finding,) = [each for each in lint(realise(policy(*halves, whole))) if each.kind is Kind.SHADOWED]
    assert (
        finding.why
        == "'one' and 'two' above together match all that it matches, and say DROP: it never decides"
    )
    assert finding.others == (f"{R}/one", f"{R}/two")
    assert found(policy(*halves, {**whole, "action": "DROP"}), Kind.REDUNDANT) == [("three", ("one", "two"))]
    mixed = [halves[0], {**halves[1], "action": "ALLOW"}]
    assert found(policy(*mixed, whole), Kind.SHADOWED) == [("three", ("one", "two"))]
    assert found(policy(halves[0], {**halves[1], "direction": "IN"}, whole), Kind.SHADOWED) == []


ENDS = st.sampled_from(
    [
        *([value] for value in ("ANY", path("web"), path("db"), path("web-and-db"), path("nets"))),
        *(["10.0.0.0/24", "fd00::/64"], ["10.0.0.1", path("db")], ["0.0.0.0/0"], [path("empty")]),
    ]
)
RANDOM_RULES = st.fixed_dictionaries(
    {
        "action": st.sampled_from(("ALLOW", "DROP")),
        "source_groups": ENDS,
        "destination_groups": ENDS,
        "scope": st.sampled_from([["ANY"], [path("web")], [path("nets")], [path("web-and-db")]]),
        "direction": st.sampled_from(("IN", "OUT", "IN_OUT")),
        "service_entries": st.sampled_from([[], tcp("80"), tcp("80-90"), tcp()]),
    }
)
ADDRESSES = [ip_address(text) for text in ("10.0.0.1", "10.0.0.7", "192.0.2.1", "198.51.100.1")]


@pytest.mark.slow
@given(st.lists(RANDOM_RULES, min_size=3, max_size=3))
@settings(max_examples=80, deadline=None)
def test_without_what_is_shadowed_or_redundant_every_verdict_stays(rules: list[dict[str, Any]]) -> None:
    """From what the manager knows of its groups, for every packet between these addresses; what is shadowed
    decides none."""
    realised = realise(policy(*rules))
    whole_state = state(whole(realised))
    numbers = {rule.path: rule.number for rule in realised.world.rules.values()}
    said = {finding.path: finding.kind for finding in lint(realised)}
    gone = {numbers[path] for path, kind in said.items() if kind in (Kind.SHADOWED, Kind.REDUNDANT)}
    shadowed = {numbers[path] for path, kind in said.items() if kind is Kind.SHADOWED}
    rest = {id: rule for id, rule in whole_state.rules.items() if id not in gone}
    for source, destination, port in product(ADDRESSES, ADDRESSES, (80, 85, 22)):
        packet = Packet(source, destination, 6, port)
        for vnic, direction in product(whole_state.vnics, (Direction.IN, Direction.OUT)):
            verdict = evaluate(whole_state, packet, vnic, direction)
            assert verdict.rule_id not in shadowed
            left = evaluate(replace(whole_state, rules=rest), packet, vnic, direction)
            assert left.action is verdict.action


def test_rules_that_allow_too_much() -> None:
    """Everything, or every port of a protocol; not if it is dropped, monitored, or from somewhere."""
    for rule in ({}, {"services": ["ANY"]}, {"source_groups": ["0.0.0.0/0"]}, {"scope": [path("web")]}):
        assert found(policy(rule), Kind.TOO_WIDE) == [("one", ())], rule
    for entries in (tcp(), tcp("1-65535"), tcp("22", "0-65535")):
        rule = {"source_groups": [path("web")], "service_entries": entries}
        assert found(policy(rule), Kind.TOO_WIDE) == [("one", ())], entries
    for rule in (
        {"action": "DROP"},
        {"monitored": True},
        {"disabled": True},
        {"source_groups": [path("web")]},
        {"destination_groups": ["10.0.0.0/8"]},
        {"source_groups": [path("web")], "sources_excluded": True},
        {"service_entries": tcp("1-1024")},
    ):
        assert found(policy(rule), Kind.TOO_WIDE) == [], rule


def test_rules_for_every_service_that_deny_what_ipv6_needs_to_find_whom_it_talks_to() -> None:
    """Not one that nothing above needs it for, that has it allowed above, that says ports or IPv4, or where
    nobody has an IPv6 address."""
    use = {"source_groups": [path("web")], "destination_groups": [path("db")], "service_entries": tcp("80")}
    deny = {"action": "DROP", "destination_groups": [path("db")]}
    messages = [f"{SERVICES}/IPv6-ICMP_Neighbor_{each}" for each in ("Solicitation", "Advertisement")]
    services = [(path, body.model_dump(exclude_unset=True)) for path, body in objects().items()]
    of_them = [service for service in services if service[0] in messages]

    def denying(*rules: dict[str, Any], address: str = "fd00::1") -> list[tuple[str, tuple[str, ...]]]:
        return found(policy(*rules, address=address, more=of_them), Kind.NO_NEIGHBOURS)

    assert denying(use, deny) == [("two", ())]
    assert denying(use, deny, {**deny, "destination_groups": [path("web")]}) == [("two", ("three",))]
    assert denying(use, deny, deny) == [("two", ())], "the third decides nothing"
    assert denying(use, {**deny, "action": "REJECT", "services": messages[1:]}) == [("two", ())]
    assert denying(use, {"services": messages[:1]}, deny) == [("three", ())]
    assert denying(use, {"services": messages}, deny) == []
    assert denying(use, {"services": messages, "source_groups": [path("web")]}, deny) == [("three", ())]
    assert denying(deny, use) == []
    assert denying(use, deny, address="192.0.2.2") == []
    for more in ("service_entries", tcp("22")), ("ip_protocol", "IPV4"), ("monitored", True):
        assert denying(use, {**deny, **dict([more])}) == [], more
    assert denying(use, {**deny, "source_groups": ["10.0.0.0/8"]}) == []


def test_empty_groups_and_rules_that_name_no_other() -> None:
    """With who names them; a rule that excludes an empty group matches everything."""
    rule = {"source_groups": [path("empty")]}
    assert found(policy(rule), Kind.EMPTY_GROUP) == [("empty", ("one",))]
    assert found(policy(rule), Kind.MATCHES_NOTHING) == [("one", ("empty",))]
    for more in ({"sources_excluded": True}, {"source_groups": [path("empty"), "10.0.0.1"]}):
        assert found(policy({**rule, **more}), Kind.MATCHES_NOTHING) == [], more


def test_a_scope_that_selects_nothing() -> None:
    """Of a rule, or of a section in place of its rules'; an address selects who has it."""
    for scope, expected in (("empty", ["one"]), ("web", []), ("nets", []), ("far", ["one"])):
        objects = policy({"scope": [path(scope)]}, far=literal("198.51.100.0/24"))
        assert [name for name, _ in found(objects, Kind.APPLIED_TO_NOTHING)] == expected, scope
    objects = policy({"scope": [path("empty")]}, section={"scope": [path("web")]})
    assert found(objects, Kind.APPLIED_TO_NOTHING) == []
    objects = policy({}, section={"scope": [path("empty")]})
    assert found(objects, Kind.APPLIED_TO_NOTHING) == [("s", ("empty",))]


def test_what_nothing_names() -> None:
    """Groups that are in a group, or named by a rule that is disabled, are used."""
    objects = policy({"disabled": True, "scope": [path("nets")]})
    assert found(objects, Kind.UNUSED_GROUP) == [("empty", ()), ("web-and-db", ())]


@pytest.mark.slow
async def test_a_new_manager_allows_everything_and_is_told_so(manager: Manager) -> None:
    """Predefined objects are never in the way: all there is to find is that the default rule allows."""
    answer = await manager.call("GET", f"{INFRA}/rule-analysis")
    (finding,) = answer["results"]
    assert (finding["kind"], finding["display_name"]) == ("TOO_WIDE", "Default Layer3 Rule")
    assert "set its action to DROP" in finding["next_step"]


@pytest.mark.slow
async def test_findings_are_told_by_rest(manager: Manager) -> None:
    """Each with object, reason, the others by name, and the next step; by kind; in pages; to an auditor."""
    rules = [
        {"id": "all", "display_name": "no ssh", "action": "DROP", "services": [f"{SERVICES}/SSH"]},
        {"id": "some", "action": "ALLOW", "services": [f"{SERVICES}/SSH"], "direction": "IN"},
    ]
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": rules})
    await manager.call("PUT", f"{DOMAIN}/groups/spare", {})
    await manager.call("PUT", "/api/v1/vsfw/users/a", {"role": "auditor", "password": "a password of length"})
    manager.rest.auth = ("a", "a password of length")
    answer = await manager.call("GET", f"{INFRA}/rule-analysis?kind=SHADOWED")
    section = f"{SECTIONS}/s/rules"
    assert answer["results"] == [
        {
            "kind": "SHADOWED",
            "path": f"{section}/some",
            "display_name": "some",
            "why": "'no ssh' above matches all that it matches, and says DROP: it never decides",
            "others": [{"path": f"{section}/all", "display_name": "no ssh"}],
            "others_count": 1,
            "next_step": "move it above the other, narrow the other, or delete it",
        }
    ]
    page = await manager.call("GET", f"{INFRA}/rule-analysis?page_size=1&cursor=1")
    assert (page["result_count"], page["cursor"], len(page["results"])) == (4, "2", 1)
    refused = await manager.answer("GET", f"{INFRA}/rule-analysis?kind=BAD")
    assert (refused.status_code, "kind" in refused.json()["error_message"]) == (400, True)


def test_every_finding_says_why_and_what_to_do() -> None:
    """In words that end nowhere in the middle."""
    objects = policy({"scope": [path("empty")]}, {"source_groups": [path("empty")]}, {"action": "DROP"})
    every: list[Finding] = lint(realise(objects))
    assert {finding.kind for finding in every} >= {Kind.TOO_WIDE, Kind.EMPTY_GROUP, Kind.APPLIED_TO_NOTHING}
    assert all(finding.why and finding.next_step for finding in every)
