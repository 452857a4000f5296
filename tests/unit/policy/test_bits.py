"""Rows of bits."""

import pytest

from vsfwd.policy.bits import A_FEW, mask


@pytest.mark.parametrize("count", [0, 1, A_FEW - 1, A_FEW, A_FEW + 1, 1000])
def test_a_row_has_the_bits_of_its_rules(count: int) -> None:
    """Few are put together in another way than many."""
    numbers = [number * 7 for number in range(count)]
    assert mask(iter(numbers)) == sum(1 << number for number in numbers)
    assert mask([*numbers, *numbers]) == mask(numbers)
