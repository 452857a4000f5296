"""The real programs against the model, over random walks: the same verdict for every packet, the same
reason, the same counters, the same flows in the end.

Every walk is made from one integer. `pytest tests/oracle --seed N` walks that one alone."""

import pytest

from tests.harness.datapath import Host
from tests.oracle.shrinking import fail
from tests.oracle.trial import first_difference
from tests.oracle.walk import walk

PACKETS = 1000


@pytest.mark.parametrize(
    "walks",
    [10, pytest.param(1000, marks=[pytest.mark.deep, pytest.mark.timeout(3600)])],
)
def test_the_programs_do_what_the_documents_say(host: Host, walks: int, seed: int | None) -> None:
    """A thousand packets a walk, with a policy that changes: no packet has another fate than in the model."""
    for number in range(walks) if seed is None else [seed]:
        steps = walk(number, PACKETS)
        difference = first_difference(host, steps)
        if difference:
            fail(host, f"walk {number}", steps, difference)
