"""What waits to be said to hosts of moves, in the order in which it came."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from uuid import uuid4

from vsfwd.protocol import migration


@dataclass(frozen=True)
class Letter:
    """`state_of`: the move of whose state it is a part."""

    host: str
    id: str
    body: bytes
    state_of: str = ""


class Letters:
    """`wake` is called when there is something to send; `bytes` wait."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.bytes = 0
        self._letters: deque[Letter] = deque()

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, host: str, message: migration.Move, *, state_of: str = "") -> None:
        letter = Letter(host, str(uuid4()), migration.encode(message), state_of)
        self._letters.append(letter)
        self.bytes += len(letter.body)
        self.wake()

    def take(self, count: int) -> list[Letter]:
        """The next ones, up to so many."""
        taken = [self._letters.popleft() for _ in range(min(len(self), count))]
        self.bytes -= sum(len(letter.body) for letter in taken)
        return taken

    def leave(self, moves: Collection[str]) -> None:
        """What waits of the states of these is not sent."""
        self._letters = deque(letter for letter in self._letters if letter.state_of not in moves)
        self.bytes = sum(len(letter.body) for letter in self._letters)
