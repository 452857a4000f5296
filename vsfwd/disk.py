"""A disk that may hang: whoever saves waits some seconds at most, and goes on.

What was asked to be written is written when the disk takes it, unless there is something newer by then. One
thread for each file, so that a write ends before the next one begins."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Condition, Thread
from typing import Final

PATIENCE_S: Final = 5.0


class Disk:
    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._files: dict[str, _File] = {}

    def write(self, file: str, work: Callable[[], None]) -> None:
        """Returns when `work` is done, and raises what it raises; TimeoutError when that takes too long, at
        once where the one before hangs still."""
        if file not in self._files:
            self._files[file] = _File(file)
        self._files[file].write(work, self._patience_s)


class _File:
    """Its thread stays: to begin one for each write costs more than most writes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked = Condition()
        self._next: tuple[Callable[[], None], Future[None]] | None = None
        self._hangs = False
        # A daemon thread: what hangs does not keep the process from its end.
        Thread(target=self._write_all, name=f"disk {name}", daemon=True).start()

    def write(self, work: Callable[[], None], patience_s: float) -> None:
        with self._asked:
            written: Future[None] = self._next[1] if self._next else Future()
            self._next = work, written
            self._asked.notify()
            patience_s = 0 if self._hangs else patience_s
        with suppress(TimeoutError):
            written.exception(patience_s)
        with self._asked:
            if not written.done():
                self._hangs = True
                raise TimeoutError(f"the disk does not take {self._name}; it is written when it does")
        written.result()

    def _write_all(self) -> None:
        while True:
            with self._asked:
                while self._next is None:
                    self._asked.wait()
                (work, written), self._next = self._next, None
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:
                error = raised
            with self._asked:
                self._hangs = False
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
