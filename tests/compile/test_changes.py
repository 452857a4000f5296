"""Changes, one after the other: what the kernel ends up with is what a compile from nothing says."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import strategies
from tests.harness.policies import Objects, after, group, policy, rule, vnic, vnic_id
from vsfwd.image import Flip, HostKey, Image, InPlace, Nothing, Plan, canonical, diff
from vsfwd.policy.compile import SPARE_ROWS, Compiler, compile
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Kind

B = 0xFFFF_0A00_0002
"""10.0.0.2, as an image writes it."""

changes = st.one_of(
    st.fixed_dictionaries(
        {"vnics": st.dictionaries(st.sampled_from(strategies.VNICS), strategies.vnics, max_size=2)}
    ),
    st.fixed_dictionaries(
        {"vnics": st.dictionaries(st.sampled_from(strategies.VNICS), st.none(), max_size=1)}
    ),
    st.fixed_dictionaries(
        {"groups": st.dictionaries(st.sampled_from(strategies.GROUPS), strategies.groups, max_size=1)}
    ),
    st.fixed_dictionaries(
        {"groups": st.dictionaries(st.sampled_from(strategies.GROUPS), st.none(), max_size=1)}
    ),
    st.fixed_dictionaries({"rules": st.dictionaries(st.sampled_from("123"), strategies.rules, max_size=1)}),
)


def install(bank: Image | None, plan: Plan) -> Image:
    """The bank after a plan, written as the datapath writes it."""
    if isinstance(plan, Flip):
        return plan.image
    assert bank is not None
    if isinstance(plan, Nothing):
        return bank
    hosts = dict(bank.hosts)
    hosts.pop(plan.key, None)
    if plan.entry:
        hosts[plan.key] = plan.entry
    return replace(bank, rows=(*bank.rows, *plan.new_rows), hosts=hosts)


@pytest.mark.parametrize(
    "examples",
    [
        200,
        pytest.param(500, marks=pytest.mark.slow),
        pytest.param(10_000, marks=[pytest.mark.deep, pytest.mark.timeout(1800)]),
    ],
)
def test_any_sequence_of_changes_leads_where_a_full_compile_leads(examples: int) -> None:
    """After every step the bank means what a compile from nothing means, with the same warnings."""

    @settings(max_examples=examples, deadline=None)
    @given(
        start=strategies.policies,
        steps=st.lists(st.tuples(changes, st.none() | strategies.slots), min_size=1, max_size=6),
        missed=st.sets(st.integers(0, 5)),
    )
    def check(start: Objects, steps: list[tuple[Any, dict[str, int] | None]], missed: set[int]) -> None:
        state = after(DesiredState(), start, Kind.SNAPSHOT)
        compiler, bank, here = Compiler(), None, {strategies.VNICS[0]: 0}
        for number, (change, moved) in enumerate([({}, None), *steps]):
            state, here = after(state, change), here if moved is None else moved
            image, full = compiler.update(state, here), compile(state, here)
            assert canonical(image) == canonical(full)
            assert image.warnings == full.warnings
            if number not in missed:  # an install that fails leaves the bank behind; the next one catches up
                bank = install(bank, diff(bank, image))
                assert canonical(bank) == canonical(full)

    check()


RULES = ("drop on locked", "drop from bad", "allow from web to db service tcp/80", "allow to db,10.0.0.0/24")
GROUPS = {"db": ["10.0.9.9"], "locked": ["10.0.0.7"]}
VNICS = {"a": "10.0.0.1 web", "b": "10.0.0.2", "far": "10.0.0.3 db"}
SLOTS = {vnic_id("a"): 0, vnic_id("b"): 1}


def plan_of(change: Objects, slots: dict[str, int] | None = None) -> Plan:
    """What a change of the policy above does to the kernel."""
    state = policy(RULES, GROUPS, VNICS)
    compiler = Compiler()
    bank = compiler.update(state, SLOTS)
    state = after(state, change)
    plan = diff(bank, compiler.update(state, SLOTS if slots is None else slots))
    assert canonical(install(bank, plan)) == canonical(compile(state, SLOTS if slots is None else slots))
    return plan


def test_one_address_that_joins_a_group_is_written_in_place() -> None:
    """A vNIC joins a group used as source: new rows, then the one entry of its address."""
    plan = plan_of({"vnics": {vnic_id("b"): vnic("10.0.0.2 bad")}})
    assert isinstance(plan, InPlace)
    assert plan.entry
    assert (plan.key, plan.entry.owner) == (HostKey(0, B), 2)
    assert plan.image.rows[plan.entry.source] == 0b1011  # all but "from web"


def test_a_listed_address_that_a_group_drops_is_deleted_in_place() -> None:
    """The address of nobody's vNIC leaves its group: no row, no entry; packets fall through to the prefix."""
    plan = plan_of({"groups": {"db": group()}})
    assert isinstance(plan, InPlace)
    assert (plan.entry, plan.new_rows) == (None, ())


def test_an_address_that_moves_to_another_vnic_is_written_in_place() -> None:
    """Owner and groups of an address stand in one entry: a packet sees the old or the new of both."""
    plan = plan_of({"vnics": {vnic_id("a"): vnic("web"), vnic_id("far"): vnic("10.0.0.3 10.0.0.1 db")}})
    assert isinstance(plan, InPlace)
    assert plan.entry
    assert plan.entry.owner == 0xFFFF_FFFF


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            {"vnics": {vnic_id("b"): vnic("10.0.0.2 locked bad")}}, id="the vNIC's own rules change too"
        ),
        pytest.param({"groups": {"locked": group("10.0.0.2")}}, id="applied by address"),
        pytest.param({"vnics": {vnic_id("b"): vnic("10.0.0.2 fd00::2 bad")}}, id="two addresses"),
        pytest.param(
            {"vnics": {vnic_id("a"): vnic("10.0.0.1"), vnic_id("b"): vnic("10.0.0.2 web")}}, id="a tag moves"
        ),
        pytest.param({"groups": {"db": group("10.0.9.0/24")}}, id="a prefix"),
        pytest.param({"rules": {"1": rule("allow on locked")}}, id="a rule"),
        pytest.param({"rules": {"1": rule("drop on locked logged")}}, id="a rule is logged"),
        pytest.param(
            {"vnics": {vnic_id("b"): vnic("10.0.0.1 segment=4")}}, id="an address becomes ambiguous"
        ),
        pytest.param({"vnics": {vnic_id("b"): None}}, id="the vNIC goes"),
    ],
)
def test_what_takes_more_than_one_entry_flips(change: Objects) -> None:
    """More than one map entry, or anything but an address: packets see the old policy or the new one,
    whole."""
    assert isinstance(plan_of(change), Flip)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="no change"),
        pytest.param(
            {"vnics": {vnic_id("far"): vnic("10.0.0.3 db locked")}}, id="applied to a vNIC elsewhere"
        ),
        pytest.param({"groups": {"unused": group("10.0.0.0/25")}}, id="a prefix nobody names"),
        pytest.param({"rules": {"4": rule("allow to 10.0.0.0/24,db", 4)}}, id="a rule in other words"),
    ],
)
def test_what_means_the_same_changes_nothing(change: Objects) -> None:
    """No store, no flip, no re-check of flows for a change that no packet can see."""
    assert isinstance(plan_of(change), Nothing)


def test_a_vnic_that_is_plugged_elsewhere_flips() -> None:
    """A slot that comes or goes changes the rows of the vNIC and the owner of its address."""
    assert isinstance(plan_of({}, {vnic_id("a"): 0}), Flip)
    assert isinstance(plan_of({}, {**SLOTS, vnic_id("far"): 2}), Flip)


def test_a_twin_elsewhere_changes_where_a_vnic_looks_addresses_up() -> None:
    """10.0.0.1 comes up on another segment: who shares a segment with either now sees its own."""
    vnics = {"a": "10.0.0.1 web segment=1", "near": "10.0.0.2 segment=1", "far": "10.0.0.3 segment=2"}
    state = policy(["allow from web"], vnics=vnics)
    slots = {vnic_id("near"): 0, vnic_id("far"): 1}
    compiler = Compiler()
    alone = compiler.update(state, slots)
    assert [rows.segment for rows in alone.vnics.values()] == [0, 0]
    state = after(state, {"vnics": {vnic_id("twin"): vnic("10.0.0.1 segment=2")}})
    twins = compiler.update(state, slots)
    assert {slot: rows.segment for slot, rows in twins.vnics.items()} == {0: 1, 1: 2}
    assert isinstance(diff(alone, twins), Flip)
    state = after(state, {"vnics": {vnic_id("twin"): None}})
    assert canonical(compiler.update(state, slots)) == canonical(alone)


def test_an_update_that_fails_leaves_nothing_half_changed() -> None:
    """Whatever went wrong in the middle of an update, the next one is right."""
    state = policy(RULES, GROUPS, VNICS)
    compiler = Compiler()
    compiler.update(state, SLOTS)
    state = after(state, {"groups": {"db": group("10.0.9.9", "10.0.0.2")}})
    with pytest.raises(AttributeError):
        compiler.update(state, None)  # type: ignore[arg-type]
    assert canonical(compiler.update(state, SLOTS)) == canonical(compile(state, SLOTS))


def test_rows_that_nothing_selects_are_left_out_in_the_end() -> None:
    """Addresses that join and leave for ever do not fill the table of rows."""
    state = policy([f"drop from g{number}" for number in range(12)], vnics=VNICS)
    compiler = Compiler()
    first = len(compiler.update(state, SLOTS).rows)
    most = 0
    for number in range(2 * SPARE_ROWS):
        groups = " ".join(f"g{bit}" for bit in range(12) if number >> bit & 1)
        state = after(state, {"vnics": {vnic_id("b"): vnic(f"10.0.0.2 {groups}")}})
        most = max(most, len(compiler.update(state, SLOTS).rows))
    assert first + SPARE_ROWS <= most <= first + SPARE_ROWS + 2
    assert len(compiler.update(state, SLOTS).rows) < most


def test_groups_that_a_vnic_was_in_are_forgotten() -> None:
    """However often they change."""
    compiler = Compiler()
    for number in range(50):
        state = policy(["allow from web"], {"web": []}, {"here": f"10.0.0.1 web unnamed{number}"})
        compiler.update(state, {})
    assert len(compiler._numbers) == 1
