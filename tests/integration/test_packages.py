"""The Debian packages under a systemd that has booted, in a root that has nothing else but what they depend
on: built, installed without a network, started, upgraded and back under traffic, removed, purged. The tests
follow each other, as an operator's years do."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.harness.booted import Machine, boot
from tests.harness.documents import commands, links
from tests.harness.lone import CHECKOUT, LoneHost, lone_host
from tests.harness.prober import DROP
from tests.harness.root import files, make_root
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until
from vagrant.packages.stage import FOLDERS, MORE_PAGES
from vsfwd.datapath import attach
from vsfwd.datapath.early import Early
from vsfwd.datapath.loader import Programs

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]

PACKAGES: Final = ("vsfwctl", "vsfwd", "vsfwd-manager")
UNITS: Final = ("vsfwd", "vsfwd-context-agent", "vsfwd-control-plane-agent", "vsfwd-manager")
PROGRAMS: Final = {
    "vsfwctl": 1,
    "vsfwd": 8,
    "vsfw-manager": 8,
    "vsfw-context-agent": 8,
    "vsfw-control-plane-agent": 8,
}
COMPLETIONS: Final = (
    "bash-completion/completions/{}",
    "fish/vendor_completions.d/{}.fish",
    "zsh/vendor-completions/_{}",
)
ENROLLED: Final = ("host_id", "manager_key", "broker_urls", "ca", "certificate", "key")
"""What enrolment writes."""
OF_AN_OPERATOR: Final = '# of an operator\nlog_rate = 7\nguard_ports = ["veth-*"]\n'
MANAGER: Final = (
    'listen = "127.0.0.1:8443"\nbrokers = ["127.0.0.1:1"]\nbroker_apis = ["https://127.0.0.1:1"]\n'
)
TAKE_OVER_S: Final = 60.0
IN_FORCE: Final = "generation 1 in force, vNICs attached: 1"


@dataclass(frozen=True)
class Site:
    machine: Machine
    host: LoneHost
    bpffs: Path
    before: set[str] = field(repr=False)
    """What there was without the packages."""

    @property
    def root(self) -> Path:
        return self.machine.root


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    """As `./run package` makes them; lintian finds nothing in them."""
    build, _ = commands("vagrant/packages/README.md", "Debian packages")
    subprocess.run(["bash", "-euc", build], cwd=CHECKOUT, check=True)
    return sorted((CHECKOUT / "build" / "packages").glob("*.deb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host with a VM and a neighbour; nothing is installed."""
    directory = tmp_path_factory.mktemp("packages")
    root = make_root(directory / "root")
    with ExitStack() as stack:
        host = stack.enter_context(lone_host(directory))
        machine = stack.enter_context(boot(directory, root, host.namespace))
        yield Site(machine, host, directory / "bpf", files(root))


@pytest.fixture(scope="module")
def installed(site: Site, packages: list[Path]) -> Site:
    """By the shown commands, one after the other."""
    _, install = commands("vagrant/packages/README.md", "Debian packages")
    with_them(site, packages, install)
    return site


def with_them(site: Site, debs: list[Path], said: str) -> None:
    """A script in a directory that has these packages."""
    directory = site.root / "var/tmp/packages"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for each in debs:
        shutil.copy(each, directory)
    site.machine.run("sh", "-euc", f"cd /var/tmp/packages\n{said}")


def test_they_install_with_programs_manuals_and_completions(installed: Site) -> None:
    """Each program says its version by Debian's Python alone; it has a manual page, and shells a completion.
    Both users are there, and every page; its links lead to files that are there, too."""
    share = installed.root / "usr/share"
    for program, section in PROGRAMS.items():
        assert installed.machine.run(program, "--version").strip().endswith("0.1.0")
        assert (share / f"man/man{section}/{program}.{section}.gz").stat().st_size > 300
        assert all(program in (share / place.format(program)).read_text() for place in COMPLETIONS)
    pages = {
        str(page.relative_to(CHECKOUT)) for folder in FOLDERS for page in (CHECKOUT / folder).rglob("*.md")
    }
    pages |= set(MORE_PAGES)
    assert {
        str(page.relative_to(share / "doc/vsfwd")) for page in (share / "doc/vsfwd").rglob("*.md")
    } == pages
    for page in (share / "doc/vsfwd").rglob("*.md"):
        for to in links(page.read_text()):
            there = installed.root / to[1:] if to.startswith("/") else page.parent / to
            assert there.exists(), (page, to)
    users = installed.machine.run("cut", "-d:", "-f1", "/etc/passwd").split()
    assert {"vsfwd", "vsfw-manager"} <= set(users)


def test_no_program_lends_its_owners_rights(installed: Site) -> None:
    """Neither set-user-ID nor set-group-ID, nor writable for anybody but root."""
    listed = installed.machine.run("dpkg", "--listfiles", *PACKAGES).split("\n")
    paths = [installed.root / each[1:] for each in listed if each.startswith("/usr/")]
    assert len(paths) > 1000
    assert not [path for path in paths if path.lstat().st_mode & 0o6000]
    assert not [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o022]


def test_a_host_that_is_not_enrolled_is_told_so(installed: Site) -> None:
    """By the configuration that the package has made, in which every setting is explained; no unit is enabled
    or started. All but the place of its key and certificate is root's."""
    said = installed.machine.run("vsfwd", "--check-config", check=False)
    assert "/etc/vsfwd/vsfwd.toml: host_id: is missing" in said
    assert "vsfwctl enroll" in said
    own = installed.machine.run("find", "/etc/vsfwd", "!", "-user", "root").split()
    assert own == ["/etc/vsfwd/host"]
    assert "#log_rate = 100" in (installed.root / "etc/vsfwd/vsfwd.toml").read_text()
    assert "listen: is missing" in installed.machine.run(
        "vsfw-manager", "serve", "--check-config", check=False
    )
    assert states(installed.machine, "is-enabled") == {"disabled"}
    assert states(installed.machine, "is-active") == {"inactive"}


def states(machine: Machine, question: str) -> set[str]:
    return set(machine.systemctl(question, *UNITS, check=False).split())


def test_what_is_enabled_runs_and_enforces(installed: Site) -> None:
    """The policy is in the kernel when systemd says that `vsfwd` has started; nothing gets through that must
    not."""
    configure(installed)
    machine = installed.machine
    machine.systemctl("enable", "--now", *UNITS)
    assert states(machine, "is-active") == {"active"}
    assert machine.show("vsfwd", "StatusText").startswith(IN_FORCE)
    with installed.host.probed() as probers:
        for prober in probers:
            prober.flowing(20)
    assert [prober.violations() for prober in probers] == [[], []]
    assert "attached" in machine.run("vsfwctl", "status")


def configure(site: Site) -> None:
    """What enrolment writes, an operator's own, the policy that came once, and a manager."""
    settings = site.host.daemon.settings
    enrolled = "".join(f"{name} = {settings[name]!r}\n" for name in ENROLLED)
    (site.root / "etc/vsfwd/vsfwd.toml").write_text(enrolled + OF_AN_OPERATOR)
    shutil.copytree(site.host.daemon.directory / "state", site.root / "var/lib/vsfwd")
    site.machine.run("chown", "-R", "vsfwd:vsfwd", "/var/lib/vsfwd")
    (site.root / "etc/vsfwd/manager.toml").write_text(MANAGER)
    site.machine.run("vsfw-manager", "init")


def test_an_upgrade_and_the_way_back_lose_no_packet(
    installed: Site, packages: list[Path], tmp_path: Path
) -> None:
    """O3. To programs with other structs, by installing the package, and back by installing the one before.
    What an operator wrote stays, without a question, and what was enabled runs."""
    machine = installed.machine
    config = (installed.root / "etc/vsfwd/vsfwd.toml").read_text()
    upgraded = [later(each, tmp_path) for each in packages]
    with installed.host.probed() as probers:
        for version, debs in (("0.1.1", upgraded), ("0.1.0", packages)):
            for prober in probers:
                prober.note(version)
            change(installed, version, debs)
            for prober in probers:
                prober.flowing(20)
    assert [prober.violations() for prober in probers] == [[], []]
    assert (installed.root / "etc/vsfwd/vsfwd.toml").read_text() == config
    assert states(machine, "is-active") == {"active"}
    assert states(machine, "is-enabled") == {"enabled"}


def change(site: Site, version: str, debs: list[Path]) -> None:
    """Whatever the new daemon takes over is its own when this returns."""
    programs, pid = site.host.attached(), site.machine.pid("vsfwd")
    (upgrade,) = commands("vagrant/packages/README.md", "Another version")
    with_them(site, debs, upgrade)
    shown = site.machine.run("dpkg-query", "--show", "--showformat", "${Version}\n", *PACKAGES)
    assert shown.split() == [version] * len(PACKAGES)
    assert site.machine.pid("vsfwd") != pid
    wait_until(
        lambda: not set(site.host.attached()) & set(programs), "its programs are on the device", TAKE_OVER_S
    )
    assert site.machine.show("vsfwd", "StatusText").startswith(IN_FORCE)


def later(package: Path, directory: Path) -> Path:
    """Another version, with other programs."""
    tree = directory / package.stem
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("0.1.0", "0.1.1"))
    for types in tree.glob("usr/lib/vsfwd/bpf/types.h"):
        types.write_text(types.read_text() + "/* another version */\n")
    made = directory / package.name.replace("0.1.0", "0.1.1")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, made], check=True, capture_output=True)
    return made


def test_removed_they_leave_the_kernel_enforcing_and_what_is_the_operators(installed: Site) -> None:
    """As after every stop: no packet passes that must not, none is lost. Configuration and policy are there
    for the next installation; no program is."""
    with installed.host.probed() as probers:
        said = installed.machine.run("dpkg", "--remove", *PACKAGES)
        for prober in probers:
            prober.flowing(20)
    assert [prober.violations() for prober in probers] == [[], []]
    assert "the kernel goes on enforcing" in said
    assert OF_AN_OPERATOR in (installed.root / "etc/vsfwd/vsfwd.toml").read_text()
    assert (installed.root / "var/lib/vsfwd/policy.json").exists()
    assert not (installed.root / "usr/lib/vsfwd").exists()


def test_purged_they_leave_nothing(installed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """O44. No program on a device, by whichever way it came there, so the VM is open; no alias, port guard or
    pin; no file, no directory, no user or group."""
    attach_more(installed, monkeypatch)
    assert len(traces(installed.machine)) == 5
    assert installed.host.attached()
    installed.machine.run("dpkg", "--purge", *PACKAGES)
    assert traces(installed.machine) == set()
    assert not installed.host.attached()
    with installed.host.probed() as probers:
        for prober in probers:
            prober.flowing(20)
    assert all(tally.arrived for prober in probers for tally in prober.tallies if tally.kind == DROP)
    assert not (installed.bpffs / "vsfwd").exists()
    assert files(installed.root) - installed.before == set()


def attach_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel without tcx has it, and an early drop."""
    monkeypatch.setattr(attach, "kernel_has_tcx", lambda: False)
    pins = site.bpffs / "vsfwd"
    with inside(site.host.namespace), Programs(pins) as programs, attach.Hooks(pins) as hooks:
        hooks.attach(socket.if_nametoindex("bridge"), programs.twins)
        early = Early(programs)
        early.attach("neighbour", (), rate=1000, burst=1000)
        early.close()


def traces(machine: Machine) -> set[str]:
    """What shows that vsfwd was here."""
    shown = machine.run("ip", "-details", "link") + machine.run("nft", "list", "tables")
    shown += "".join(
        machine.run("tc", "filter", "show", "dev", "bridge", end) for end in ("ingress", "egress")
    )
    return set(re.findall(r"alias vsfwd:|name early_|table bridge vsfwd|vsfwd_in|vsfwd_out", shown))
