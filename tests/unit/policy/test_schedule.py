"""When a scheduled rule is in force, to the minute in which it begins and ends."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.imagelookup import classify
from tests.harness.policies import Objects, after
from tests.harness.strategies import packets, policies, slots
from vsfwd.image import canonical
from vsfwd.policy.compile import Compiler, compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import Direction, Schedule
from vsfwd.policy.schedule import Now, is_open, without
from vsfwd.protocol.envelope import Kind

WEEKDAYS = (0, 1, 2, 3, 4)


def at(text: str) -> Now:
    """The same by both clocks."""
    return Now(datetime.fromisoformat(text), datetime.fromisoformat(text))


def earlier(now: Now) -> Now:
    """By a second."""
    return Now(*(moment - timedelta(seconds=1) for moment in now))


@pytest.mark.parametrize(
    ("schedule", "opens", "closes"),
    [
        (Schedule(times=((480, 1020),)), "2026-11-22T08:00:00", "2026-11-22T17:00:00"),
        (Schedule(days=WEEKDAYS), "2026-11-23T00:00:00", "2026-11-28T00:00:00"),
        (Schedule(days=(6,), times=((1410, 1440),)), "2026-11-22T23:30:00", "2026-11-23T00:00:00"),
        (Schedule("2026-11-22T10:00", "2026-12-01T11:30"), "2026-11-22T10:00:00", "2026-12-01T11:30:00"),
        (Schedule(days=(5, 6), begins="2026-11-22T00:00"), "2026-11-22T00:00:00", "2026-11-23T00:00:00"),
        (Schedule(ends="2027-01-01T00:00", days=(3,)), "2026-12-31T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_a_window_has_its_first_second_and_not_the_one_after_its_last(
    schedule: Schedule, opens: str, closes: str
) -> None:
    """By days, times of day, dates, or all of them together."""
    moments = (earlier(at(opens)), at(opens), earlier(at(closes)), at(closes))
    assert [is_open(schedule, now) for now in moments] == [False, True, True, False]


def test_local_time_is_the_hosts() -> None:
    """A schedule by the host's clock does not ask what time it is in UTC, nor the other way round."""
    now = Now(utc=datetime(2026, 11, 22, 23, 30), local=datetime(2026, 11, 23, 8, 30))
    morning = ((480, 540),)
    assert is_open(Schedule(times=morning, utc=False), now)
    assert not is_open(Schedule(times=morning), now)
    assert is_open(Schedule(days=(6,)), now)
    assert not is_open(Schedule(days=(6,), utc=False), now)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"begins": "tomorrow"}, "begins"),
        ({"ends": "2026-11-22"}, "ends"),
        ({"begins": "2026-13-45T25:61"}, "begins: '2026-13-45T25:61' is no minute"),
        ({"ends": "2026-02-29T00:00"}, "ends"),
        ({"days": (7,)}, "days"),
        ({"times": ((600, 600),)}, "times"),
        ({"times": ((0, 1441),)}, "times"),
    ],
)
def test_what_is_no_schedule_is_refused(fields: dict[str, object], named: str) -> None:
    """With the field named."""
    with pytest.raises(ValueError, match=named):
        Schedule(**fields)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    objects=policies,
    here=slots,
    sample=st.lists(packets(), min_size=10, max_size=10),
    closed=st.frozensets(st.integers(1, 9)),
)
def test_a_closed_rule_is_as_if_it_were_not_there(
    objects: Objects, here: dict[str, int], sample: list[Packet], closed: frozenset[int]
) -> None:
    """Its place in the image stays; the image that turned is the one that is made so."""
    state = after(DesiredState(), objects, Kind.SNAPSHOT)
    image = compile(state, here, closed)
    assert [entry.id for entry in image.rules] == [entry.id for entry in compile(state, here).rules]
    for id in here.keys() & state.vnics.keys():
        for direction in (Direction.IN, Direction.OUT):
            for packet in sample:
                expected = evaluate(without(state, closed), packet, id, direction)
                assert classify(image, here[id], direction, packet) == expected
    compiler = Compiler()
    compiler.update(state, here)
    assert canonical(compiler.update(state, here, closed)) == canonical(image)
    assert canonical(compiler.update(state, here)) == canonical(compile(state, here))
