"""The programs on a device: by tcx and, as on a kernel that has none, by clsact filters."""

import errno
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness.datapath import DEVICES, Host, Port, dropped, passed, private_host, until
from tests.harness.packets import IPV4, tcp, udp
from tests.harness.policies import vnic_id
from tests.harness.programs import CHAINS, detach, program_name, take_all_off
from vagrant.lab.layout import CACHE
from vsfwd.datapath import DatapathError, Settings, attach, bpf
from vsfwd.datapath.attach import Hooks, kernel_has_tcx
from vsfwd.datapath.build import compile_text
from vsfwd.datapath.loader import Programs

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
WAYS = ("tcx", "clsact") if kernel_has_tcx() else ("clsact",)
OURS = ["vnic_out", "vnic_in"]
only_tcx = pytest.mark.parametrize("way", [way for way in WAYS if way == "tcx"], indirect=True)


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kernel with tcx, and without."""
    with pytest.MonkeyPatch.context() as kernel:
        kernel.setattr(attach, "kernel_has_tcx", lambda: request.param == "tcx")
        yield request.param


@pytest.fixture(scope="module")
def shared_host(way: str) -> Iterator[tuple[Host, str]]:
    """A host of each kind, in place of the one for all tests."""
    with private_host("attach", Settings(flows_per_vnic=1024)) as host:
        yield host


@pytest.fixture
def foreign(host: Host) -> Iterator[int]:
    """Another tool's program, which lets the next one decide."""
    text = "#include <uapi/linux/bpf.h>\nint foreign(struct __sk_buff *skb) { return -1; }"
    with compile_text(text).loaded(bpf.ProgramType.TC) as programs:
        yield programs["foreign"]


def chained(device: str) -> list[int]:
    """Ids of what runs by tcx."""
    if not kernel_has_tcx():
        return []
    return [id for chain in CHAINS for id in bpf.attached_programs(socket.if_nametoindex(device), chain)]


def filtered(device: str) -> list[int]:
    """Ids of what runs by clsact."""
    shown = "".join(
        subprocess.run(
            ["tc", "filter", "show", "dev", device, side], check=True, capture_output=True, text=True
        ).stdout
        for side in ("ingress", "egress")
    )
    return [int(id) for id in re.findall(r"\bvsfwd_.* id (\d+)", shown)]


def names(ids: list[int]) -> list[str]:
    return [program_name(id) for id in ids]


def programs(device: str, way: str) -> list[int]:
    """Those of `way`, and there are none of the other."""
    by = {"tcx": chained(device), "clsact": filtered(device)}
    ids = by.pop(way)
    assert not any(by.values())
    return ids


def take_off(port: Port, way: str) -> None:
    """One of the two by tcx, the whole qdisc by clsact."""
    if way == "tcx":
        detach(port.ifindex, CHAINS[1], chained(port.device)[1])
    else:
        subprocess.run(["tc", "qdisc", "del", "dev", port.device, "clsact"], check=True)


@contextmanager
def all_dropped(here: Port) -> Iterator[None]:
    """A workload sends all the time: each of its frames is dropped by the rule, once."""
    frame = bytes(here.frame_out(udp(IPV4.here, IPV4.peer)))
    sent, over = 0, threading.Event()

    def send() -> None:
        nonlocal sent
        while not over.is_set():
            here.wire(*[frame] * 100)
            sent += 100

    workload = threading.Thread(target=send)
    workload.start()
    try:
        yield
    finally:
        over.set()
        workload.join()
    until(lambda: here.drops() == {"rule_drop": sent})


def test_both_programs_are_on_the_device(host: Host, way: str) -> None:
    """By the way that the status names."""
    here = host.port("here")
    assert names(programs(here.device, way)) == OURS
    status = host.datapath.status()
    assert (status["attached_by"], status["vnics_behind"]) == (way, 0)
    assert status["kernel_lacks"] == {"tcx": "nothing", "clsact": "tcx"}[way]


def test_a_takeover_replaces_them(host: Host, way: str) -> None:
    """One program a side before and after, and not the same."""
    here = host.port("here")
    before = programs(here.device, way)
    host.unpin()
    host.restart()
    after = programs(here.device, way)
    assert names(after) == OURS
    assert not set(before) & set(after)


def test_frames_never_pass_unseen_while_programs_are_replaced(host: Host, way: str) -> None:
    """Every frame that a workload sends through the wire meanwhile meets a program, and one only."""
    here = host.port("here")
    host.install(["drop"], vnics=VNICS)
    frames = [bytes(here.frame_out(udp(IPV4.here, IPV4.peer)))] * 20_000
    workload = threading.Thread(target=here.wire, args=frames)
    host.unpin()
    with Programs(host.pins, CACHE) as other, Hooks(host.pins) as hooks:
        workload.start()
        while workload.is_alive():
            for loaded in other, host.datapath._programs:
                hooks.attach(here.ifindex, loaded.twins)
    until(lambda: here.drops() == {"rule_drop": len(frames)})


@only_tcx
def test_a_takeover_from_before_the_kernel_had_tcx(
    host: Host, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new programs come before the old ones go: a workload that sends all the time meets one always."""
    monkeypatch.setattr(attach, "kernel_has_tcx", lambda: False)
    host.restart()
    here = host.port("here")
    host.install(["drop"], vnics=VNICS)
    assert names(programs(here.device, "clsact")) == OURS
    monkeypatch.undo()
    with all_dropped(here):
        host.restart()
    assert names(programs(here.device, way)) == OURS


@only_tcx
def test_o5_ours_are_the_first_of_several(host: Host, way: str, foreign: int) -> None:
    """Another tool's program that is there before stays, behind ours; one that comes in front is told by the
    status, until ours are attached again: then they are the first, and so with the next daemon."""
    here = Port(host, "here", 0)
    host.datapath.detach(here.id)
    for chain in CHAINS:
        bpf.attach_first(here.ifindex, chain, foreign)
    try:
        host.datapath.attach(here.id, here.ifindex, here.mac)
        assert names(chained(here.device)) == ["vnic_out", "foreign", "vnic_in", "foreign"]
        for first in ("vnic_out_again", "vnic_out"):
            take_foreign_off(here)
            bpf.attach_first(here.ifindex, CHAINS[0], foreign)
            assert host.datapath.status()["vnics_behind"] == 1
            assert host.datapath.bare() == {here.id}
            host.datapath.attach(here.id, here.ifindex, here.mac)
            assert names(chained(here.device)) == [first, "foreign", "vnic_in"]
            assert host.datapath.bare() == host.datapath.behind() == set()
        host.restart()
        assert names(chained(here.device))[1:] == ["foreign", "vnic_in"]
        assert host.datapath.status()["vnics_behind"] == 0
        host.datapath.detach(here.id)
        assert names(chained(here.device)) == ["foreign"]
    finally:
        take_foreign_off(here)


@only_tcx
def test_o4_programs_whose_pins_somebody_removed_stay_behind(host: Host, way: str) -> None:
    """A daemon that starts then does not know them for ours: its own come before them, and alone decide."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    before = programs(here.device, way)
    shutil.rmtree(host.datapath._programs.directory)
    host.restart()
    assert host.datapath.bare() == {here.id}
    host.datapath.attach(here.id, here.ifindex, here.mac)
    try:
        assert [chained(here.device)[at] for at in (1, 3)] == before
        assert host.datapath.bare() == set()
        host.install(["drop"], vnics=VNICS)
        here.wire(bytes(here.frame_out(udp(IPV4.here, IPV4.peer))))
        until(lambda: here.drops() == {"rule_drop": 1})
    finally:
        take_all_off(here.ifindex)


@only_tcx
def test_o5_a_program_that_passes_everything_does_not_stay_in_front(
    host: Host, way: str, foreign: int
) -> None:
    """It ends the chain, so that ours see nothing; and while they come to the front again no frame meets
    neither of both."""
    here = host.port("here")
    host.install(["drop"], vnics=VNICS)
    with all_dropped(here):
        for _ in range(50):
            # It lets the next one decide: all frames are ours.
            bpf.attach_first(here.ifindex, CHAINS[0], foreign)
            host.datapath.attach(here.id, here.ifindex, here.mac)
            assert host.datapath.bare() == set()
            take_foreign_off(here)


@only_tcx
@pytest.mark.parametrize("full", CHAINS)
def test_a_device_that_refuses_one_program_keeps_both_that_it_has(host: Host, way: str, full: int) -> None:
    """A chain without room, where another tool's program has come in front: the other direction is not left
    with the programs of another version."""
    here = host.port("here")
    before, instructions = programs(here.device, way), struct.pack("<BxxxiBxxxi", 0xB7, -1, 0x95, 0)
    host.unpin()
    with Programs(host.pins, CACHE) as later, Hooks(host.pins) as hooks:
        try:
            for _ in range(bpf.CHAIN_MAX - 2):  # the kernel refuses the last one, BPF_MPROG_MAX
                program = bpf.load_program(bpf.ProgramType.TC, "foreign", instructions, "GPL")
                with bpf.closing(program):
                    bpf.attach_first(here.ifindex, full, program)
            with pytest.raises(DatapathError):
                hooks.attach(here.ifindex, later.twins)
            assert hooks.programs(here.ifindex) == set(before)
        finally:
            take_foreign_off(here)
        hooks.attach(here.ifindex, later.twins)
        assert hooks.programs(here.ifindex).isdisjoint(before)
    host.restart()


def test_o5_a_filter_in_front_is_told(host: Host, way: str, foreign: int) -> None:
    """By clsact a later one of the first priority is asked before ours: somebody has to hear of it, as long
    as it is there. By tcx ours come before all filters."""
    here = host.port("here")
    pin = host.pins / "foreign"
    bpf.pin(foreign, pin)
    where = f"dev {here.device} ingress prio 1 protocol all handle 2 bpf"
    subprocess.run(["tc", "qdisc", "replace", "dev", here.device, "clsact"], check=True)
    subprocess.run(f"tc filter add {where} da object-pinned {pin}".split(), check=True)
    try:
        host.datapath.attach(here.id, here.ifindex, here.mac)
        assert host.datapath.behind() == ({here.id} if way == "clsact" else set())
    finally:
        pin.unlink()
        subprocess.run(f"tc filter del {where}".split(), check=True)
    assert host.datapath.behind() == set()


def take_foreign_off(port: Port) -> None:
    for chain in CHAINS:
        for id in bpf.attached_programs(port.ifindex, chain):
            if program_name(id) == "foreign":
                detach(port.ifindex, chain, id)


def test_whose_programs_are_gone_is_bare(host: Host, way: str) -> None:
    """And no other vNIC is, nor itself when it is attached again."""
    here = host.port("here")
    host.port("twin")
    assert host.datapath.bare() == set()
    take_off(here, way)
    assert host.datapath.bare() == {here.id}
    host.datapath.attach(here.id, here.ifindex, here.mac)
    assert host.datapath.bare() == set()
    assert names(programs(here.device, way)) == OURS


def test_whose_device_is_gone_is_not_bare(host: Host) -> None:
    """Nobody took its programs: no alarm, and nothing to attach."""
    subprocess.run(["ip", "link", "add", "leaving", "type", "veth"], check=True)
    host.datapath.attach(vnic_id("leaving"), socket.if_nametoindex("leaving"), "02:00:00:00:00:09")
    assert host.datapath.bare() == set()
    subprocess.run(["ip", "link", "delete", "leaving"], check=True)
    assert host.datapath.bare() == set()
    host.datapath.detach(vnic_id("leaving"))


def test_attach_is_idempotent(host: Host, way: str) -> None:
    """Announced again, a vNIC keeps slot, flows and policy; on another device too."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(IPV4.peer, IPV4.here)) == passed(1, new=True)
    assert host.datapath.attach(here.id, here.ifindex, here.mac) == here.slot
    assert here.receive(udp(IPV4.peer, IPV4.here)) == passed(1)
    moved = Port(host, "here", DEVICES - 1)
    assert moved.slot == here.slot
    assert moved.receive(udp(IPV4.peer, IPV4.here)) == passed(1)
    assert programs(here.device, way) == []
    assert host.datapath.slots == {here.id: here.slot}


def test_a_device_number_proves_nothing(host: Host, way: str) -> None:
    """A vNIC's device went while no daemon ran, and its number is another device's: that one is left
    alone."""
    here = host.port("here")
    with Hooks(host.pins) as hooks:
        hooks.detach(here.ifindex)
    host.restart()
    assert programs(here.device, way) == []
    assert host.datapath.slots == {here.id: here.slot}
    assert host.datapath.attach(here.id, here.ifindex, here.mac) == here.slot
    assert names(programs(here.device, way)) == OURS


def test_a_number_that_changes_hands(host: Host, way: str) -> None:
    """Another vNIC is announced on the number of one that is gone: it starts closed, and to withdraw the old
    one later does not touch it."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(IPV4.peer, IPV4.here)) == passed(1, new=True)
    twin = Port(host, "twin", 0)
    assert twin.ifindex == here.ifindex
    assert twin.receive(tcp(IPV4.peer, IPV4.here)) == dropped("closed")
    host.datapath.detach(here.id)
    assert names(programs(twin.device, way)) == OURS
    assert host.datapath.slots == {twin.id: twin.slot}


def test_detach_takes_the_programs_off(host: Host, way: str) -> None:
    """A vNIC that is withdrawn leaves nothing; to withdraw it twice, or after its device is gone, is fine."""
    here = host.port("here")
    host.datapath.detach(here.id)
    assert programs(here.device, way) == []
    host.datapath.detach(here.id)
    subprocess.run(["ip", "link", "add", "passing", "type", "veth", "peer", "passed"], check=True)
    gone = host.datapath.attach(here.id, socket.if_nametoindex("passing"), "02:00:00:00:00:77")
    subprocess.run(["ip", "link", "del", "passing"], check=True)
    host.datapath.detach(here.id)
    assert gone not in host.datapath.slots.values()


def test_what_the_kernel_refuses_changes_nothing(host: Host, way: str) -> None:
    """A device that is not there is an error with a sentence; no vNIC remains of it, and all others stay."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    status = host.datapath.status()
    with pytest.raises(DatapathError, match="attach the programs to device"):
        host.datapath.attach("00000000-0000-4000-8000-000000000009", 999999, "02:00:00:00:00:09")
    assert host.datapath.status()["vnics"] == status["vnics"]
    assert here.receive(udp(IPV4.peer, IPV4.here)) == passed(1, new=True)


@pytest.mark.parametrize(("code", "has"), [(errno.EINVAL, False), (errno.EPERM, None), (0, True)])
def test_the_kernel_says_whether_it_has_tcx(
    monkeypatch: pytest.MonkeyPatch, code: int, has: bool | None
) -> None:
    """EINVAL is how one before 6.6 answers; anything else it refuses is an error."""

    def answer(ifindex: int, attach_type: int) -> list[int]:
        if code:
            raise OSError(code, "refused")
        return []

    monkeypatch.setattr(bpf, "attached_programs", answer)
    if has is None:
        with pytest.raises(OSError, match="refused"):
            kernel_has_tcx()
    else:
        assert kernel_has_tcx() is has
