"""Waiting: always on a condition with a deadline, and a person who looks on sees for what."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = 30.0, every_s: float = 0.05
) -> None:
    """Returns as soon as `condition` holds. Raises TimeoutError naming `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


@contextmanager
def step(what: str) -> Iterator[None]:
    """A line of progress on standard error: what is being done, then how long it took or that it failed."""
    begun = time.monotonic()
    print(f"==> {what} ... ", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
