"""The manager's log, which others can fill: of lines of one kind about one host, or about a login that the
broker does not let in, there are MOST a minute. How many were left out stands in the next one of the kind.
What is about neither counts by its kind alone."""

import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

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


def bound_log() -> None:
    structlog.configure(processors=[Bounded(), *structlog.get_config()["processors"]])
