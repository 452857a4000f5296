"""Interleaving and progress.

Every round measures each variant once, in an order of its own, so that neither what drifts over the run nor
the neighbour before it favours a variant.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

SEED: Final = 2


class Progress:
    """Lines on standard error: which round, and how long all that is planned will still take."""

    def __init__(self, planned_s: float) -> None:
        self._begun = time.monotonic()
        self._planned_s = planned_s
        self._done_s = 0.0

    def step(self, what: str, planned_s: float) -> None:
        """Say that `what`, which was planned to take `planned_s`, is done."""
        self._done_s += planned_s
        elapsed = time.monotonic() - self._begun
        left = elapsed / self._done_s * max(self._planned_s - self._done_s, 0)
        print(f"{what} · {elapsed / 60:.1f} min, {left / 60:.1f} min left", file=sys.stderr, flush=True)


def interleave(
    measure: Callable[[str], float], variants: Sequence[str], rounds: int, done: Callable[[int], None]
) -> dict[str, list[float]]:
    """Samples by variant, in the order of the rounds; `done(k)` is called after round k of 1..`rounds`."""
    order = random.Random(SEED)
    samples: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(1, rounds + 1):
        for variant in order.sample(list(variants), len(variants)):
            samples[variant].append(measure(variant))
        done(number)
    return samples
