"""A daemon that cannot start says why in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_config import COMPLETE

pytestmark = pytest.mark.slow
WITHOUT_BPF = ["unshare", "--mount", "sh", "-c", 'while umount -q /sys/fs/bpf; do :; done; exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("state_dir", "said"),
    [
        ("state", "vsfwd: /sys/fs/bpf/vsfwd: no BPF file system; mount -t bpf bpf /sys/fs/bpf"),
        ("vsfwd.toml", "vsfwd.toml: File exists"),
    ],
    ids=["no BPF file system", "no state directory"],
)
def test_it_ends_with_a_line(tmp_path: Path, state_dir: str, said: str) -> None:
    """Status 1; it names the directory and what to do, without a traceback."""
    config = tmp_path / "vsfwd.toml"
    config.write_text(f'{COMPLETE}state_dir = "{tmp_path / state_dir}"\n')
    argv = [*WITHOUT_BPF, sys.executable, "-m", "vsfwd", "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert said in line
