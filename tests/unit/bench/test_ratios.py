"""The statistics of the bench, against values anybody can look up."""

import pytest

from tests.bench.ratios import Estimate, Target, difference, estimate, interval_rank, ratio


@pytest.mark.parametrize(
    ("samples", "rank"), [(1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (21, 6), (31, 10), (100, 40)]
)
def test_the_interval_is_that_of_the_tables_for_the_sign_test(samples, rank):
    """The largest k with 2·P(Bin(n, ½) < k) ≤ 5 %, as every table of the sign test has it."""
    assert interval_rank(samples) == rank


def test_the_median_lies_between_its_order_statistics():
    """Of 21 samples: the 11th, between the 6th and the 16th, whatever their order."""
    assert estimate([float(n) for n in range(21, 0, -1)]) == Estimate(11.0, 6.0, 16.0, 21)


def test_one_outlier_moves_nothing():
    """A sample that met a busy neighbour changes neither median nor interval."""
    samples = [1.0 + n / 100 for n in range(21)]
    assert estimate([*samples[:-1], 1000.0]) == estimate(samples)


def test_few_samples_have_a_median_and_no_interval():
    """Five samples cannot hold a median with 95 %: it is not claimed."""
    assert estimate([3.0, 1.0, 2.0]) == Estimate(2.0, None, None, 3)


def test_a_ratio_is_of_pairs():
    """Drift that both samples of a round share does not reach the ratio."""
    drift = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert ratio([0.9 * x for x in drift], drift) == Estimate(0.9, 0.9, 0.9, 6)


def test_a_difference_is_of_pairs():
    """The same, for nanoseconds above a program that is measured beside."""
    assert difference([15.0, 25.0], [10.0, 20.0]).median == 5.0


def test_pairs_of_unequal_length_are_an_error():
    """A sample without its partner is a mistake of the bench."""
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("at_least", "low", "high", "met"),
    [(True, 0.8, 0.95, True), (True, 0.8, 0.94, False), (False, 1.1, 1.3, False), (False, 0.95, 1.3, True)],
)
def test_a_target_is_met_when_the_interval_reaches_it(at_least, low, high, met):
    """The better end of the interval counts."""
    assert Target("", 0.95, at_least).met(Estimate(0.9, low, high, 21)) is met


def test_without_an_interval_a_target_is_neither_met_nor_missed():
    """Too few rounds decide nothing."""
    assert Target("", 0.95, at_least=True).met(Estimate(2.0, None, None, 3)) is None
