"""A container that systemd has booted: this machine's own root beneath, an overlay above, in which the
shipped units lie as a package would lay them, and this checkout's programs; or nothing of ours, where a test
installs it by hand.

with booted(directory, namespace) as machine:
    machine.systemctl("start", "vsfwd")

`boot` does the same with a root that the test brings. The network namespace is the test's, the BPF file
system its own; nothing of this machine changes. Its /run and /tmp are seen by `run` only, the rest of its
files also below `root`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vagrant.lab.waiting import wait_until

CHECKOUT: Final = Path(__file__).parents[2]
PROGRAMS: Final = {
    "vsfwd": "vsfwd",
    "vsfwctl": "vsfwd.ctl",
    "vsfw-control-plane-agent": "vsfwd.components.control_plane_agent",
    "vsfw-context-agent": "vsfwd.components.context_agent",
    "vsfw-manager": "manager_stub",
}
SOURCE: Final = Path("/usr/lib/vsfwd/source")
PACKAGES: Final = Path("/usr/lib/vsfwd/packages")
BOOT_S: Final = 60.0
_CGROUPS: Final = Path("/sys/fs/cgroup")
_NAME: Final = f"vsfwd-{os.getpid()}"


@dataclass(frozen=True)
class Machine:
    root: Path
    init: int
    """The pid of its systemd, seen from here."""

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command in it prints."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout + done.stderr

    def systemctl(self, *argv: str, check: bool = True) -> str:
        return self.run("systemctl", "--no-pager", *argv, check=check)

    def show(self, unit: str, property: str) -> str:
        return self.systemctl("show", unit, f"--property={property}", "--value").strip()

    def pid(self, unit: str) -> int:
        """Of its main process, seen from inside."""
        return int(self.show(unit, "MainPID"))

    def journal(self, unit: str = "vsfwd") -> str:
        return self.run("journalctl", "--no-pager", "-b", "-u", unit, "-o", "cat", check=False)


@contextmanager
def booted(directory: Path, namespace: str, by_hand: bool = False) -> Iterator[Machine]:
    with _root(directory) as root:
        _clear(root)
        if by_hand:
            _be_content_offline(root)
        else:
            _install(root)
        programs = [f"--bind-ro={CHECKOUT}:{SOURCE}", f"--bind-ro={_packages()}:{PACKAGES}"]
        with boot(directory, root, namespace, *programs) as machine:
            yield machine


@contextmanager
def boot(directory: Path, root: Path, namespace: str, *options: str) -> Iterator[Machine]:
    """Any root; what it has as its BPF file system is in `directory`."""
    with ExitStack() as stack:
        bpffs = stack.enter_context(_mounted(directory / "bpf", "-t", "bpf", "-o", "mode=700", "bpf"))
        (root / "etc/machine-id").write_text("")
        log = stack.enter_context((directory / "boot.log").open("wb"))
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={root}"]
        argv += [f"--machine={_NAME}", f"--network-namespace-path=/run/netns/{namespace}"]
        argv += ["--capability=all", "--system-call-filter=bpf perf_event_open"]
        argv += [f"--bind={bpffs}:/sys/fs/bpf", *options]
        argv += ["--resolv-conf=off", "--timezone=off", "--console=pipe", "--boot"]
        argv += ["systemd.unit=basic.target"]
        environment = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
        cgroups = stack.enter_context(_cgroups(_NAME))
        into = "".join(f"echo $$ > {each}/cgroup.procs; " for each in cgroups)
        process = subprocess.Popen(
            ["sh", "-c", f'{into}exec "$@"', "sh", *argv],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        stack.callback(_end, process, children)

        def has_booted() -> bool:
            assert process.poll() is None, (directory / "boot.log").read_text()
            inits = children.read_text().split()
            return bool(inits) and Machine(root, int(inits[0])).run(
                "systemctl", "is-system-running", check=False
            ).startswith(("running", "degraded"))

        wait_until(has_booted, "systemd has booted", BOOT_S)
        yield Machine(root, int(children.read_text().split()[0]))


def _end(process: "subprocess.Popen[bytes]", children: Path) -> None:
    """All that runs in it ends with its systemd, and so does systemd-nspawn; which alone would leave it."""
    if process.poll() is None:
        for init in children.read_text().split():
            os.kill(int(init), signal.SIGKILL)
    process.wait(timeout=20)


def _packages() -> Path:
    return Path(sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages")


@contextmanager
def _root(directory: Path) -> Iterator[Path]:
    """What is written there is in memory."""
    with (
        _mounted(directory / "lower", "--bind", "/") as lower,
        _mounted(directory / "memory", "-t", "tmpfs", "tmpfs") as memory,
    ):
        for name in ("upper", "work"):
            (memory / name).mkdir()
        options = f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work"
        with _mounted(directory / "root", "-t", "overlay", "overlay", "-o", options) as root:
            yield root


@contextmanager
def _mounted(target: Path, *how: str) -> Iterator[Path]:
    target.mkdir()
    subprocess.run(["mount", *how, str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@contextmanager
def _cgroups(name: str) -> Iterator[list[Path]]:
    """One in each hierarchy that systemd asks for: the one of cgroup v2, else that and its own of v1."""
    v2 = (_CGROUPS / "cgroup.controllers").exists()
    made = [
        hierarchy / name for hierarchy in ([_CGROUPS] if v2 else [_CGROUPS / "unified", _CGROUPS / "systemd"])
    ]
    for each in made:
        each.mkdir()
    try:
        yield made
    finally:
        wait_until(lambda: all(map(_removed, made)), "nothing is left of its cgroups", 20.0)


def _removed(cgroup: Path) -> bool:
    """Processes that were killed take a moment to go."""
    if not cgroup.exists():
        return True
    try:
        for path in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        cgroup.rmdir()
    except OSError:
        return False
    return True


def _install(root: Path) -> None:
    """As a package would."""
    units = root / "etc/systemd/system"
    for unit in (*CHECKOUT.glob("vsfwd/systemd/*.service"), *CHECKOUT.glob("manager_stub/systemd/*.service")):
        (units / unit.name).write_text(unit.read_text())
    for name, kind, where in (
        ("vsfwd", "sysusers", "vsfwd"),
        ("vsfwd", "tmpfiles", "vsfwd"),
        ("vsfwd-manager", "sysusers", "manager_stub"),
    ):
        text = (CHECKOUT / where / "systemd" / f"{kind}.conf").read_text()
        (root / f"usr/lib/{kind}.d" / f"{name}.conf").write_text(text)
    for name, module in PROGRAMS.items():
        program = root / "usr/bin" / name
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={SOURCE}:{PACKAGES} exec /usr/bin/python3 -m {module} "$@"\n'
        )
        program.chmod(0o755)
    (root / "etc/vsfwd").mkdir(exist_ok=True)


def _clear(root: Path) -> None:
    """What somebody may have installed on this machine."""
    for name in PROGRAMS:
        (root / "usr/bin" / name).unlink(missing_ok=True)


def _be_content_offline(root: Path) -> None:
    """There is no network: a venv with the system's packages has this checkout's, too; Debian's are here."""
    dist = root / f"usr/local/lib/python3.{sys.version_info.minor}/dist-packages"
    dist.mkdir(parents=True, exist_ok=True)
    (dist / "packages.pth").write_text(f"{PACKAGES}\n")
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nno-build-isolation = false\n")
    (root / "etc/apt/apt.conf.d/no-upgrade").write_text('APT::Get::Upgrade "false";\n')
    (root / "etc/gitconfig").write_text("[safe]\n\tdirectory = *\n")
