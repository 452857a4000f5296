"""The real programs against the model, over random walks: the same verdict for every packet, the same
reason, the same counters, the same flows in the end.

Every walk is made from one integer. `pytest tests/oracle --seed N` walks that one alone."""

import pytest

from tests.harness.datapath import Host
from tests.oracle.shrinking import fail
from tests.oracle.trial import first_difference
from tests.oracle.walk import walk
from vsfwd.datapath import Reason

PACKETS = 1000
NOT_IN_THE_MODEL = {"none", "internal", "table_full", "reject_limited", "frozen", "dead"}
STATES = {
    *("in syn_sent", "in syn_recv", "in established", "in closing_initiator", "in closing_responder"),
    *("in fin_wait", "in closed", "in first", "in single", "in multiple", "in echo"),
}
"""Of flows."""
ON_THE_WAY = {"monitored", "jump"}
"""Rules for packets that match and do not decide; those for frames are few."""
EXPIRED = {f"{state.removeprefix('in ')} expired" for state in STATES}
"""A packet has come too late for a flow in each state."""
REASONS = {reason.name.lower() for reason in Reason} - NOT_IN_THE_MODEL


@pytest.mark.parametrize(
    "walks",
    [10, pytest.param(1000, marks=[pytest.mark.deep, pytest.mark.timeout(3600)])],
)
def test_the_programs_do_what_the_documents_say(host: Host, walks: int, seed: int | None) -> None:
    """A thousand packets a walk, with a policy that changes: no packet has another fate than in the model.
    Together they go everywhere: a packet is dropped for each reason, a flow is in each state and
    ends in it, a rule that matches does not decide."""
    everywhere = REASONS | STATES | EXPIRED | ON_THE_WAY
    reached = set[str]()
    for number in range(walks) if seed is None else [seed]:
        steps = walk(number, PACKETS)
        difference = first_difference(host, steps, reached)
        if difference:
            fail(host, f"walk {number}", steps, difference)
    assert seed is not None or reached >= everywhere, everywhere - reached
