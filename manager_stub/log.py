"""The manager's log, which others can fill: of lines of one kind about one host, or about a login that the
broker does not let in, there are MOST a minute. How many were left out stands in the next one of the kind.
What is about neither counts by its kind alone, and what a library says by library and level."""

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import structlog

MOST: Final = 100
WINDOW_S: Final = 60.0
_MAX_KINDS: Final = 10_000
"""That are counted at once; those whose minute is over are forgotten then, uncounted."""


class Bounded:
    """A structlog processor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        """By kind and whom it is about: since when lines are counted, and how many there were."""

    def __call__(
        self, _logger: Any, _method: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        now = self._clock()
        kind = str(line.get("event")), str(line.get("host") or line.get("login") or "")
        since, count = self._said.get(kind, (now, 0))
        if now >= since + WINDOW_S:
            if count > MOST:
                line["left_out_before"] = count - MOST
            since, count = now, 0
        if kind not in self._said and len(self._said) >= _MAX_KINDS:
            self._said = {each: at for each, at in self._said.items() if now < at[0] + WINDOW_S}
        self._said[kind] = since, count + 1
        if count >= MOST:
            raise structlog.DropEvent
        if count == MOST - 1:
            line["left_out_from_now_s"] = round(since + WINDOW_S - now)
        return line


class OfLibraries(logging.StreamHandler[TextIO]):
    """On standard error. Whoever connects to the REST interface can have uvicorn say something."""

    def __init__(self, bounded: Bounded) -> None:
        super().__init__()
        self._bounded = bounded

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            line = self._bounded(None, "", {"event": f"{record.name} {record.levelname}"})
        except structlog.DropEvent:
            return False
        told = " ".join(f"{name}={value}" for name, value in line.items() if name != "event")
        if told:
            record.msg, record.args = f"{record.getMessage()} {told}", ()
        return bool(super().handle(record))


def bound_log() -> None:
    bounded = Bounded()
    structlog.configure(processors=[bounded, *structlog.get_config()["processors"]])
    logging.getLogger().addHandler(OfLibraries(bounded))
