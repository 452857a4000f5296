"""What guessing costs whoever guesses, wherever a secret is asked for: a delay that doubles, by source
(`sources.py`)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 8.0
_REMEMBERED_SOURCES: Final = 4096
_MOST_WAITING: Final = 64
"""For their turn, of one source: an honest one has no more connections (`web.py`)."""
_MOST_AFTER_FAILURE: Final = 4
"""The same, where a guess was wrong: who waits keeps a connection from others."""

held: ContextVar[Callable[[bool], object]] = ContextVar("held", default=bool)
"""Told when whoever asks has to wait here, and when that ends: meanwhile the web server may cut them off."""


def doubled(seconds: float, times: int, longest: float) -> float:
    return min(longest, seconds * (1 << min(times, 16)))


@dataclass
class _Source:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    failures: int = 0
    """In a row."""

    @property
    def most(self) -> int:
        return _MOST_AFTER_FAILURE if self.failures else _MOST_WAITING


class Throttle:
    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        """The one first seen first."""

    async def guess(self, place: str, is_right: Callable[[], Awaitable[bool]]) -> bool:
        """Guesses from one source are taken one after the other."""
        source, hold = self._source(place), held.get()
        if source.waiting >= source.most:
            return False
        source.waiting += 1
        hold(True)
        try:
            async with source.turn:
                if source.waiting > source.most:  # one was wrong meanwhile
                    return False
                hold(False)
                if await is_right():
                    source.failures = 0
                    return True
                source.failures += 1
                hold(True)
                await asyncio.sleep(doubled(_FIRST_DELAY_S, source.failures - 1, _LONGEST_DELAY_S))
                return False
        finally:
            hold(False)
            source.waiting -= 1

    def _source(self, place: str) -> _Source:
        if place not in self._sources:
            if len(self._sources) >= _REMEMBERED_SOURCES:
                del self._sources[next(iter(self._sources))]
            self._sources[place] = _Source()
        return self._sources[place]
