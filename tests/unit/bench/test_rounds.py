"""Interleaving: every variant once a round, in an order of its own."""

from tests.bench.rounds import interleave


def test_every_variant_is_measured_once_a_round():
    """The k-th sample of each variant is of round k, so that pairs are of one round."""
    seen, finished = [], []

    def measure(variant):
        seen.append(variant)
        return float(len(seen))

    samples = interleave(measure, ["a", "b", "c"], 8, finished.append)
    rounds = [seen[3 * k : 3 * k + 3] for k in range(8)]
    assert [sorted(names) for names in rounds] == [["a", "b", "c"]] * 8
    assert finished == list(range(1, 9))
    assert all(3 * k < samples[name][k] <= 3 * k + 3 for name in "abc" for k in range(8))


def test_the_order_changes_from_round_to_round():
    """Nobody always follows the same neighbour."""
    seen = []
    interleave(lambda name: float(seen.append(name) or 0), ["a", "b", "c"], 8, lambda _: None)
    assert len({tuple(seen[3 * k : 3 * k + 3]) for k in range(8)}) > 2
