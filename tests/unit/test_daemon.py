"""Pieces of the composition root: telling systemd, what the end of a task is, alarms about the host."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pyroute2.netlink.exceptions import NetlinkError

import vsfwd.daemon
from vsfwd.daemon import AWAY_S, Daemon, TaskEnded, _essential, notify
from vsfwd.datapath import DatapathError
from vsfwd.incidents import Cause

AWAY = "management_channel_to_manager_node_down"


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


async def test_a_task_that_ends_as_cancelled_is_an_error_unless_it_was() -> None:
    """A library may say so of itself; the task group, which takes it for our own end, would go on without."""

    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(TaskEnded, match="'watch'"):
        await _essential("watch", give_up())
    essential = asyncio.create_task(_essential("watch", asyncio.Event().wait()))
    await asyncio.sleep(0)
    essential.cancel()
    await asyncio.wait([essential], timeout=5)
    assert essential.cancelled()


def causes(**parts: object) -> Mapping[Cause, str]:
    """Alarms about a host that has these parts, and is well otherwise."""
    well = {
        "renewal": SimpleNamespace(expiry=lambda: None),
        "broker": SimpleNamespace(away_for_s=lambda: 0.0),
        "config": SimpleNamespace(host_id="host"),
        "datapath": SimpleNamespace(port_guard=SimpleNamespace(fault="")),
        "moves": SimpleNamespace(held_long=dict),
        "reconciler": SimpleNamespace(not_saved=""),
    }
    return Daemon._of_this_host(cast(Daemon, SimpleNamespace(**{**well, **parts})))


@pytest.mark.parametrize(("away_for_s", "events"), [(AWAY_S - 1, []), (AWAY_S, [AWAY])])
def test_o10_a_broker_that_is_away_is_an_alarm(away_for_s: float, events: list[str]) -> None:
    """After a minute, with what was wrong last; what is in force stays."""
    found = causes(broker=SimpleNamespace(away_for_s=lambda: away_for_s, last_error="refused"))
    assert [cause.event_type for cause in found] == events
    assert all(cause.feature == "communication" and "refused" in what for cause, what in found.items())


def test_o27_a_policy_that_is_not_on_disk_is_an_alarm() -> None:
    """As long as it is not, with the disk's reason."""
    ((cause, what),) = causes(reconciler=SimpleNamespace(not_saved="No space left on device")).items()
    assert cause == Cause("dfw_policy_not_saved", "HIGH", "host")
    assert what == "what is in force is not on disk: No space left on device"


def test_o33_a_vnic_that_nothing_passes_for_long_is_an_alarm() -> None:
    """Its VM is about to move, and has been for a minute; in NSX's words."""
    ((cause, what),) = causes(moves=SimpleNamespace(held_long=lambda: {"vnic": "nothing has passed"})).items()
    assert (cause.feature, *cause) == ("distributed_firewall", "dfw_vmotion_failure", "CRITICAL", "vnic")
    assert what == "nothing has passed"


async def test_what_cannot_be_mended_now_is_mended_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses for a moment: the daemon goes on, and so does what else it looks after."""
    refusals: list[Exception] = [DatapathError("bare"), NetlinkError(12), OSError("nft")]
    mended = asyncio.Event()

    def restore() -> bool:
        if refusals:
            raise refusals.pop()
        mended.set()
        return False

    async def at_once(work: Callable[[], object]) -> object:
        return work()

    guard = SimpleNamespace(restore=restore)
    looked: list[bool] = []
    daemon = SimpleNamespace(
        apply_thread=at_once,
        datapath=SimpleNamespace(port_guard=guard),
        reconciler=SimpleNamespace(mend=lambda: looked.append(True)),
    )
    daemon._mend_guard = partial(Daemon._mend_guard, cast(Daemon, daemon))
    monkeypatch.setattr(vsfwd.daemon, "MEND_PERIOD_S", 0.0)
    mending = asyncio.create_task(Daemon._mend(cast(Daemon, daemon)))
    async with asyncio.timeout(20):
        await mended.wait()
    assert len(looked) >= 3
    mending.cancel()
