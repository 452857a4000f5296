"""The prober sees what it is there to see: what is lost, what is delivered, and when."""

import pytest

from tests.harness.prober import DROP, RULES, Prober, Tally
from tests.harness.wired import Wired

pytestmark = pytest.mark.slow

ADDRESSES = ("10.0.0.1", "fd00::1")


def enforce(wired: Wired, *first: str) -> None:
    """`RULES` at the server, behind those; the other workload may do anything."""
    wired.install([*first, *(f"{rule} on web" for rule in RULES), "allow"])


def probing(wired: Wired) -> Prober:
    wired.replug()
    enforce(wired)
    return Prober(wired.twin, wired.here, ADDRESSES)


def faulty(prober: Prober) -> set[tuple[str, int]]:
    return {(tally.kind, tally.family) for tally in prober.tallies if fault(tally)}


def fault(tally: Tally) -> bool:
    return bool(tally.missing or tally.delivered or tally.resent)


def test_a_firewall_that_does_what_it_must_is_not_reported(wired: Wired) -> None:
    """All that must has arrived, and nothing else."""
    with probing(wired) as prober:
        prober.flowing(100)
    assert prober.violations() == []
    assert all(tally.arrived == (0 if tally.kind == DROP else tally.sent) for tally in prober.tallies)
    assert {tally.sent for tally in prober.tallies} == {prober.ticks}


def test_what_is_delivered_is_told_with_what_happened_before(wired: Wired) -> None:
    """The policy is open for a moment."""
    with probing(wired) as prober:
        prober.note("good")
        prober.flowing()
        prober.note("bad")
        enforce(wired, "allow in service udp/7001")
        prober.flowing()
        enforce(wired)
    assert faulty(prober) == {(DROP, 4), (DROP, 6)}
    assert all("delivered" in line and "(bad)" in line for line in prober.violations())


def test_what_is_lost_is_told_of_every_kind(wired: Wired) -> None:
    """The policy is closed for a moment, for IPv4 only, which ends the connection."""
    with probing(wired) as prober:
        prober.note("closed")
        enforce(wired, "drop ipv4")
        prober.flowing()
        enforce(wired)
        prober.flowing()
    lines = prober.violations()
    assert faulty(prober) == {("must-pass", 4), ("established", 4), ("stream", 4)}
    assert [line for line in lines if "lost" in line and ("(closed)" in line or "segments" in line)] == lines
