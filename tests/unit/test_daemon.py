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
from structlog.testing import capture_logs

import vsfwd.daemon
from tests.unit.test_config import COMPLETE
from vsfwd.config import Config
from vsfwd.configfile import ConfigError
from vsfwd.daemon import AWAY_S, Daemon, TaskEnded, _essential, notify, warn_of
from vsfwd.datapath import DatapathError, Limit, Settings
from vsfwd.datapath.kernel import WITHOUT
from vsfwd.incidents import Cause
from vsfwd.ipc.rights import Rights

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


def test_what_the_kernel_lacks_is_in_the_log() -> None:
    """A line for each feature, with what that means; none where nothing is missing."""
    with capture_logs() as logged:
        warn_of({})
        warn_of(WITHOUT)
    assert {line["feature"]: line["so"] for line in logged} == WITHOUT
    assert {line["log_level"] for line in logged} == {"warning"}


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
    """The kernel refuses for a moment: the daemon goes on, and so does what else it looks after. Meanwhile
    systemd's watchdog is not fed, whose patience ends when it lasts."""
    refusals: list[Exception] = [DatapathError("bare"), NetlinkError(12), OSError("nft")]
    mended, watched = asyncio.Event(), asyncio.Event()

    def restore() -> bool:
        if refusals:
            raise refusals.pop()
        mended.set()
        return False

    told: list[str] = []

    def fed(state: str) -> None:
        told.append(f"{state} with {len(refusals)} refusals to come")
        if state.startswith("WATCHDOG"):
            watched.set()

    async def at_once(work: Callable[[], object]) -> object:
        return work()

    guard = SimpleNamespace(restore=restore)
    looked: list[bool] = []
    daemon = SimpleNamespace(
        apply_thread=at_once,
        datapath=SimpleNamespace(port_guard=guard, check=lambda: None),
        reconciler=SimpleNamespace(mend=lambda: looked.append(True)),
        _status_line=lambda: "well",
    )
    monkeypatch.setattr(vsfwd.daemon, "notify", fed)
    daemon._mend_guard = partial(Daemon._mend_guard, cast(Daemon, daemon))
    monkeypatch.setattr(vsfwd.daemon, "MEND_PERIOD_S", 0.0)
    mending = asyncio.create_task(Daemon._mend(cast(Daemon, daemon)))
    async with asyncio.timeout(20):
        await mended.wait()
        await watched.wait()
    assert len(looked) >= 3
    assert told[:2] == ["STATUS=well with 2 refusals to come", "WATCHDOG=1 with 0 refusals to come"]
    mending.cancel()


async def test_a_reload_takes_what_can_be_taken() -> None:
    """Limits go to the kernel, brokers and users to their parts; what needs a restart is named and stays as
    it was, and so does everything when the configuration has a mistake, or the kernel refuses it."""
    old = Config.parse(COMPLETE, "old")
    changed = (
        "log_rate = 7\nreject_burst = 8\nstatistics_period_s = 5\nipc_uids = [107]\nflows_per_vnic = 64\n"
    )
    components = '[components.backup]\nusers = [7]\ntopics = ["done"]\n'
    new = Config.parse(COMPLETE.replace("10.0.0.2", "10.0.0.3") + changed + components, "new")
    configured: list[Settings] = []

    async def at_once(work: Callable[..., object], *arguments: object) -> object:
        return work(*arguments)

    daemon = SimpleNamespace(
        config=old,
        _reread=lambda: new,
        apply_thread=at_once,
        datapath=SimpleNamespace(configure=configured.append),
        broker=SimpleNamespace(urls=old.broker_urls),
        statistics=SimpleNamespace(period_s=old.statistics_period_s),
        rights=Rights({}),
    )
    taken, left = await Daemon.reload(cast(Daemon, daemon))
    assert left == ["flows_per_vnic"]
    assert taken == [
        *("broker_urls", "components", "ipc_uids", "log_rate", "reject_burst", "statistics_period_s"),
    ]
    (settings,) = configured
    assert (settings.log_limit, settings.reject_limit) == (Limit(7, 200), Limit(100, 8))
    assert settings.flows_per_vnic == old.flows_per_vnic
    assert daemon.config.ipc_uids == (107,)
    assert (daemon.broker.urls, daemon.statistics.period_s) == (new.broker_urls, 5)
    daemon.rights.check(7, "backup", "done")

    def mistaken() -> Config:
        raise ConfigError("vsfwd.toml:3: no")

    daemon._reread = mistaken
    with pytest.raises(ConfigError):
        await Daemon.reload(cast(Daemon, daemon))
    assert (daemon.config.log_rate, len(configured)) == (7, 1)

    def refused(_: Settings) -> None:
        raise DatapathError("no room")

    daemon._reread, daemon.datapath.configure = lambda: old, refused
    with pytest.raises(DatapathError):
        await Daemon.reload(cast(Daemon, daemon))
    assert daemon.config.log_rate == 7
