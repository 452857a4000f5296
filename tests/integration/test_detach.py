"""`vsfwd --detach`: the one command by which a host is filtered no more."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lone import DEVICE, LoneHost, lone_host
from tests.harness.prober import DROP
from vagrant.lab.probe import inside
from vsfwd.datapath.early import Early
from vsfwd.datapath.loader import Programs

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LoneHost]:
    """Its VM's port is guarded."""
    with lone_host(tmp_path, guard_ports=["veth-*"]) as host:
        host.daemon.start()
        yield host


def enforces(host: LoneHost) -> bool:
    """What must not pass does not; else all of it does."""
    with host.probed() as probers:
        for prober in probers:
            prober.flowing(20)
    counts = {tally.arrived > 0 for prober in probers for tally in prober.tallies if tally.kind == DROP}
    (open_,) = counts
    assert open_ or [prober.violations() for prober in probers] == [[], []]
    return not open_


def test_nothing_is_left_and_the_next_start_enforces_again(host: LoneHost) -> None:
    """O44. No program, no early drop, no port guard, no pin; each device is named. The next daemon knows the
    vNIC by its alias, which stays."""
    assert enforces(host)
    host.daemon.end()
    with inside(host.namespace), Programs(host.pins) as programs:
        drop = Early(programs)
        drop.attach("neighbour", (), rate=1000, burst=1000)
        drop.close()
    assert early_drops(host)
    said = host.daemon.detach().stderr
    assert {f'event="not filtered any more" device={name}' in said for name in (DEVICE, "neighbour")} == {
        True
    }
    assert not host.attached()
    assert list(host.pins.iterdir()) == []
    assert "vsfwd" not in listed(host, "nft", "list", "tables")
    assert not early_drops(host)
    assert not enforces(host)
    host.daemon.start()
    assert enforces(host)


def early_drops(host: LoneHost) -> list[str]:
    return [line for line in listed(host, "ip", "link").splitlines() if "xdp" in line]


def listed(host: LoneHost, *argv: str) -> str:
    inside = ["ip", "netns", "exec", host.namespace, *argv]
    return subprocess.run(inside, check=True, capture_output=True, text=True).stdout


def test_under_a_running_daemon_it_does_nothing(host: LoneHost) -> None:
    """Which would attach it all again: a line that says so, status 1."""
    pinned, attached = host.pinned(), host.attached()
    done = host.daemon.detach()
    assert (done.returncode, "another vsfwd is running" in done.stderr) == (1, True)
    assert (host.pinned(), host.attached()) == (pinned, attached)
    assert enforces(host)
