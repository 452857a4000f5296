"""O25, O26: the wall clock of a host is set, or has gone on while the host slept. The daemon is the one that
runs on hosts, with libfaketime between it and the time of day; kernel, traffic, broker and certificates are
real."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness.lone import LoneHost, lone_host
from tests.harness.wallclock import WallClock
from tests.integration.daemon_host import NO_PING, Setting
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import ask
from vsfwd.protocol.messages import Applied, Hello

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-0000-4000-8000-0000000000f{}"
JUMPS = {"+8h": 8, "+10y": 87_600, "-10y": -87_600, "+0": 0}
"""As after a night's sleep; as by a wrong hand, both ways; and right again. With the hours between: a year of
libfaketime's has 365 days."""


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoneHost, WallClock]]:
    directory = tmp_path_factory.mktemp("clock")
    with WallClock(directory) as clock, lone_host(directory, flows_per_vnic=1024) as host:
        host.daemon.environment = clock.environment
        yield host, clock


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[WallClock]:
    with WallClock(tmp_path) as clock:
        yield clock


def works_by(host: LoneHost, number: int, hours: int) -> None:
    """It takes an announcement, and dates it so many hours from now, but for the minutes that this takes."""
    parameters = {"vnic": UNKNOWN.format(number), "vm": UNKNOWN.format(number), "mac": "02:00:00:00:00:f0"}
    ask(
        host.daemon.directory / "vsfwd.sock",
        lambda vsfwd: vsfwd.AnnounceVnic(**parameters, device=f"later{number}"),
    )
    lines = host.daemon.log.read_text().splitlines()
    (line,) = (line for line in lines if f'"vNIC announced" vnic={parameters["vnic"]}' in line)
    said = datetime.fromisoformat(line.split()[0].removeprefix("timestamp="))
    assert abs(said - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(hours=1)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "started under the wrong time"])
def test_o25_o26_a_clock_that_is_set_ends_no_flow_and_opens_nothing(
    plugged: tuple[LoneHost, WallClock], restarted: bool
) -> None:
    """Nothing that must pass is lost, nothing that must not is delivered, connections from before go on; and
    the daemon is at work, by the new time."""
    host, clock = plugged
    if host.daemon.process is None:
        host.daemon.start()
    with host.probed() as probers:
        for number, (offset, hours) in enumerate(JUMPS.items()):
            for prober in probers:
                prober.note(offset)
            clock.set(offset)
            if restarted:
                host.daemon.kill()
                host.daemon.start()
            works_by(host, number + len(JUMPS) * restarted, hours)
            probers[0].flowing()
    assert [line for prober in probers for line in prober.violations()] == []


async def test_o25_policy_comes_by_the_session_that_is_there_and_no_other_begins(
    clock: WallClock, setting: Setting
) -> None:
    """Ten years on the session stays and brings what is newer. A vsfwd that starts then finds no certificate
    that is valid: it enforces what it has, says why it hears nobody, and when the clock is right it does."""
    setting.host.kill()
    setting.host.environment = clock.environment
    setting.host.start(setting.config)
    await setting.with_policy()
    clock.set("+10y")
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    await setting.manager.reported(Applied, lambda event: event.generation == 2)
    assert not setting.host.ping()
    setting.host.kill()
    setting.manager.events.clear()
    setting.host.start(setting.config)
    wait_until(lambda: "certificate" in setting.host.ask("status")["broker_error"], "why there is no session")
    assert setting.host.ask("status")["broker"] is None
    assert not setting.host.ping()
    clock.set("+0")
    assert (await setting.manager.reported(Hello)).generation == 2
