"""Pieces of the composition root: telling systemd, and what the end of a task is."""

import socket
from pathlib import Path

import pytest

from vsfwd.daemon import TaskEnded, _essential, notify


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One datagram to the socket in NOTIFY_SOCKET."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a missing variable nor a missing socket is an error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    notify("READY=1")


async def test_a_task_that_returns_is_an_error() -> None:
    """Every task runs as long as the daemon; which one ended is said."""

    async def short() -> None:
        return

    with pytest.raises(TaskEnded, match="'watch'"):
        await _essential("watch", short())
