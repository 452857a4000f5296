"""Whose report is read next. Pure: what time it is comes in.

One thread reads all reports and does everything else, and a host decides how many it sends and how long they
take. So hosts take turns: after each of its reports a host waits three times as long as that took, which is
a quarter of the manager for one host, and next to nothing for a host that says little. Meanwhile a newer
report takes the place of an older one that says the same kind of thing, and of too many the oldest goes: what
hosts report is levelled, and who has dropped some can ask for all of it.

Where so many wait that the broker gives no more, nobody is waited for: the host that has waited longest is
next."""

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import Final, Generic, TypeVar

T = TypeVar("T")

REST: Final = 3.0
"""Times the time that its report took."""
MOST: Final = 48
"""Reports of one host that wait: a host that is full says all of itself in some thirty."""


class Turns(Generic[T]):
    """Reports that wait. `room` is how many there can be, `most` how many of one host."""

    def __init__(self, room: int, most: int = MOST) -> None:
        self._room = room
        self._most = most
        self._waiting: dict[str, deque[tuple[Hashable, T]]] = {}
        self._due: dict[str, float] = {}
        """When each host that waits, or rests, has its turn."""

    def add(self, host: str, kind: Hashable, report: T, now: float) -> T | None:
        """One more; which goes for it. What says the same kind of thing is replaced, None is no kind."""
        waiting = self._waiting.setdefault(host, deque())
        self._due.setdefault(host, now)
        older = None
        if kind is not None:
            older = next((each for each in waiting if each[0] == kind), None)
        if older is None and len(waiting) == self._most:
            older = waiting[0]
        if older is not None:
            waiting.remove(older)
        waiting.append((kind, report))
        return older[1] if older is not None else None

    def next(self, now: float) -> tuple[str, T] | None:
        """The host whose turn it is, and its oldest report. It has none again before it `took` this one."""
        host = min(self._waiting, key=self._due.__getitem__, default=None)
        if host is None or self._due[host] == inf:
            return None
        if self._due[host] > now and sum(map(len, self._waiting.values())) < self._room:
            return None
        self._due[host] = inf
        waiting = self._waiting[host]
        _, report = waiting.popleft()
        if not waiting:
            del self._waiting[host]
        return host, report

    def more(self, host: str, count: int) -> list[T]:
        """Up to so many more of the host whose turn it is."""
        waiting = self._waiting.get(host, deque())
        taken = [waiting.popleft()[1] for _ in range(min(count, len(waiting)))]
        if not waiting:
            self._waiting.pop(host, None)
        return taken

    def due(self) -> float | None:
        """When somebody has a turn; None: nobody waits."""
        return min((self._due[host] for host in self._waiting), default=None)

    def took(self, host: str, seconds: float, now: float) -> None:
        """Reading the host's report took so long, until now."""
        self._due[host] = now + REST * seconds
        rested = [each for each, due in self._due.items() if due <= now and each not in self._waiting]
        for each in rested:
            del self._due[each]
