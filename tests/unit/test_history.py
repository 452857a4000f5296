"""What chaos is judged by: which policies may be in force (harness/history.py); what a seed decides."""

import pytest

from tests.harness.chaos import IN_A_LAB, ON_A_HOST, STEPS, schedule
from tests.harness.history import History


def history() -> History:
    """Told at 0 and 10, confirmed at 1 and 12."""
    said = History()
    for lets, told, confirmed in ((True, 0, 1), (False, 10, 12)):
        said.confirm(said.tell(lets, told), confirmed)
    return said


def test_both_verdicts_are_admissible_until_a_change_is_confirmed() -> None:
    """From when it is told."""
    said = history()
    assert said.admissible(8, 9) == {True}
    assert said.admissible(9, 10) == {True, False}
    assert said.admissible(11.9, 12.1) == {True, False}
    assert said.admissible(12, 12.1) == {False}


def test_what_was_overtaken_is_confirmed_with_what_came_after() -> None:
    """A host need not have applied every policy that it was told."""
    said = history()
    said.tell(True, 20)
    said.confirm(said.tell(False, 21), 22)
    assert said.admissible(20.5, 21.5) == {True, False}
    assert said.admissible(23, 24) == {False}


@pytest.mark.parametrize("weights", [ON_A_HOST, IN_A_LAB], ids=["host", "lab"])
def test_a_seed_is_a_schedule(weights: dict[str, int]) -> None:
    """The same again; and in some of them everything happens."""
    assert schedule(17, weights) == schedule(17, weights) != schedule(18, weights)
    assert len(schedule(17, weights)) == STEPS
    assert {step.what for seed in range(40) for step in schedule(seed, weights)} == weights.keys()
