"""Real traffic: every variant, every kind, 10 to 10,000 rules, on one host and across two."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.bench.firewalls import Firewalls, Variant, firewalls
from tests.bench.place import ONE_HOST, TWO_HOSTS, Place, lab
from tests.bench.ratios import Estimate, Target, estimate, ratio
from tests.bench.report import RATIO, Figure
from tests.bench.rounds import Progress, interleave
from tests.bench.traffic import SAMPLE_S, UNITS, Kind, Traffic, traffic

SIZES: Final = (10, 1000, 10000)
ROUNDS: Final = 31
"""Of scenarios with a target."""
OTHER_ROUNDS: Final = 9

TARGETS: Final = {
    Kind.BULK: (Target("≥ 0.95", 0.95, at_least=True), None),
    Kind.CONNECTIONS: (Target("≥ 0.92", 0.92, at_least=True), Target("≥ 1.1", 1.1, at_least=True)),
}
"""With 10,000 rules: vsfwd ÷ none, vsfwd ÷ nft-set."""
NO_TARGETS: Final = (None, None)


@dataclass(frozen=True)
class Scenario:
    place: Place
    kind: Kind
    rules: int
    rounds: int

    @property
    def planned_s(self) -> float:
        """Of a round: programs take a moment to start, and so do firewalls."""
        return len(Variant) * (SAMPLE_S + 0.15)

    @property
    def title(self) -> str:
        return f"{self.place.name}, {self.kind}"


def full(rounds: int = ROUNDS) -> list[Scenario]:
    return [
        Scenario(
            place,
            kind,
            rules,
            rounds if kind in TARGETS and rules == SIZES[-1] else min(rounds, OTHER_ROUNDS),
        )
        for place in (ONE_HOST, TWO_HOSTS)
        for rules in SIZES
        for kind in Kind
    ]


def quick(rounds: int = 6) -> list[Scenario]:
    """Six rounds are the fewest that give an interval."""
    return [Scenario(ONE_HOST, kind, SIZES[-1], rounds) for kind in Kind]


def planned_s(scenarios: Sequence[Scenario]) -> float:
    return sum(scenario.planned_s * scenario.rounds for scenario in scenarios)


def run(scenarios: Sequence[Scenario], progress: Progress) -> list[Figure]:
    figures = []
    with lab():
        for place, rules in dict.fromkeys((scenario.place, scenario.rules) for scenario in scenarios):
            with firewalls(place, rules) as walls, traffic(place.client, place.server) as ends:
                for scenario in scenarios:
                    if (scenario.place, scenario.rules) == (place, rules):
                        figures += _figures(scenario, _measure(scenario, walls, ends, progress))
    kinds = [kind.value for kind in Kind]
    return sorted(figures, key=lambda figure: kinds.index(figure.group.rpartition(", ")[2]))


def _measure(
    scenario: Scenario, walls: Firewalls, ends: Traffic, progress: Progress
) -> dict[str, list[float]]:
    def sample(variant: str) -> float:
        with walls.active(Variant(variant)):
            return ends.sample(scenario.kind)

    def done(number: int) -> None:
        what = f"{scenario.title}, {scenario.rules:,} rules: round {number} of {scenario.rounds}"
        progress.step(what, scenario.planned_s)

    return interleave(sample, list(Variant), scenario.rounds, done)


def _figures(scenario: Scenario, samples: dict[str, list[float]]) -> list[Figure]:
    """What no firewall reaches, then ratios of samples of the same round."""

    def figure(name: str, unit: str, value: Estimate, target: Target | None = None) -> Figure:
        return Figure("traffic", scenario.title, name, scenario.rules, unit, value, target)

    def pair(of: Variant, to: Variant, target: Target | None = None) -> Figure:
        return figure(f"{of} ÷ {to}", RATIO, ratio(samples[of], samples[to]), target)

    alone, against = TARGETS.get(scenario.kind, NO_TARGETS) if scenario.rules == SIZES[-1] else NO_TARGETS
    return [
        figure(Variant.NONE, UNITS[scenario.kind], estimate(samples[Variant.NONE])),
        pair(Variant.LINEAR, Variant.NONE),
        pair(Variant.SET, Variant.NONE),
        pair(Variant.VSFWD, Variant.NONE, alone),
        replace(pair(Variant.VSFWD, Variant.SET, against), samples=samples),
    ]
