"""A daemon with other structs leaves maps under another name: they go, but not before what they serve."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.harness.datapath import Host, dropped, passed, until
from tests.harness.packets import Net, udp
from tests.harness.policies import vnic_id
from vagrant.lab.layout import CACHE
from vsfwd.datapath import Datapath, DatapathError, Hold, early, loader, takeover
from vsfwd.datapath.attach import Twins
from vsfwd.datapath.flowcopy import FlowCopy
from vsfwd.datapath.inner import INNER
from vsfwd.datapath.leave import leave
from vsfwd.datapath.schema import schema as of_now

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}
OLDER = "0123456789abcdef"
NAME = bytes(range(32))


class Killed(BaseException):
    pass


@pytest.fixture
def older(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two vNICs served by an older daemon, which is gone; the new one has only started."""
    newer = host.datapath
    monkeypatch.setattr(loader, "schema", lambda: OLDER)
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    monkeypatch.setattr(loader, "schema", of_now)
    for name in VNICS:
        host.port(name)
    host.install(["allow"], vnics=VNICS)
    host.datapath.remember(NAME)
    host.datapath.close()
    host.datapath, host._next = newer, 0
    yield host.pins / OLDER
    host.unplug()
    until(lambda: host.datapath.remove_older_pins() is not None and not (host.pins / OLDER).exists())


def test_pins_stay_while_a_device_bears_older_programs(host: Host, older: Path, net: Net) -> None:
    """Both vNICs have to be the new daemon's; until then they stay, and what is attached goes on."""
    assert host.datapath.remove_older_pins() == []
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert host.datapath.remove_older_pins() == []
    assert (older / "stages").exists()
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    host.port("twin")
    until(lambda: host.datapath.remove_older_pins() == [OLDER])
    assert not older.exists()
    assert here.send(udp(net.here, net.peer)) == passed(1)


def test_o7_which_policy_was_in_force_is_known_to_a_daemon_with_other_structs(
    host: Host, older: Path
) -> None:
    """Its tables are not made of that; but they are to be made of nothing older."""
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    assert (host.datapath.in_force(), host.datapath.last_in_force()) == (b"", NAME)


def test_flows_that_an_older_version_has_not_pinned_begin_anew(host: Host, older: Path, net: Net) -> None:
    """Of one that found maps by their ids: its vNICs are known, in their slots, and bear its programs until
    the policy is in force; all of it but the flows is taken over."""
    shutil.rmtree(older / INNER)
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    host.datapath.remove_older_pins()
    assert older.exists()
    slot = host.datapath.slots[vnic_id("here")]
    assert host.datapath.flows(slot) == []
    host.install(["allow"], vnics=VNICS)
    host.datapath.remove_older_pins()
    assert not older.exists()
    here = host.port("here")
    assert here.slot == slot
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)


def test_a_takeover_goes_on_after_a_kill(
    host: Host, older: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vNIC had the new programs by then: it goes on under the policy that is in force there, with its
    flows. The other bears the older ones until the policy is in force again."""
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    attach, twin = host.datapath._hooks.attach, host.datapath.devices[vnic_id("twin")]

    def killed_over(ifindex: int, twins: Twins) -> None:
        if ifindex == twin:
            raise Killed
        attach(ifindex, twins)

    monkeypatch.setattr(host.datapath._hooks, "attach", killed_over)
    with pytest.raises(Killed):
        host.install(["allow"], vnics=VNICS)
    here = host.port("here")
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    host.restart()
    assert set(host.datapath.modes().values()) == {"enforced"}
    assert older.exists()
    assert here.send(udp(net.here, net.peer)) == passed(1)
    host.install(["allow"], vnics=VNICS)
    until(lambda: host.datapath.remove_older_pins() == [OLDER])
    assert here.send(udp(net.here, net.peer)) == passed(1)


def test_a_device_that_does_not_take_the_new_programs_is_late(
    host: Host, older: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with those that it has, and no other vNIC waits for it, nor does the policy."""
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    attach, here = host.datapath._hooks.attach, host.datapath.devices[vnic_id("here")]

    def refused(ifindex: int, twins: Twins) -> None:
        if ifindex == here:
            raise DatapathError("there is no room for them")
        attach(ifindex, twins)

    monkeypatch.setattr(host.datapath._hooks, "attach", refused)
    host.install(["drop", "allow"], vnics=VNICS)
    assert host.datapath.late() == {vnic_id("here")}
    assert host.datapath.remove_older_pins() == []
    with pytest.raises(DatapathError, match="no room"):
        host.port("here")
    twin = host.port("twin")
    assert twin.send(udp(net.here, net.peer)) == dropped("rule_drop", 1)
    monkeypatch.undo()
    host._next = 0
    assert host.port("here").send(udp(net.here, net.peer)) == dropped("rule_drop", 1)
    assert host.datapath.late() == set()
    until(lambda: host.datapath.remove_older_pins() == [OLDER])


def test_a_guarded_port_that_is_late_is_closed_while_another_program_is_first(
    host: Host, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that is full takes none before that, and it may let pass what ours would not."""
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    hooks, guard, here = (
        host.datapath._hooks,
        host.datapath.port_guard,
        host.datapath.devices[vnic_id("here")],
    )
    said: list[tuple[str, int]] = []
    for change in "protect", "release":
        monkeypatch.setattr(guard, change, lambda ifindex, change=change: said.append((change, ifindex)))

    def full(*_: object) -> None:
        raise DatapathError("there is no room for them")

    with monkeypatch.context() as patch:
        patch.setattr(hooks, "attach", full)
        patch.setattr(hooks, "bare", set)
        host.install(["allow"], vnics=VNICS)
        with pytest.raises(DatapathError, match="no room"):
            host.port("here")
    host._next = 0
    host.port("here")
    assert said == [("release", here), ("protect", here)]


@pytest.mark.parametrize("late", [False, True], ids=["waits", "late"])
def test_a_vnic_that_bears_older_programs_is_held(
    host: Host, older: Path, net: Net, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its device, as its VM changes host: frozen, let go, and brought to life by its VM."""
    host.datapath.close()
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    here = host.port("here")

    def full(*_: object) -> None:
        raise DatapathError("there is no room for them")

    if late:
        with monkeypatch.context() as patch:
            patch.setattr(host.datapath._hooks, "attach", full)
            host.install(["allow"], vnics=VNICS)
    packet = bytes(here.frame_out(udp(net.here, net.peer)))
    about_itself = ARP(op=3, hwsrc=here.mac, hwdst=here.mac, psrc="0.0.0.0", pdst="0.0.0.0")
    announcement = bytes(Ether(src=here.mac, dst="ff:ff:ff:ff:ff:ff", type=0x8035) / about_itself)
    here.wire(packet)
    until(lambda: host.datapath.rule_counters()[1].packets == 1)
    host.datapath.hold(here.id, Hold.FROZEN)
    here.wire(packet, packet, announcement)
    until(lambda: here.drops() == {"frozen": 3})
    host.datapath.hold(here.id, Hold.NONE)
    here.wire(packet)
    until(lambda: host.datapath.rule_counters()[1].packets == 2)
    host.datapath.hold(here.id, Hold.DEAD)
    here.wire(packet)
    until(lambda: here.drops() == {"frozen": 3, "dead": 1})
    here.wire(announcement)
    until(lambda: host.datapath.holds() == {})
    host.datapath.hold(here.id, Hold.DEAD)
    here.wire(announcement, packet)
    until(lambda: host.datapath.rule_counters()[1].packets == 3)
    host.install(["allow"], vnics=VNICS)
    if late:
        host.datapath.attach(here.id, here.ifindex, here.mac)
    assert here.send(udp(net.here, net.peer)).verdict == "pass"
    assert here.drops() == {"frozen": 3, "dead": 1}


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "no memory"), MemoryError("no memory")], ids=repr)
def test_a_vnic_whose_flows_cannot_be_copied_is_late(
    host: Host, older: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose device does not take the new programs: no other waits for it, nor does the policy."""
    host.datapath.close()
    monkeypatch.setattr(takeover, "same", lambda *_: False)
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)

    def no_memory(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(host.datapath._flows, "put", no_memory)
        host.install(["allow"], vnics=VNICS)
        assert host.datapath.late() == {vnic_id(name) for name in VNICS}
        with pytest.raises(DatapathError, match="no memory"):
            host.port("here")
    host._next = 0
    for name in VNICS:
        host.port(name)
    assert host.datapath.late() == set()


def test_a_vnic_whose_flows_cannot_be_copied_again_has_the_new_programs(
    host: Host, older: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moved in the moment of the change is as it was before: it is not late, and nothing stays open."""
    host.datapath.close()
    monkeypatch.setattr(takeover, "same", lambda *_: False)
    host.datapath = Datapath.open(host.pins, host.settings, CACHE)
    close, closed = FlowCopy.close, list[FlowCopy]()

    def closes(copy: FlowCopy) -> None:
        closed.append(copy)
        close(copy)

    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(FlowCopy, "close", closes)
        patch.setattr(host.datapath._flows, "mapped", no_memory)
        host.install(["drop", "allow"], vnics=VNICS)
    assert (len(closed), host.datapath.late()) == (len(VNICS), set())
    host.datapath.remove_older_pins()
    assert not older.exists()
    assert host.port("here").send(udp(net.here, net.peer)) == dropped("rule_drop", 1)


def test_what_is_no_schema_stays(host: Host) -> None:
    """Whatever else lies there is somebody else's; and the daemon's own pins are no older ones."""
    other = host.pins / "somebody-elses"
    other.mkdir()
    empty = host.pins / OLDER
    empty.mkdir()
    try:
        assert host.datapath.remove_older_pins() == [OLDER]
        assert [path.exists() for path in (other, host.pins / of_now(), empty)] == [True, True, False]
    finally:
        other.rmdir()


def test_pins_that_cannot_be_read_are_an_error(host: Host) -> None:
    """Nothing is removed, and the daemon goes on."""
    no_program = host.pins / OLDER / "programs-x" / "vnic_in"
    no_program.mkdir(parents=True)
    try:
        with pytest.raises(DatapathError, match="pins of an older daemon"):
            host.datapath.remove_older_pins()
        assert (host.pins / OLDER).exists()
    finally:
        for directory in no_program, *no_program.parents[:2]:
            directory.rmdir()


def test_detached_what_is_no_schema_stays(host: Host) -> None:
    """Of `vsfwd --detach` too: a `pin_dir` may be the root of the BPF file system."""
    pins = host.pins.with_name("shared-with-others")
    other, ours = pins / "somebody-elses", (pins / OLDER, pins / early.PINS)
    for directory in (other, *ours):
        directory.mkdir(parents=True)
    try:
        assert list(leave(pins)) == []
        assert list(pins.iterdir()) == [other]
    finally:
        shutil.rmtree(pins)
