"""Processes the lab starts, and how it finds them again after it has ended itself.

A process is remembered by its pid and its start time, so a pid that the kernel has given to somebody else since
is never signalled. Signals go through a pidfd, opened before the start time is compared: between the two nothing
can change.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vagrant.lab.waiting import wait_until


@dataclass(frozen=True)
class Process:
    """`started` is field 22 of /proc/PID/stat: clock ticks since boot."""

    pid: int
    started: int

    def alive(self) -> bool:
        """A zombie is dead; if it is our child it is reaped here."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _stat(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Does nothing when the process has gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if _stat(self.pid) == self.started:
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when that is not heeded in time. Returns when the process has gone."""
        self.signal(signal.SIGTERM)
        try:
            wait_until(lambda: not self.alive(), f"end of process {self.pid}", timeout_s)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        wait_until(lambda: not self.alive(), f"end of process {self.pid} after SIGKILL")


def in_namespace(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """`argv`, run in a network namespace (None: the one we are in). Unlike `ip netns exec` this leaves /sys
    alone, where the pins of vsfwd are; nsenter becomes `argv`, so the pid is the program's."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *argv] if namespace else list(argv)


def spawn(
    argv: Sequence[str], *, log: Path, namespace: str | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """Start a daemon in a session of its own, output appended to `log`; it outlives us."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            in_namespace(namespace, argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
    # Until we wait for it the child is at least a zombie, so its start time can always be read.
    return Process(child.pid, _start_time(child.pid))


def of_pid(pid: int) -> Process | None:
    """The living process that has this pid now."""
    started = _stat(pid)
    return None if started is None else Process(pid, started)


def _start_time(pid: int) -> int:
    return int(_fields(pid)[19])


def _stat(pid: int) -> int | None:
    """Start time of a living process; None when there is none, or only a zombie."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _fields(pid: int) -> list[str]:
    """proc(5), from field 3 on; the command name before it may hold anything, so cut at the last ")"."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
