"""The daemon ends in every way there is, and comes back: no packet notices.

Traffic of three kinds goes both ways through one vNIC all the time (harness/prober.py): nothing that must
pass is lost, nothing that must not is delivered, a connection from before goes on."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.lone import VM_ADDRESSES, VM_MAC, LoneHost, lone_host
from tests.harness.pieces import pieces
from tests.harness.policies import objects
from tests.harness.prober import RULES, Prober, figures

pytestmark = pytest.mark.slow
CUT_RULES = tuple(rule.replace("allow", "allow cut") for rule in RULES)
"""Every change of policy ends all flows: a restart that were one would be seen."""
QUOTA = 256
"""Places of the flow table."""
Record = Callable[[str, str], None]


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneHost]:
    with lone_host(tmp_path_factory.mktemp("restarts"), flows_per_vnic=QUOTA) as host:
        host.daemon.keep(objects(CUT_RULES, {}, {"web": f"{' '.join(VM_ADDRESSES)} {VM_MAC}"}))
        yield host


@pytest.fixture
def host(plugged: LoneHost) -> LoneHost:
    """With a daemon that enforces."""
    if plugged.daemon.process is None:
        plugged.daemon.start()
    return plugged


def assert_unnoticed(probers: tuple[Prober, ...]) -> None:
    assert [line for prober in probers for line in prober.violations()] == []


@pytest.mark.parametrize("kills", [pytest.param(range(3), id="few"), *pieces(1000, 250)])
def test_o1_a_killed_daemon_is_not_missed(host: LoneHost, kills: range, record_property: Record) -> None:
    """SIGKILL, a while without a daemon, the next one: programs, flows and verdicts are what they were."""
    before = host.attached()
    with host.probed() as probers:
        for number in kills:
            for prober in probers:
                prober.note(f"kill {number}")
            host.daemon.kill()
            probers[0].flowing(10)
            host.daemon.start()
    record_property("figure", f"{len(kills)} kills: {figures(prober.counted() for prober in probers)}")
    assert_unnoticed(probers)
    assert host.attached() == before


@pytest.mark.parametrize("restarts", [pytest.param(range(10), id="few"), *pieces(100, 100)])
def test_o2_a_crash_loop_leaves_nothing_behind(host: LoneHost, restarts: range) -> None:
    """Killed at any point of its start, again and again: afterwards there is the same as before, by its ids
    (policy banks, which are exchanged, lie inside those maps)."""
    chance = random.Random(len(restarts))
    host.daemon.kill()
    host.daemon.start()  # so that both banks are there
    pinned, attached = host.pinned(), host.attached()
    host.daemon.kill()
    with host.probed() as probers:
        for number in restarts:
            for prober in probers:
                prober.note(f"restart {number}")
            host.daemon.launch()
            probers[0].flowing(chance.randrange(150))
            host.daemon.kill()
        host.daemon.start()
    assert_unnoticed(probers)
    assert (host.pinned(), host.attached()) == (pinned, attached)


@contextmanager
def memory_limit(limit: int) -> Iterator[Path | None]:
    """Where a process puts its number to have no more than that; None where nobody may make such a group."""
    group = control_group(limit)
    try:
        yield group and group / "cgroup.procs"
    finally:
        if group:
            group.rmdir()


def control_group(limit: int) -> Path | None:
    """Of version 1 or 2."""
    for root, setting in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup", root, f"vsfwd-test-{os.getpid()}")
        with suppress(OSError):
            group.mkdir()
            if (group / setting).exists():
                (group / setting).write_text(str(limit))
                return group
            group.rmdir()
    return None


def test_o23_a_daemon_that_runs_out_of_memory_is_not_missed(host: LoneHost) -> None:
    """The kernel kills it in the middle of its start; the next one, with room, goes on. (Where no control
    group can be made, somebody else sends the same signal.)"""
    host.daemon.kill()
    with host.probed() as probers:
        with memory_limit(24 << 20) as limited:
            starting = host.daemon.launch()
            if limited:
                limited.write_text(str(starting.pid))
            else:
                probers[0].flowing()
                starting.kill()
            assert starting.wait(timeout=60) == -signal.SIGKILL
        host.daemon.start()
    assert_unnoticed(probers)


def test_o24_a_daemon_that_gets_no_time_is_not_missed(host: LoneHost) -> None:
    """SIGSTOP, while four quotas of new flows begin: the table does not fill, and nothing expires late."""
    assert host.daemon.process is not None
    with host.probed() as probers:
        host.daemon.process.send_signal(signal.SIGSTOP)
        probers[0].flowing(4 * QUOTA // 4)
        host.daemon.process.send_signal(signal.SIGCONT)
    assert_unnoticed(probers)
