"""Waiting in a test that runs beside what it waits for; `vagrant.lab.waiting` is for those that may block."""

import asyncio
from collections.abc import Callable


async def eventually(
    condition: Callable[[], bool], what: str, timeout_s: float = 60.0, every_s: float = 0.02
) -> None:
    """Returns as soon as `condition` holds. Raises TimeoutError naming `what` when it does not in time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  (what is waited for sets no event)
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise TimeoutError(f"{what}: not within {timeout_s:g} s") from None
