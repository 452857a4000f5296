"""Memory while one policy takes the place of another: a hundred thousand objects come, as many go. Effects on
the whole process, and no more than that: nothing here knows what a policy is."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_libc = ctypes.CDLL(None)


@contextmanager
def no_collection() -> Iterator[None]:
    """What is made here lives on. Python would look for cycles among it again and again while it is made,
    which takes a third of the time; once, afterwards, is enough."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def give_back() -> None:
    """To the kernel, what is free: left to itself, glibc keeps as much as the largest policy was."""
    _libc.malloc_trim(0)
