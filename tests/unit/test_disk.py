"""A disk that hangs holds up nobody for long, and gets the newest of what was to be written (O27)."""

import subprocess
import sys
import time
from collections.abc import Callable
from threading import Event

import pytest

from vagrant.lab.waiting import wait_until
from vsfwd.disk import Disk

FILE = "policy.json"
PATIENCE_S = 0.1
ENOUGH_S = 30.0
"""For a thread to be given a CPU, however busy the machine is."""


class Slow:
    """What is written, one after the other; each waits until somebody lets it."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.disk = Disk(patience_s)
        self.begun: list[int] = []
        self.written: list[int] = []
        self.goes_on = Event()

    def writing(self, number: int) -> Callable[[], None]:
        def work() -> None:
            self.begun.append(number)
            self.goes_on.wait()
            self.written.append(number)

        return work


def test_what_is_written_is_there_when_write_returns() -> None:
    """One after the other; and what the disk says is told."""
    slow = Slow(ENOUGH_S)
    slow.goes_on.set()
    for number in range(3):
        slow.disk.write(FILE, slow.writing(number))
        assert slow.written[-1] == number
    with pytest.raises(OSError, match="No space left"):
        slow.disk.write(FILE, _no_space)
    slow.disk.write(FILE, slow.writing(3))
    assert slow.written == [0, 1, 2, 3]


def test_o27_who_waits_for_a_disk_that_hangs_waits_once() -> None:
    """Then it is told at once, for as long as that lasts; another file is another matter."""
    slow, other = Slow(), list[int]()
    with pytest.raises(TimeoutError, match=r"the disk does not take policy\.json"):
        slow.disk.write(FILE, slow.writing(0))
    begun = time.monotonic()
    for number in range(1, 1000):
        with pytest.raises(TimeoutError):
            slow.disk.write(FILE, slow.writing(number))
    assert time.monotonic() - begun < 1000 * PATIENCE_S
    slow.disk._patience_s = ENOUGH_S
    slow.disk.write("vnics.json", lambda: other.append(1))
    assert other == [1]
    slow.goes_on.set()


def test_o27_of_all_that_waited_the_newest_is_written() -> None:
    """What lies between is nothing any more; from then on the disk is waited for again."""
    slow = Slow()
    for number in range(5):
        with pytest.raises(TimeoutError):
            slow.disk.write(FILE, slow.writing(number))
    wait_until(lambda: slow.begun == [0], "the first one on its way")
    slow.goes_on.set()
    wait_until(lambda: slow.written == [0, 4], "the newest on the disk")
    slow.disk._patience_s = ENOUGH_S
    slow.disk.write(FILE, slow.writing(5))
    assert slow.written == [0, 4, 5]


def test_o27_a_disk_that_hangs_and_then_fails_may_be_tried_again() -> None:
    """The failure was of a write that nobody waits for any more."""
    slow, failed = Slow(), Event()

    def fails() -> None:
        slow.goes_on.wait()
        failed.set()
        _no_space()

    with pytest.raises(TimeoutError):
        slow.disk.write(FILE, fails)
    slow.goes_on.set()
    assert failed.wait(30)
    _in_the_end(lambda: slow.disk.write(FILE, slow.writing(1)))
    assert slow.written[-1] == 1


@pytest.mark.slow
def test_o27_a_disk_that_hangs_keeps_no_process_from_its_end() -> None:
    """As when the host is shut down."""
    program = "from time import sleep; from vsfwd.disk import Disk; Disk(0.1).write('f', lambda: sleep(3600))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "TimeoutError: the disk does not take f" in done.stderr


def _in_the_end(save: Callable[[], None]) -> None:
    """As whoever saves does: it is tried again."""

    def done() -> bool:
        try:
            save()
        except TimeoutError:
            return False
        return True

    wait_until(done, "saved")


def _no_space() -> None:
    raise OSError(28, "No space left on device")
