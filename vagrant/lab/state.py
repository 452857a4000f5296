"""What is known of a lab between two commands: one file in the lab's directory, written whole or not at all.

A lab is *up* while the process that owns it lives, or for good once `lab up` has ended well and given it up
(`owner` is None then). Anything else found under a lab's name is what a killed run left behind.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vagrant.lab import layout as layouts
from vagrant.lab import network
from vagrant.lab.broker import Tls
from vagrant.lab.layout import PINS, Layout
from vagrant.lab.processes import Process


class LabError(Exception):
    """The lab cannot do what was asked; the text says why, for people."""


@dataclass(frozen=True)
class Access:
    """How to reach the manager; what the broker's node is started with."""

    url: str
    ca: Path
    user: str
    password: str
    broker_tls: Tls
    broker_password: str


@dataclass(frozen=True)
class State:
    layout: Layout
    owner: Process | None
    access: Access | None = None

    def up(self) -> bool:
        return self.owner is None or self.owner.alive()


def save(state: State) -> None:
    """Readable by root only: there are passwords in it."""
    path = _file(state.layout.name)
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(state, enc_hook=str))
    fresh.rename(path)


def load(name: str) -> State | None:
    try:
        return msgspec.json.decode(_file(name).read_bytes(), type=State, dec_hook=_path)
    except FileNotFoundError:
        return None


@contextmanager
def locked(name: str) -> Iterator[None]:
    """The lab's directory is there, and nobody else builds or removes this lab meanwhile. If it is empty in
    the end it goes."""
    directory = layouts.directory(name)
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not directory.exists() or not os.path.samestat(directory.stat(), os.fstat(descriptor)):
            raise BlockingIOError
        try:
            yield
        finally:
            with suppress(OSError):
                directory.rmdir()
    except BlockingIOError:
        raise LabError(f"lab {name!r} is being built or removed by another process right now") from None
    finally:
        os.close(descriptor)


def left_behind(name: str) -> bool:
    """Is anything there that this lab owns?"""
    return _file(name).exists() or bool(network.found(name))


def remove(name: str) -> None:
    """Everything of the lab of this name but its empty, locked directory: kernel, pins, disk. Works on
    whatever part of it there is."""
    state = load(name)
    network.remove(name)
    if state is not None:
        # Processes have ended and the devices have gone, so nothing fills or reads the pinned maps any more.
        for host in state.layout.hosts:
            shutil.rmtree(host.pins, ignore_errors=True)
        # Held by another lab, or by a vsfwd of this machine's own, it stays.
        with suppress(OSError):
            PINS.rmdir()
    for entry in layouts.directory(name).iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _file(name: str) -> Path:
    return layouts.directory(name) / "state.json"


def _path(wanted: type, value: Any) -> Path:
    if wanted is not Path:
        raise NotImplementedError
    return Path(value)
