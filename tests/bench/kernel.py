"""What the bench makes in the kernel besides the lab: namespaces for one test, and datapaths of its own.

All of it bears the bench's name, so that the next run finds what a killed one left. One run at a time.
"""

import fcntl
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from pyroute2 import netns

from tests.bench.policy import LAB
from vagrant.lab import network
from vagrant.lab.layout import CACHE
from vagrant.lab.probe import inside
from vagrant.lab.processes import in_namespace
from vsfwd.datapath import Datapath, Settings

PINS: Final = Path("/sys/fs/bpf/vsfwd-bench")
_LOCK: Final = Path("/run/vsfwd-bench.lock")
"""Stays until the machine starts again: whoever removes a lock's file lets two hold it."""


@contextmanager
def alone() -> Iterator[None]:
    """The only bench on this machine, with nothing left of those before it, and leaving nothing."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another bench is running on this machine") from None
        _remove()
        try:
            yield
        finally:
            _remove()


def _remove() -> None:
    network.remove(LAB.name)
    shutil.rmtree(PINS, ignore_errors=True)


def run(namespace: str, argv: list[str], text: str = "") -> str:
    """Output of a program in a network namespace that is given `text`."""
    done = subprocess.run(
        in_namespace(namespace, argv), input=text, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} in {namespace}: {done.stderr.strip()[:500]}")
    return done.stdout


@contextmanager
def device(name: str) -> Iterator[int]:
    """Index of a device that leads nowhere, in a namespace of its own. The caller is in there meanwhile."""
    namespace = f"vsfw-{LAB.name}-{name}"
    netns.create(namespace)
    try:
        run(namespace, ["ip", "link", "add", name, "type", "veth", "peer", "name", "other"])
        with inside(namespace):
            yield socket.if_nametoindex(name)
    finally:
        netns.remove(namespace)


@contextmanager
def private_datapath(settings: Settings) -> Iterator[Datapath]:
    """A datapath with pins of its own."""
    PINS.mkdir(exist_ok=True)
    pins = Path(mkdtemp(dir=PINS))
    try:
        with Datapath.open(pins, settings, CACHE) as datapath:
            yield datapath
    finally:
        shutil.rmtree(pins)
