"""Processes the lab starts, and how it finds them again after it has ended itself.

A process is remembered by its pid and its start time, so a pid that the kernel has given to somebody else is
never signalled. Signals go through a pidfd, opened before the start time is compared: in between nothing can
change.
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
        return _started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Does nothing when the process has gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if _started(self.pid) == self.started:
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
    argv: Sequence[str],
    *,
    pid_file: Path,
    log: Path,
    namespace: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a daemon in a session of its own, output appended to `log`; it outlives us, `recall` finds it."""
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
    process = Process(child.pid, int(_fields(child.pid)[19]))
    pid_file.write_text(f"{process.pid} {process.started}\n")
    return process


def recall(pid_file: Path) -> Process | None:
    """What `spawn` wrote there; it may have ended since."""
    try:
        pid, started = pid_file.read_text().split()
    except FileNotFoundError:
        return None
    return Process(int(pid), int(started))


def living(pid: int) -> Process | None:
    """The process that has this pid now."""
    started = _started(pid)
    return None if started is None else Process(pid, started)


def inside(namespace: Path) -> list[Process]:
    """Every process whose network namespace is the one this file stands for."""
    wanted = namespace.stat()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        # Read before the namespace: should the pid change hands in between, the start time will not match.
        process = living(int(entry.name))
        # Gone meanwhile, or not ours to look at.
        with contextlib.suppress(OSError):
            if process and os.path.samestat((entry / "ns/net").stat(), wanted):
                found.append(process)
    return found


def _started(pid: int) -> int | None:
    """Start time of a living process; None when there is none, or only a zombie."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _fields(pid: int) -> list[str]:
    """proc(5), from field 3 on; the command name before it may hold anything, so cut at the last ")"."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
