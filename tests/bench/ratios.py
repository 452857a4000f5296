"""What repeated measurements say: the median, and how far it can be trusted. Pure.

The interval is that of order statistics: without any assumption about the distribution, the median lies
between the k-th smallest and the k-th largest of n samples with the probability that k..n-k of n coins show
heads (J.-Y. Le Boudec, "Performance Evaluation of Computer and Communication Systems", EPFL Press 2010,
theorem 2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Final

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """`low` and `high` are None when there are too few samples for an interval: five or fewer."""

    median: float
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Target:
    """A figure to reach: at least, or at most, `limit`."""

    text: str
    limit: float
    at_least: bool

    def met(self, value: Estimate) -> bool | None:
        """Whether the interval reaches the figure; None without an interval."""
        if value.low is None or value.high is None:
            return None
        return self.reached(value.high if self.at_least else value.low)

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def estimate(samples: Sequence[float]) -> Estimate:
    ordered = sorted(samples)
    rank = interval_rank(len(ordered))
    low, high = (ordered[rank - 1], ordered[-rank]) if rank else (None, None)
    return Estimate(median(ordered), low, high, len(ordered))


def ratio(of: Sequence[float], to: Sequence[float]) -> Estimate:
    """Of pairs measured in the same round, so that what drifts over the run cancels."""
    return estimate([a / b for a, b in zip(of, to, strict=True)])


def difference(of: Sequence[float], to: Sequence[float]) -> Estimate:
    return estimate([a - b for a, b in zip(of, to, strict=True)])


def interval_rank(n: int) -> int:
    """The largest k for which the k-th smallest to the k-th largest of n samples hold the median with
    CONFIDENCE; 0 when not even the smallest and the largest do."""
    outside = 0.0
    for k in range(n // 2 + 1):
        outside += 2 * comb(n, k) / 2**n
        if outside > 1 - CONFIDENCE:
            return k
    return n // 2
