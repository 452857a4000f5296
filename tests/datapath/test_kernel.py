"""What the kernel that the tests run on does with the programs (O40). It goes to the JUnit file, and
from there, by `./run vm`, into the table of kernels in README.md."""

import errno
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.datapath import Host, inside, private_host
from tests.harness.wired import kernel_has_ipv4_big_tcp
from vagrant.lab.layout import CACHE
from vsfwd.datapath import Datapath, DatapathError, Settings, attach, bpf, compiled
from vsfwd.datapath.kernel import WITHOUT, too_old
from vsfwd.datapath.portguard import PortGuard

Note = Callable[[str, object], None]
GUARDED = Settings(flows_per_vnic=1024, guard_ports=("port*",))


@pytest.fixture(scope="module")
def note(record_testsuite_property: Note) -> Note:
    record_testsuite_property("kernel", os.uname().release)
    record_testsuite_property("userland", platform.freedesktop_os_release()["PRETTY_NAME"])
    return record_testsuite_property


@pytest.fixture(scope="module")
def guarded(note: Note) -> Iterator[tuple[Host, str]]:
    """A host whose ports are guarded."""
    try:
        with private_host("kernel", GUARDED) as host:
            yield host
    except DatapathError as error:
        note("programs", f"refused: {error}")
        raise


def test_the_verifier_takes_every_program(guarded: tuple[Host, str], note: Note) -> None:
    """How many instructions it looks at for that depends on what it knows."""
    host, _ = guarded
    found = [bpf.program_info(program) for program in host.datapath._programs._programs.values()]
    longest = max(found, key=lambda program: program.verified)
    verified = sum(program.verified for program in found)
    note("programs", f"{len(found)}; {verified:,} instructions verified, {longest.name} {longest.verified:,}")
    assert all(0 < program.verified <= 1_000_000 for program in found)


def test_what_the_kernel_lacks_is_said(guarded: tuple[Host, str], note: Note) -> None:
    """By name in the status, with its consequence for the log; the way without it is taken."""
    host, _ = guarded
    status = host.datapath.status()
    note("hooks", status["attached_by"])
    note("lacks", status["kernel_lacks"])
    assert host.datapath.lacks == ({} if attach.kernel_has_tcx() else {"tcx": WITHOUT["tcx"]})
    assert status["attached_by"] == ("clsact" if "tcx" in host.datapath.lacks else "tcx")


def test_guarded_ports_are_closed(guarded: tuple[Host, str], note: Note) -> None:
    """By a table of nftables for bridges."""
    host, _ = guarded
    said = host.datapath.port_guard.status()
    note("port guard", said.split(",")[0])
    assert said.startswith("on")


def test_an_early_drop_is_native_on_a_veth(guarded: tuple[Host, str], note: Note) -> None:
    """Its driver has XDP."""
    host, namespace = guarded
    with inside(namespace):
        host.datapath.early.attach("port3", [], 1000, 1000)
        (drop,) = host.datapath.early.all()
        host.datapath.early.detach("port3")
    note("early drops", drop.mode)
    assert drop.mode == "native"


def test_large_segments(note: Note) -> None:
    """BIG TCP: a workload may send them where its kernel makes them."""
    note("BIG TCP", "IPv6, IPv4" if kernel_has_ipv4_big_tcp() else "IPv6")


def test_a_kernel_that_refuses_a_program_is_named_and_ports_stay_guarded(
    guarded: tuple[Host, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says which program, and what is too old; of what there was, nothing is changed."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument; unknown func bpf_loop#181")

    host, namespace = guarded
    monkeypatch.setattr(bpf, "load_program", refuse)
    monkeypatch.setattr(compiled, "too_old", lambda _: too_old("5.10.0-32-cloud-amd64"))
    pins = host.pins / "older"
    with inside(namespace):
        guard = PortGuard(["port*"])
        guard.install(0, [])
        with pytest.raises(DatapathError, match=r"load program .*bpf_loop.*Linux 5.10.* is older than 6.1"):
            Datapath.open(pins, GUARDED, CACHE)
        assert not guard.restore(), "the table is not what it was"
        assert guard.stamp_in_force() == 0
    assert not list(pins.glob("*/programs-*"))
