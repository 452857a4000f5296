"""Figures in Prometheus' text format, and the page that says which there are: the form of it, for host and
manager. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
SEVERITIES: Final = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
"""Of alarms, in NSX's words."""
_HEAD: Final = """\
# {title}

{source} This page is made from the code, by `./run reference`.

| name | type | labels | |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Family:
    """Figures of one name, told apart by their labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """By its name, as Prometheus wants names to be."""
        return "counter" if self.name.endswith("_total") else "gauge"


@dataclass(frozen=True)
class Sample:
    """`labels`: their values, in the family's order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class _Figures(Collector):
    """Not in the library's registry, which has figures of this process too."""

    def __init__(self, families: Sequence[Family], samples: Iterable[Sample]) -> None:
        self._families = families
        self._samples = samples

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        made = {
            each.name: (CounterMetricFamily if each.type == "counter" else GaugeMetricFamily)(
                each.name, each.help, labels=each.labels
            )
            for each in self._families
        }
        for sample in self._samples:
            made[sample.name].add_metric(sample.labels, sample.value)
        yield from made.values()


def exposition(families: Sequence[Family], samples: Iterable[Sample]) -> bytes:
    return generate_latest(_Figures(families, samples))


def page(title: str, source: str, families: Iterable[Family]) -> str:
    """`source` says where the figures are to be had."""
    return _HEAD.format(title=title, source=source) + "".join(map(_row, families))


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.type} | {labels} | {family.help} |\n"
