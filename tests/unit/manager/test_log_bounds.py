"""The manager's log: one host does not fill it, and what is left out is counted."""

import logging
from io import StringIO

import pytest
import structlog

from manager_stub.log import MOST, WINDOW_S, Bounded, OfLibraries

HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


class Log:
    """`now` is the time; `lines` are those that came through."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.bounded = Bounded(lambda: self.now)

    def __call__(self, event: str = "host", **more: object) -> object:
        try:
            return dict(self.bounded(None, "info", {"event": event, **more}))
        except structlog.DropEvent:
            return None


@pytest.fixture
def log() -> Log:
    return Log()


def test_o38_lines_about_one_host_are_bounded(log: Log) -> None:
    """Of a kind, a minute; the last one says that there are more. Other kinds and hosts have their own."""
    lines = [log(host=HOST) for _ in range(2 * MOST)]
    assert all(lines[:MOST])
    assert not any(lines[MOST:])
    assert lines[MOST - 1] == {"event": "host", "host": HOST, "left_out_from_now_s": WINDOW_S}
    assert log(host=OTHER) == {"event": "host", "host": OTHER}
    assert log("reply", host=HOST)
    assert log("somebody was not let in", login=HOST)


def test_what_was_left_out_is_counted(log: Log) -> None:
    """In the next line of the kind, when its minute is over."""
    for _ in range(MOST + 7):
        log(host=HOST)
    log.now += WINDOW_S
    assert log(host=HOST) == {"event": "host", "host": HOST, "left_out_before": 7}
    assert log(host=HOST) == {"event": "host", "host": HOST}


def test_names_that_somebody_makes_up_take_no_memory(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody says any more is forgotten."""
    monkeypatch.setattr("manager_stub.log._MAX_KINDS", 10)
    for number in range(1000):
        log(login=str(number))
        log.now += WINDOW_S / 5
    assert len(log.bounded._said) <= 10


def test_a_line_about_nobody_is_bounded_by_its_kind(log: Log) -> None:
    """What a host can bring about without being named."""
    lines = [log("a vNIC claims another's address", vnic=str(number)) for number in range(2 * MOST)]
    assert sum(line is not None for line in lines) == MOST


def test_lines_of_libraries_are_bounded(log: Log) -> None:
    """Which whoever connects can bring about: of one level they leave room for another's."""
    said, handler = StringIO(), OfLibraries(log.bounded)
    handler.setStream(said)
    library = logging.Logger("uvicorn.error")
    library.addHandler(handler)
    for _ in range(2 * MOST):
        library.warning("Invalid %s request received.", "HTTP")
    library.error("Exception in ASGI application")
    log.now += WINDOW_S
    library.warning("Invalid HTTP request received.")
    lines = said.getvalue().splitlines()
    assert lines[0] == "Invalid HTTP request received."
    assert lines[MOST - 1 :] == [
        f"Invalid HTTP request received. left_out_from_now_s={WINDOW_S:.0f}",
        "Exception in ASGI application",
        f"Invalid HTTP request received. left_out_before={MOST}",
    ]
