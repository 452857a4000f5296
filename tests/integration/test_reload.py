"""A configuration that is changed while vsfwd runs: `vsfwctl reload`, and SIGHUP."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lone import LoneHost, lone_host
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LoneHost]:
    with lone_host(tmp_path) as host:
        host.daemon.start()
        yield host


def test_what_is_changed_is_in_force_or_named(host: LoneHost) -> None:
    """Limits at once, sizes after a restart; a mistake changes nothing and is refused with its line. SIGHUP
    does the same, and says so in the log."""
    directory = host.daemon.directory
    config, socket = directory / "vsfwd.toml", str(directory / "vsfwd.sock")
    before = config.read_text()

    def reload(text: str) -> tuple[int, str]:
        config.write_text(text)
        argv = [sys.executable, "-m", "vsfwd.ctl", "--socket", socket, "reload"]
        done = subprocess.run(argv, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert reload(before) == (0, "taken: nothing has changed that is taken by reload\n")
    said = "taken: log_rate, statistics_period_s\nneeds a restart: flows_per_vnic\n"
    assert reload(f"{before}log_rate = 7\nstatistics_period_s = 5\nflows_per_vnic = 64\n") == (0, said)
    wrong = f"{before}log_rate = 9\nlog_bust = 1\n"
    line = wrong.count("\n")
    said = f"vsfwctl: {config}:{line}: log_bust: there is no such key; did you mean log_burst?\n"
    assert reload(wrong) == (1, said)
    config.write_text(f"{before}statistics_period_s = 5\n")
    assert host.daemon.process is not None
    host.daemon.process.send_signal(signal.SIGHUP)
    taken = "event=\"the configuration is reloaded\" taken=['log_rate'] needs_a_restart=[]"
    wait_until(lambda: taken in host.daemon.log.read_text(), "SIGHUP is taken")
