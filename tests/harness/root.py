"""A Debian root that has nothing but what our packages name as dependencies, made by mmdebstrap from Debian's
mirror once and kept in build/."""

import subprocess
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]
DEPENDENCIES: Final = (
    *("python3", "python3-bpfcc", "python3-icu", "python3-nftables", "linux-libc-dev", "nftables"),
    *("iproute2", "systemd", "libgcc-s1", "libstdc++6", "zlib1g"),
)
_KEPT: Final = CHECKOUT / "build" / "root" / f"{'-'.join(DEPENDENCIES)}.tar"
_RECORDS: Final = (
    *("var/lib/dpkg", "var/lib/apt", "var/cache/apt", "var/cache/ldconfig"),
    *("var/lib/systemd", "var/log"),
)
_CHANGES: Final = (*_RECORDS, "proc", "sys", "dev", "run", "tmp", "var/tmp")
"""Records of dpkg, apt and systemd, logs, and what the kernel has."""


def make_root(path: Path) -> Path:
    if not _KEPT.exists():
        _KEPT.parent.mkdir(parents=True, exist_ok=True)
        fresh = _KEPT.with_suffix(".new.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(DEPENDENCIES)}"]
        subprocess.run([*argv, "bookworm", str(fresh)], check=True)
        fresh.replace(_KEPT)
    path.mkdir()
    subprocess.run(["tar", "--extract", f"--file={_KEPT}", f"--directory={path}"], check=True)
    answers = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
    (path / "etc/apt/apt.conf.d/answers").write_text(answers)
    return path


def files(root: Path) -> set[str]:
    """That packages and programs have made, and the users."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    users = (root / "etc/passwd").read_text() + (root / "etc/group").read_text()
    return {each for each in found if not each.startswith(_CHANGES)} | set(users.splitlines())
