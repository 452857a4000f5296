"""Every vsfwd of a lab or a test has the capabilities that its unit gives it: what needs more would fail
there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lone import LoneHost, lone_host
from vagrant.lab.rights import CAPABILITIES, with_rights

pytestmark = pytest.mark.slow

BY_ID = "import sys; from bcc import lib; sys.exit(lib.bpf_prog_get_fd_by_id(int(sys.argv[1])) >= 0)"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LoneHost]:
    with lone_host(tmp_path, flows_per_vnic=1024) as host:
        host.daemon.start()
        yield host


def test_vsfwd_works_without_the_right_to_open_anything_by_its_id(host: LoneHost) -> None:
    """It has the three capabilities of its unit, and CAP_SYS_ADMIN is none of them; the next one, with no
    more, takes over what is attached."""
    assert host.daemon.process is not None
    status = Path(f"/proc/{host.daemon.process.pid}/status").read_text()
    effective = int(status.partition("CapEff:\t")[2].split()[0], 16)
    assert effective.bit_count() == len(CAPABILITIES) == 3
    assert "CAP_SYS_ADMIN" not in CAPABILITIES
    attached = host.attached()
    by_id = [sys.executable, "-c", BY_ID, str(attached[0])]
    assert subprocess.run(by_id).returncode == 1, "root opens it"
    assert subprocess.run(with_rights(by_id)).returncode == 0, "vsfwd does not"
    host.daemon.kill()
    host.daemon.start()
    assert host.attached() == attached
