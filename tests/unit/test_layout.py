"""vsfwd/systemd/layout.sh where /etc/vsfwd was vsfwd's own, and somebody has prepared it for root."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.harness.lone import CHECKOUT

pytestmark = pytest.mark.slow

USER: Final = 990
NAMED: Final = 'key = "/etc/vsfwd/{0}"\ncertificate = "/etc/vsfwd/{0}"\n'
LAY_OUT: Final = """
for place in /run /sys/fs/bpf; do mount -t tmpfs none $place; done
mount --bind "$1" /etc
exec vsfwd/systemd/layout.sh
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """What stands in for /etc, as the version before has left it."""
    own = tmp_path / "etc" / "vsfwd"
    own.mkdir(parents=True)
    etc = own.parent
    (etc / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nvsfwd:x:{USER}:{USER}::/:/bin/sh\n")
    (etc / "group").write_text(f"root:x:0:\nvsfwd:x:{USER}:\n")
    (etc / "tmpfiles.d").mkdir()
    (etc / "tmpfiles.d/vsfwd.conf").write_text((CHECKOUT / "vsfwd/systemd/tmpfiles.conf").read_text())
    (own / "vsfwd.toml").write_text(NAMED.format("host.pem"))
    for name in ("host.pem", "renewing.key", "ca.pem"):
        (own / name).write_text(name)
    for path in own.iterdir():
        path.chmod(0o600)
    return etc


def lay_out(etc: Path) -> None:
    for path in (etc / "vsfwd", *(etc / "vsfwd").iterdir()):
        os.chown(path, USER, USER, follow_symlinks=False)
    command = ["unshare", "--mount", "sh", "-euc", LAY_OUT, "sh", str(etc)]
    subprocess.run(command, cwd=CHECKOUT, check=True)


MOVED: Final = {
    ".": (0, 0o755),
    "ca.pem": (0, 0o640),
    "vsfwd.toml": (0, 0o640),
    "host": (USER, 0o700),
    "host/host.pem": (USER, 0o600),
    "host/renewing.key": (USER, 0o600),
}


def found(etc: Path) -> dict[str, tuple[int, int]]:
    """Whose each is, and its mode."""
    own = etc / "vsfwd"
    stats = {str(path.relative_to(own)): path.lstat() for path in (own, *own.rglob("*"))}
    return {name: (stat.st_uid, stat.st_mode & 0o7777) for name, stat in stats.items()}


def half_moved(own: Path) -> None:
    (own / "host").mkdir()
    for name in ("host.pem", "renewing.key"):
        (own / "host" / name).hardlink_to(own / name)
    (own / "vsfwd.toml").write_text(NAMED.format("host/host.pem"))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda own: None,
        half_moved,
        lambda own: (own / "host").symlink_to("../elsewhere"),
        lambda own: (own / "tiers").symlink_to("../elsewhere/of-root"),
        lambda own: [(own / name).chmod(0o662) for name in ("ca.pem", "vsfwd.toml")],
    ],
    ids=["as it was", "interrupted", "a link for host", "a link for a file of root's", "anybody writes"],
)
def test_of_etc_vsfwd_only_host_stays_of_vsfwd(etc: Path, prepare: Callable[[Path], object]) -> None:
    """And nothing is changed elsewhere."""
    (etc / "elsewhere").mkdir()
    prepare(etc / "vsfwd")
    lay_out(etc)
    assert found(etc) == MOVED
    assert (etc / "vsfwd/vsfwd.toml").read_text() == NAMED.format("host/host.pem")
    assert (etc / "vsfwd/host/host.pem").read_text() == "host.pem"
    assert list((etc / "elsewhere").iterdir()) == []
