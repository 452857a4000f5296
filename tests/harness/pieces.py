"""Long forms of tests, in pieces that take minutes each and can be run one by one:

    @pytest.mark.parametrize("kills", [pytest.param(range(3), id="few"), *pieces(1000, 250)])

    ./run test --deep 'tests/integration/test_restarts.py::test_o1_a_killed_daemon_is_not_missed[250-499]'

Where numbers are seeds, a piece is those of its range."""

from typing import Final

import pytest
from _pytest.mark import ParameterSet

PATIENCE_S: Final = 1800
"""For a piece, on a machine that has other things to do."""


def pieces(whole: int, each: int) -> list[ParameterSet]:
    """Ranges that follow on each other, from 0 to `whole`."""
    marks = pytest.mark.deep, pytest.mark.timeout(PATIENCE_S)
    begins = range(0, whole, each)
    return [pytest.param(range(i, i + each), marks=marks, id=f"{i}-{i + each - 1}") for i in begins]
