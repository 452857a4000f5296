"""A wall clock that is set while a process runs, by Debian's libfaketime: for that process alone, and the
clocks that nobody sets (CLOCK_MONOTONIC, the kernel's ticks) go on as they are. It is also what a process
sees of a host that has slept: the wall clock has gone on, they have not."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

LIBRARY: Final = "libfaketimeMT.so.1"
SLEEP: Final = """
import threading, time
time.sleep = lambda seconds: threading.Event().wait(seconds) and None
"""
"""Run by Python before anything else: the clock_nanosleep that its own asks for, libfaketime 0.9.10 refuses
where it leaves CLOCK_MONOTONIC alone."""


SHARED: Final = Path("/dev/shm")
"""There libfaketime has a piece of memory and a semaphore of each process, by its id, and removes them when
the process exits: not when it is killed."""


class WallClock:
    """Start the process with `environment`, inside the `with` block, and end it there."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "faketime"
        patched = directory / "sleep"
        patched.mkdir()
        (patched / "sitecustomize.py").write_text(SLEEP)
        (library,) = Path("/usr/lib").glob(f"*/faketime/{LIBRARY}")
        self.environment: Final = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(patched),
        }
        self.set("+0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for left in SHARED.glob("*faketime_s*_*"):
            if not Path("/proc", left.name.rpartition("_")[2]).exists():
                left.unlink(missing_ok=True)

    def set(self, offset: str) -> None:
        """From the right time, as in "+8h" or "-10y"; the process looks whenever it asks for the time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.replace(self._file)
