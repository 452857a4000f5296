"""What waits to be sent to hosts: each host in its turn gives one, so that one for which there is much to
send, or which made that necessary itself, keeps no other waiting. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Rounds(Generic[T]):
    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        """By host; whose turn it is comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return ((host, each) for host, waiting in self._waiting.items() for each in waiting)

    def of(self, host: str) -> Sequence[T]:
        """The oldest first."""
        return tuple(self._waiting.get(host, ()))

    def add(self, host: str, each: T) -> None:
        self._waiting.setdefault(host, deque()).append(each)

    def take(self, count: int) -> list[tuple[str, T]]:
        """The next ones, up to so many."""
        taken: list[tuple[str, T]] = []
        while self._waiting and len(taken) < count:
            host = next(iter(self._waiting))
            waiting = self._waiting.pop(host)
            taken.append((host, waiting.popleft()))
            if waiting:
                self._waiting[host] = waiting
        return taken

    def put_back(self, taken: Sequence[tuple[str, T]]) -> None:
        """They were taken, and are to be sent all the same: before others of their hosts."""
        for host, each in reversed(taken):
            self._waiting.setdefault(host, deque()).appendleft(each)

    def remove(self, host: str, each: T) -> None:
        """If it has not been taken."""
        waiting = self._waiting.get(host, deque())
        if each in waiting:
            waiting.remove(each)
            if not waiting:
                del self._waiting[host]
