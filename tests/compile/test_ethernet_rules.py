"""Ethernet rules: the image against the specification, in a small world and in random ones."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.imagelookup import classify, classify_frame
from tests.harness.policies import Objects, after, policy, vnic_id
from tests.harness.strategies import frames, mixed_policies, packets, slots
from vsfwd.image import InPlace, canonical, diff
from vsfwd.policy.compile import Compiler, compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, Packet, evaluate, evaluate_frame
from vsfwd.policy.model import Direction
from vsfwd.protocol.envelope import Kind

IN, OUT = Direction.IN, Direction.OUT
A, B, C, X = (f"02:00:00:00:00:0{digit}" for digit in "abcf")
TYPES = ("any", "806", "88cc,800")
TAGS = ("", "vlan 10", "vlan 0,10-20")
ENDS = ("", "nobody", "web", "not web", "listed")
GROUPS = {"web": [], "listed": [C, "10.0.0.0/8"]}
VNICS = {"here": f"10.0.0.1 {A} web", "there": f"10.0.0.2 {B} web", "thief": f"10.0.0.3 {X}"}
SLOTS = {vnic_id("here"): 0, vnic_id("thief"): 1}


def test_each_rule_gives_the_verdict_the_model_says() -> None:
    """Every rule that can be written with these words, alone, against every frame."""
    for types, tags, source, destination in product(TYPES, TAGS, ENDS, ENDS):
        ends = " ".join(f"{w} {end}" for w, end in (("from", source), ("to", destination)) if end)
        state = policy([f"drop frames {types} {tags} {ends}", "allow"], GROUPS, VNICS)
        image = compile(state, SLOTS)
        for ethertype, vlan, ends_of in product((0x0806, 0x88CC, 0x0100, 0x8100), (None, 0, 10, 21), PAIRS):
            frame = Frame(*ends_of, ethertype, vlan)
            for vnic, direction in product(("here", "thief"), (IN, OUT)):
                expected = evaluate_frame(state, frame, vnic_id(vnic), direction)
                found = classify_frame(image, SLOTS[vnic_id(vnic)], direction, frame)
                assert found == expected, (types, tags, ends, frame, vnic, direction)


PAIRS = ((A, B), (B, A), (C, X), (X, C), (A, "ff:ff:ff:ff:ff:ff"))


@pytest.mark.parametrize(
    "examples",
    [
        100,
        pytest.param(500, marks=pytest.mark.slow),
        pytest.param(10_000, marks=[pytest.mark.deep, pytest.mark.timeout(1800)]),
    ],
)
def test_random_policies_of_both_layers(examples: int) -> None:
    """Frames and packets get what the specification says, and neither layer's rules decide in the other."""

    @settings(max_examples=examples, deadline=None)
    @given(
        objects=mixed_policies,
        here=slots,
        ethers=st.lists(frames(), min_size=10, max_size=10),
        sample=st.lists(packets(), min_size=5, max_size=5),
    )
    def check(objects: Objects, here: dict[str, int], ethers: list[Frame], sample: list[Packet]) -> None:
        state = after(DesiredState(), objects, Kind.SNAPSHOT)
        image = compile(state, here)
        for id, direction in product(here.keys() & state.vnics.keys(), (IN, OUT)):
            for frame in ethers:
                expected = evaluate_frame(state, frame, id, direction)
                assert classify_frame(image, here[id], direction, frame) == expected, (frame, id, direction)
            for packet in sample:
                expected = evaluate(state, packet, id, direction)
                assert classify(image, here[id], direction, packet) == expected, (packet, id, direction)

    check()


def test_without_ethernet_rules_there_is_nothing_of_them() -> None:
    """No entry, no point, and no vNIC asks."""
    image = compile(policy(["allow"], GROUPS, VNICS), SLOTS)
    assert not any(key.segment == 0xFFFFFFFF for key in image.hosts)
    assert image.services[-1].last == 4 * 65536 + 255
    assert not any(rows.ahead for rows in image.vnics.values())


def test_only_vnics_a_rule_is_applied_to_ask() -> None:
    """The scope of an Ethernet rule says so, by membership or by address."""
    for scope, asked in (("web", {0}), ("listed", {0, 1}), ("nobody", set())):
        image = compile(policy([f"drop frames any on {scope}"], GROUPS, VNICS), SLOTS)
        assert {slot for slot, rows in image.vnics.items() if rows.ahead} == asked


def test_a_mac_address_that_joins_a_group_is_one_entry() -> None:
    """In place; and the image is the one made from nothing."""
    compiler = Compiler()
    rules = ["allow frames 88cc from web", "drop frames any"]
    before = policy(rules, GROUPS, VNICS)
    joined = {**VNICS, "there": f"10.0.0.2 {B}"}
    first = compiler.update(before, SLOTS)
    state = after(before, {"vnics": policy(rules, GROUPS, joined).raw["vnics"]})
    second = compiler.update(state, SLOTS)
    assert isinstance(diff(first, second), InPlace)
    assert canonical(second) == canonical(compile(state, SLOTS))


def test_two_vnics_with_one_mac_address_are_neither() -> None:
    """A claim brings nobody into somebody else's group."""
    vnics = {"here": f"{A} web", "thief": f"{A}"}
    state = policy(["allow frames 88cc from web", "drop frames any"], GROUPS, vnics)
    frame = Frame(A, B, 0x88CC)
    for direction in (IN, OUT):
        assert evaluate_frame(state, frame, vnic_id("here"), direction).rule_id == 2
        assert classify_frame(compile(state, SLOTS), 0, direction, frame).rule_id == 2
