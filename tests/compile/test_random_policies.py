"""Random policies and packets: the image against the specification."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.imagelookup import classify
from tests.harness.policies import Objects, after
from tests.harness.strategies import packets, policies, slots
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import Direction
from vsfwd.protocol.envelope import Kind

IN, OUT = Direction.IN, Direction.OUT


@pytest.mark.parametrize(
    "examples",
    [
        150,
        pytest.param(500, marks=pytest.mark.slow),
        pytest.param(10_000, marks=[pytest.mark.deep, pytest.mark.timeout(1800)]),
    ],
)
def test_the_image_gives_the_verdict_of_the_first_rule_that_matches(examples: int) -> None:
    """Whatever the policy and wherever its vNICs are, each packet gets the action and the rule of
    `evaluate`."""

    @settings(max_examples=examples, deadline=None)
    @given(objects=policies, here=slots, sample=st.lists(packets(), min_size=20, max_size=20))
    def check(objects: Objects, here: dict[str, int], sample: list[Packet]) -> None:
        state = after(DesiredState(), objects, Kind.SNAPSHOT)
        image = compile(state, here)
        assert image.vnics.keys() == {slot for id, slot in here.items() if id in state.vnics}
        for id in here.keys() & state.vnics.keys():
            for direction in (IN, OUT):
                for packet in sample:
                    expected = evaluate(state, packet, id, direction)
                    assert classify(image, here[id], direction, packet) == expected, (packet, id, direction)

    check()
