"""What guessing costs whoever guesses, wherever a secret is asked for: a delay that doubles, by source
(`sources.py`)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 8.0
_REMEMBERED_SOURCES: Final = 4096
_MOST_WAITING: Final = 64
"""For their turn, of one source: an honest one has no more connections (`web.py`)."""


def doubled(seconds: float, times: int, longest: float) -> float:
    return min(longest, seconds * (1 << min(times, 16)))


@dataclass
class _Source:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    failures: int = 0
    """In a row."""


class Throttle:
    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        """The one first seen first."""

    async def guess(self, place: str, is_right: Callable[[], Awaitable[bool]]) -> bool:
        """Guesses from one source are taken one after the other."""
        source = self._source(place)
        if source.waiting >= _MOST_WAITING:
            return False
        source.waiting += 1
        try:
            async with source.turn:
                if await is_right():
                    source.failures = 0
                    return True
                source.failures += 1
                await asyncio.sleep(doubled(_FIRST_DELAY_S, source.failures - 1, _LONGEST_DELAY_S))
                return False
        finally:
            source.waiting -= 1

    def _source(self, place: str) -> _Source:
        if place not in self._sources:
            if len(self._sources) >= _REMEMBERED_SOURCES:
                del self._sources[next(iter(self._sources))]
            self._sources[place] = _Source()
        return self._sources[place]
