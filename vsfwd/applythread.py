"""The one thread that touches policy and datapath, so that neither needs a lock; turns for who only reads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ApplyThread:
    """Work is done in the order it comes; the event loop stays free for heartbeats. Who stops waiting does
    not stop the work."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="apply")

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def finish(self, last: Callable[[], None]) -> None:
        """Wait for what has begun, then do `last`."""
        self._executor.submit(last).result()
        self._executor.shutdown()


class Reads:
    """The apply thread for who only wants to know: one after the other, so that policy waits for one of them,
    and not for all clients that ask at once."""

    def __init__(self, apply_thread: ApplyThread) -> None:
        self._apply_thread = apply_thread
        self._turn = asyncio.Lock()

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        async with self._turn:
            reading = asyncio.ensure_future(self._apply_thread(work, *arguments))
            try:
                return await asyncio.shield(reading)
            finally:
                await asyncio.wait([reading])  # who stops waiting gives nobody a turn before that
