"""What takes long and changes nothing, in a thread beside the one that changes and publishes, so that
nobody's question stops the manager: reads, and working out what a change would be. One at a time, of each
user few, each with an end.

The work gets what it reads when it begins, immutable or copied, and calls `check` between its steps.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

import msgspec
from fastapi import Response

from manager_stub import audit
from manager_stub.api.errors import Problem

T = TypeVar("T")
Check = Callable[[], None]

READ_S: Final = 10.0
"""What one may take."""
MAX_WAITING: Final = 16
"""With the one at work."""
MAX_OF_ONE: Final = 2
"""Of these, of one user."""


class Aside:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "aside")
        self._waiting: Counter[str] = Counter()
        """By user."""

    async def run(self, work: Callable[[Check], T]) -> T:
        """What `work` returns or raises. Raises Problem: too many, too long."""
        user = audit.actor.get()
        if self._waiting[user] >= MAX_OF_ONE or self._waiting.total() >= MAX_WAITING:
            raise Problem(503, "other searches, comparisons or analyses are under way, try again")
        self._waiting[user] += 1
        loop = asyncio.get_running_loop()
        done = self._thread.submit(copy_context().run, _timed, work)
        # Not where the answer is given: who went away keeps the place until the work has ended.
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, user))
        return await asyncio.wrap_future(done)

    async def answer(self, work: Callable[[Check], object]) -> Response:
        """What `work` returns, as the body of an answer that is written there too."""
        return await self.run(lambda check: written(work(check)))

    def _leave(self, user: str) -> None:
        self._waiting[user] -= 1
        if not self._waiting[user]:
            del self._waiting[user]


def written(found: object) -> Response:
    """As JSON, at once: FastAPI would look through a large answer first."""
    return Response(msgspec.json.encode(found), media_type="application/json")


def _timed(work: Callable[[Check], T]) -> T:
    end = time.monotonic() + READ_S

    def check() -> None:
        if time.monotonic() > end:
            raise Problem(503, f"this takes more than {READ_S:g} s, ask for less")

    return work(check)
