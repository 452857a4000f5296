"""Frames nobody should send, by the thousand, through the loaded programs: each passes or is dropped, as
the naive reader says, counted once and under a reason it deserves; what is dropped leaves no flow.

Every storm is made from one integer. `pytest tests/oracle --seed N` does that one alone."""

import pytest

from tests.harness.datapath import Host
from tests.oracle.shrinking import fail
from tests.oracle.trial import first_difference
from tests.oracle.walk import storm

FRAMES = 2000


@pytest.mark.parametrize(
    "storms", [10, pytest.param(500, marks=[pytest.mark.deep, pytest.mark.timeout(3600)])]
)
def test_the_programs_read_frames_as_the_rfcs_do(host: Host, storms: int, seed: int | None) -> None:
    """Bits flipped, bytes cut, lengths that lie, headers in the wrong place, noise."""
    for number in range(storms) if seed is None else [seed]:
        steps = storm(number, FRAMES)
        difference = first_difference(host, steps)
        if difference:
            fail(host, f"storm {number}", steps, difference)
