"""Processes the lab starts: found again, ended surely, and nobody else's ever signalled."""

import os
import signal
import sys
from pathlib import Path

from vagrant.lab.processes import Process, living, recall, spawn
from vagrant.lab.waiting import wait_until

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def start(tmp_path: Path, *argv: str) -> Process:
    return spawn(argv, pid_file=tmp_path / "pid", log=tmp_path / "log")


def test_a_process_is_found_again_by_its_pid_file(tmp_path: Path) -> None:
    """Also by another process than the one that started it; ended, it is dead although nobody waited for
    it."""
    started = start(tmp_path, "sleep", "60")
    found = recall(tmp_path / "pid")
    assert found == started
    assert found.alive()
    found.stop()
    assert not found.alive()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """`stop` returns only when it has gone."""
    process = start(tmp_path, sys.executable, "-c", STUBBORN)
    wait_until(lambda: "deaf" in (tmp_path / "log").read_text(), "the handler to be set")
    process.stop(timeout_s=0.2)
    assert not process.alive()


def test_a_pid_that_is_somebody_elses_now_is_left_alone(tmp_path: Path) -> None:
    """Same pid, other start time: not alive, and no signal reaches it."""
    process = start(tmp_path, "sleep", "60")
    stale = Process(process.pid, process.started - 1)
    assert not stale.alive()
    stale.signal(signal.SIGKILL)
    assert process.alive()
    process.kill()


def test_no_pid_file_is_no_process(tmp_path: Path) -> None:
    """Never started."""
    assert recall(tmp_path / "pid") is None


def test_we_are_living() -> None:
    """Our own start time is the one in /proc."""
    ours = living(os.getpid())
    assert ours is not None
    assert ours.alive()
