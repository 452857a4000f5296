"""Random groups in random groups, against the plainest evaluator there is: sets of vNICs, from the bodies as
JSON."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager_stub.groups import grouped
from manager_stub.membership import Membership, candidate
from manager_stub.span import realise
from manager_stub.world import World
from tests.unit.manager.expressions import AND, OR, condition, ids, ips, joined, named, nested, paths, world

pytestmark = pytest.mark.slow

GROUPS = tuple("abcdef")
WORDS = ("", "web", "Web-1", "WEB-1", "db")
HOSTS = tuple(f"33333333-0000-4000-8000-00000000000{number}" for number in range(3))
VMS = tuple(f"11111111-0000-4000-8000-00000000000{number}" for number in range(4))
VNICS = tuple(f"22222222-0000-4000-8000-00000000000{number}" for number in range(4))
SEGMENTS = ("red", "blue")
ADDRESSES = tuple(f"10.0.0.{number}" for number in range(4))
POSITIVE = {
    "EQUALS": lambda text, value: text == value,
    "CONTAINS": lambda text, value: value in text,
    "STARTSWITH": lambda text, value: text.startswith(value),
    "ENDSWITH": lambda text, value: text.endswith(value),
    "IN": lambda text, value: text in value.split(","),
    "MATCHES": lambda text, value: re.fullmatch(value, text) is not None,
}
NEGATIVE = {"NOTEQUALS": "EQUALS", "NOTIN": "IN"}

words = st.sampled_from(WORDS)
tags = st.lists(st.builds(lambda scope, tag: {"scope": scope, "tag": tag}, words, words), max_size=3)


@st.composite
def conditions(draw: st.DrawFn, groups: tuple[str, ...]) -> dict[str, Any]:
    member_type = draw(st.sampled_from(["VirtualMachine", "Segment", "SegmentPort", "Cluster", "Datacenter"]))
    key = draw(
        st.sampled_from(["Name", "Tag"] + ["OSName", "ComputerName"] * (member_type == "VirtualMachine"))
    )
    operator = draw(st.sampled_from([*POSITIVE, *NEGATIVE]))
    value = draw(st.sampled_from(WORDS[1:]))
    more: dict[str, Any] = {}
    if key == "Tag" and draw(st.booleans()):
        value = f"{draw(words)}|{value}"
        if value[0] != "|" and draw(st.booleans()):
            more["scope_operator"] = "NOTEQUALS"
    if draw(st.booleans()):
        excluded = [named(group) for group in groups] + [f"/vsfw/vms/{vm}" for vm in VMS]
        more["exclude"] = {
            "ip_address_expression": ips(draw(st.sampled_from(ADDRESSES))),
            "path_expression": paths(draw(st.sampled_from(excluded))),
        }
    return condition(member_type, key, operator, value, **more)


@st.composite
def expressions(draw: st.DrawFn, groups: tuple[str, ...]) -> list[dict[str, Any]]:
    """May name only these groups, so that none is in itself."""
    places = [f"/vsfw/vms/{vm}" for vm in VMS] + [f"/vsfw/vnics/{vnic}" for vnic in VNICS]
    places += [f"/infra/segments/{segment}" for segment in SEGMENTS] + [
        "/vsfw/clusters/c0",
        "/vsfw/datacenters/dc",
    ]
    listing = st.one_of(
        st.builds(ips, st.sampled_from(ADDRESSES)),
        st.builds(paths, st.sampled_from([*map(named, groups), *places])),
        st.builds(ids, st.just("VirtualMachine"), st.sampled_from(VMS)),
        st.builds(ids, st.just("VirtualNetworkInterface"), st.sampled_from(VNICS)),
    )
    asking = st.one_of(
        conditions(groups), st.lists(conditions(groups), min_size=1, max_size=3).map(lambda all: nested(*all))
    )
    terms = draw(
        st.lists(
            st.one_of(st.lists(asking, min_size=1, max_size=2), listing.map(lambda one: [one])), max_size=3
        )
    )
    found: list[dict[str, Any]] = []
    for term in terms:
        found += ([OR] if found else []) + joined(AND, *term)
    return found


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for segment in SEGMENTS:
        made[f"/infra/segments/{segment}"] = {"display_name": segment, "tags": draw(tags)}
    for number, (id, vnic) in enumerate(zip(VMS, VNICS, strict=True)):
        port = {
            "id": vnic,
            "mac": f"02:00:00:00:00:0{number}",
            "addresses": [ADDRESSES[number]],
            "tags": draw(tags),
        }
        if draw(st.booleans()):
            port["segment_path"] = f"/infra/segments/{draw(st.sampled_from(SEGMENTS))}"
        if draw(st.booleans()):
            port["display_name"] = draw(words)
        body = {"display_name": draw(st.sampled_from(WORDS[1:])), "tags": draw(tags), "vnics": [port]}
        for field in ("os_name", "computer_name"):
            if draw(st.booleans()):
                body[field] = draw(words)
        made[f"/vsfw/vms/{id}"] = body
    for number in (0, 1):
        body = {
            "display_name": draw(st.sampled_from(WORDS[1:])),
            "hosts": [HOSTS[number]],
            "tags": draw(tags),
        }
        made[f"/vsfw/clusters/c{number}"] = {**body, "hosts": [HOSTS[number]]}
    made["/vsfw/datacenters/dc"] = {"display_name": draw(st.sampled_from(WORDS[1:])), "clusters": ["c1"]}
    return made


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    return {
        named(group): {"expression": draw(expressions(GROUPS[:number]))}
        for number, group in enumerate(GROUPS)
    }


plugs = st.fixed_dictionaries({vnic: st.frozensets(st.sampled_from(HOSTS), max_size=2) for vnic in VNICS})


class Naive:
    """Each question answered from the bodies, for one vNIC."""

    def __init__(self, bodies: dict[str, dict[str, Any]], hosts: frozenset[str], number: int) -> None:
        self.bodies, self.hosts = bodies, hosts
        self.vm_path = f"/vsfw/vms/{VMS[number]}"
        self.vm, self.vnic = bodies[self.vm_path], bodies[self.vm_path]["vnics"][0]

    def clusters(self) -> Iterator[str]:
        for path, body in self.bodies.items():
            if path.startswith("/vsfw/clusters/") and set(body["hosts"]) & self.hosts:
                yield path

    def datacenters(self) -> Iterator[str]:
        if "/vsfw/clusters/c1" in self.clusters():
            yield "/vsfw/datacenters/dc"

    def owners(self, member_type: str) -> list[dict[str, Any]]:
        match member_type:
            case "VirtualMachine":
                return [self.vm]
            case "SegmentPort":
                return [self.vnic]
            case "Segment":
                return [self.bodies[path] for path in [self.vnic.get("segment_path")] if path]
            case "Cluster":
                return [self.bodies[path] for path in self.clusters()]
        return [self.bodies[path] for path in self.datacenters()]

    def meets(self, asked: dict[str, Any]) -> bool:
        field = {"Name": "display_name", "OSName": "os_name", "ComputerName": "computer_name"}.get(
            asked["key"]
        )
        operator = NEGATIVE.get(asked["operator"], asked["operator"])
        holds = False
        for owner in self.owners(asked["member_type"]):
            if field is None:
                found = any(self.tag_meets(tag, asked, operator) for tag in owner.get("tags", []))
            elif owner.get(field) is None:
                continue
            else:
                found = POSITIVE[operator](owner[field].lower(), asked["value"].lower())
            holds |= found != (asked["operator"] in NEGATIVE)
        return holds and not self.excluded(asked.get("exclude"))

    def tag_meets(self, tag: dict[str, str], asked: dict[str, Any], operator: str) -> bool:
        scope, _, text = asked["value"].lower().rpartition("|")
        same = not scope or (tag["scope"].lower() == scope) != ("scope_operator" in asked)
        return same and POSITIVE[operator](tag["tag"].lower(), text)

    def excluded(self, exclude: dict[str, Any] | None) -> bool:
        if exclude is None:
            return False
        (path,) = exclude["path_expression"]["paths"]
        listed = exclude["ip_address_expression"]["ip_addresses"] + self.addresses(path)
        return self.is_in(path) or not set(listed).isdisjoint(self.vnic["addresses"])

    def addresses(self, path: str) -> list[str]:
        found: list[str] = []
        for item in self.bodies.get(path, {}).get("expression", []):
            found += item.get("ip_addresses", [])
            for inner in item.get("paths", []):
                found += self.addresses(inner)
        return found

    def is_in(self, path: str) -> bool:
        if "/groups/" in path:
            return self.member(path)
        own = [self.vm_path, f"/vsfw/vnics/{self.vnic['id']}", self.vnic.get("segment_path")]
        return path in [*own, *self.clusters(), *self.datacenters()]

    def member(self, path: str) -> bool:
        terms: list[list[bool]] = [[]]
        for item in self.bodies[path]["expression"]:
            if item.get("conjunction_operator") == "OR":
                terms.append([])
            elif item["resource_type"] != "ConjunctionOperator":
                terms[-1].append(self.holds(item))
        return any(term and all(term) for term in terms)

    def holds(self, item: dict[str, Any]) -> bool:
        match item["resource_type"]:
            case "Condition":
                return self.meets(item)
            case "NestedExpression":
                return all(self.meets(inner) for inner in item["expressions"][::2])
            case "PathExpression":
                return any(self.is_in(path) for path in item["paths"])
            case "ExternalIDExpression":
                return self.vnic["id"] in item["external_ids"] or self.vm_path[-36:] in item["external_ids"]
        return False


@pytest.mark.slow
@settings(max_examples=50)
@given(inventories(), bodies(), plugs)
def test_members_are_those_the_words_say(
    inventory: dict[str, Any], groups: dict[str, Any], plugged: dict[str, frozenset[str]]
) -> None:
    """Every group, every vNIC; who is a member has reasons, who is not has none."""
    everything = {**inventory, **groups}
    made = world(everything, plugged=plugged)
    asked = grouped(made.groups)
    for number, vnic in enumerate(VNICS):
        naive = Naive(everything, plugged[vnic], number)
        membership = Membership(asked, candidate(made, made.vnics[vnic], made.vnics[vnic].body.vnics[0]))
        for path in groups:
            assert (path in membership) is naive.member(path)
            assert bool(membership.reasons(path)) is naive.member(path)
            assert set(asked.lists[path].addresses) == set(naive.addresses(path))


@pytest.mark.slow
@settings(max_examples=30)
@given(inventories(), bodies(), plugs, inventories(), bodies(), plugs, st.sets(st.integers(0, 20)))
def test_a_change_leaves_what_evaluating_anew_would(
    inventory: dict[str, Any],
    groups: dict[str, Any],
    plugged: dict[str, frozenset[str]],
    later: dict[str, Any],
    later_groups: dict[str, Any],
    later_plugged: dict[str, frozenset[str]],
    changes: set[int],
) -> None:
    """Some objects replaced, vNICs plugged elsewhere: the same cards and groups as from nothing."""
    before = world({**inventory, **groups}, plugged=plugged)
    after = {**later, **later_groups}
    replaced = world({path: body for number, (path, body) in enumerate(after.items()) if number in changes})
    objects = [each for kind in replaced.kinds.values() for each in kind.values()]
    changed = World(before.kinds, plugged=later_plugged).changed(objects, ())
    kept, anew = realise(changed, realise(before)), realise(changed)
    assert kept.groups == anew.groups
    assert {vnic: card.memberships for vnic, card in kept.cards.items()} == {
        vnic: card.memberships for vnic, card in anew.cards.items()
    }
    assert kept.members == anew.members
