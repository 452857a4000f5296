"""Mappings that follow each other: each says what a dict would say, and shares what stays."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.harness.policies import after, policy, vnic, vnic_id
from vsfwd.image import Rows
from vsfwd.policy.compile import Compiler
from vsfwd.policy.layered import GONE, MOST_ON_TOP, Layered, changed, different, whole

KEYS = st.integers(0, 5)
EDITS = st.dictionaries(KEYS, st.just(GONE) | st.integers(0, 2))


@given(start=st.dictionaries(KEYS, st.integers(0, 2)), steps=st.lists(EDITS, max_size=5))
def test_changes_one_after_the_other_say_what_a_dict_says(
    start: dict[int, int], steps: list[dict[int, Any]]
) -> None:
    """Whatever is put and deleted; and what is different between any two of them is found."""
    mappings, dicts = [start], [start]
    for edits in steps:
        mappings.append(changed(mappings[-1], edits))  # type: ignore[arg-type]
        there = {key: value for key, value in {**dicts[-1], **edits}.items() if value is not GONE}
        dicts.append(there)
    for mapping, there in zip(mappings, dicts, strict=True):
        assert mapping == there == whole(mapping)
        assert (len(mapping), sorted(mapping), mapping.get(9)) == (len(there), sorted(there), None)
        for other, elsewhere in zip(mappings, dicts, strict=True):
            expected = {
                key for key in there.keys() | elsewhere.keys() if there.get(key) != elsewhere.get(key)
            }
            assert different(mapping, other) == expected


def test_a_change_that_changes_nothing_is_the_same_mapping() -> None:
    """What is put over itself and what is deleted where it is not."""
    there = {1: "a"}
    assert changed(there, {1: "a", 2: GONE}) is there


def test_many_changes_are_one_mapping_again() -> None:
    """What lies on top is looked through with each change, so it does not grow for ever."""
    mapping = whole(dict.fromkeys(range(1000), 0))
    for number in range(MOST_ON_TOP + 1):
        assert isinstance(mapping, Layered) == (number > 0)
        before, mapping = mapping, changed(mapping, {number: 1})
        assert different(before, mapping) == {number}
    assert type(mapping) is dict


def test_one_vnic_that_joins_a_group_copies_nothing() -> None:
    """Neither all vNICs, nor all entries and rows of the image: they may be fifty thousand."""
    before = policy(["allow from web"], vnics={"a": "10.0.0.1 web", "b": "10.0.0.2"})
    compiler = Compiler()
    image = compiler.update(before, {})
    state = after(before, {"vnics": {vnic_id("b"): vnic("10.0.0.2 web")}})
    joined = compiler.update(state, {})
    for old, new in ((before.raw["vnics"], state.raw["vnics"]), (before.vnics, state.vnics)):
        assert isinstance(new, Layered)
        assert (new.base is old, list(new.top)) == (True, [vnic_id("b")])
    assert isinstance(joined.hosts, Layered)
    assert (joined.hosts.base is image.hosts, len(joined.hosts.top)) == (True, 1)
    assert isinstance(image.rows, Rows)
    assert image.rows.grew_to(joined.rows)
