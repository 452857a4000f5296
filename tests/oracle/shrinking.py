"""From a walk that shows a difference to the few steps that do, and to the words that tell about it."""

import time
from collections.abc import Sequence
from typing import Final, NoReturn

import pytest
from scapy.layers import inet, inet6  # noqa: F401  # for Ether to know
from scapy.layers.l2 import Ether

from tests.harness.datapath import Host
from tests.oracle.trial import Difference, first_difference
from tests.oracle.walk import Sent, Step

PATIENCE_S: Final = 30


def fail(host: Host, name: str, steps: list[Step], difference: Difference) -> NoReturn:
    """Fails the test that made `steps` from the number in their name."""
    fewer, difference = _shrunk(host, steps, difference)
    again = f"pytest tests/oracle --seed {name.split()[-1]}"
    pytest.fail(f"{name} differs; again: {again}\n{_told(fewer, difference)}", pytrace=False)


def _shrunk(host: Host, steps: list[Step], difference: Difference) -> tuple[list[Step], Difference]:
    """Leaves out what can be left out, in halves, then quarters, down to single steps, while a difference
    remains and patience lasts."""
    steps, deadline = steps[: difference.at + 1], time.monotonic() + PATIENCE_S
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps) and time.monotonic() < deadline:
            fewer = steps[:at] + steps[at + size :]
            found = first_difference(host, fewer) if fewer else None
            if found:
                steps, difference = fewer[: found.at + 1], found
            else:
                at += size
        size //= 2
    return steps, difference


def _told(steps: Sequence[Step], difference: Difference) -> str:
    lines = []
    for step in steps:
        summary = f"\n      {Ether(step.frame).summary()}" if isinstance(step, Sent) else ""
        lines.append(f"  {step}{summary}")
    return "\n".join([*lines, f"expected: {difference.expected}", f"seen:     {difference.seen}"])
