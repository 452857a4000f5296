"""The reconciler and the disk: what is saved, what cannot be, and how a daemon begins that comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from tests.unit.policy_messages import HOST, WEB, group, rule, vnic
from tests.unit.reconciler.world import PORT, World
from vsfwd import reconciler
from vsfwd.image import Plan
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol import envelope
from vsfwd.reconciler import Disposition
from vsfwd.rows import applied


def test_o27_a_disk_that_takes_nothing_holds_no_policy_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One generation after the other is enforced and said not to be saved, until the last of them is. It is
    logged once when it begins, and once when it ends."""
    world.plug(PORT)
    with monkeypatch.context() as full, capture_logs() as lines:
        full.setattr(world.statefile, "save_policy", _no_space)
        world.take(world.policy())
        outcome = world.take(world.manager.delta(rules={"3": rule()}))
        world.reconciler.save()
    assert applied(world.datapath.image, 0) == [1, 3, 2]
    assert (outcome.disposition, outcome.report.generation) == (Disposition.DONE, 2)
    assert "enforced, but not saved: [Errno 28] No space left" in outcome.report.refusals[0].reason
    assert world.reconciler.heartbeat().refusals == outcome.report.refusals
    assert [line["log_level"] for line in lines if line["log_level"] == "error"] == ["error"]
    with capture_logs() as lines:
        world.reconciler.save()
    assert [line["event"] for line in lines] == ["policy is saved now"]
    assert (world.reconciler.not_saved, world.reconciler.refusals()) == ("", ())
    world.restart()
    assert world.reconciler.state.generation == 2


def test_o27_what_is_saved_is_not_saved_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is left alone."""
    world.take(world.policy())
    monkeypatch.setattr(world.statefile, "save_policy", _no_space)
    world.reconciler.save()
    assert world.reconciler.not_saved == ""


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_restart_is_no_change_of_policy(world: World) -> None:
    """What the daemon before had in force is not put to flows again, however it had come to it; what has
    changed meanwhile is."""
    world.plug(PORT)
    world.take(world.policy())
    assert not world.asked_after_a_restart()
    world.take(world.manager.delta(vnics={WEB: vnic("10.0.0.1", groups=("g",))}))
    assert not world.asked_after_a_restart()
    world.take(world.manager.delta(groups={"unused": group("192.0.2.1")}))
    assert not world.asked_after_a_restart()
    world.datapath.slots = {"other": 0, WEB: 1}
    assert world.asked_after_a_restart()


@pytest.mark.parametrize("changed", [False, True])
def test_a_daemon_that_is_killed_while_it_starts_makes_no_change_of_policy_of_the_next_start(
    world: World, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    """Killed just when it would write: what was in force still is, and counts as that. If it was another
    policy nobody knows how far it came, and flows are asked."""
    world.plug(PORT)
    world.take(world.policy())
    if changed:
        world.datapath.slots = {"other": 0, WEB: 1}
    with monkeypatch.context() as killed:
        killed.setattr(world.datapath, "install", _killed)
        with pytest.raises(Killed):
            world.asked_after_a_restart()
    assert world.asked_after_a_restart() == changed


def test_a_daemon_that_is_killed_after_it_tried_again_leaves_no_name_that_is_not_true(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not put in the same policy as the same, and put it in whole: flows are asked. Killed before it
    could write that down; the next asks them too, since nobody knows how far it came."""
    monkeypatch.setattr(reconciler, "INSTALL_PAUSE_S", 0.0)
    world.plug(PORT)
    world.take(world.policy())
    world.datapath.failures = 1
    with killed_once_installed(world, monkeypatch):
        world.asked_after_a_restart()
    assert world.asked_after_a_restart()
    assert not world.asked_after_a_restart()


@contextmanager
def killed_once_installed(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel has what the daemon puts there, and the daemon can do nothing any more."""
    install = world.datapath.install

    def and_die(plan: Plan) -> None:
        install(plan)
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(world.datapath, "install", and_die)
        with pytest.raises(Killed):
            yield


def _killed(_: Plan) -> None:
    raise Killed


def test_a_restart_enforces_what_is_on_disk(world: World) -> None:
    """A daemon with a new memory: policy from disk, vNICs from their devices, a whole bank."""
    world.plug(PORT)
    world.take(world.policy())
    image = world.datapath.image
    world.datapath.calls.clear()
    world.restart()
    world.plug(PORT)
    assert world.datapath.calls == [f"attach {WEB} 7 02:00:00:00:00:01", "flip"]
    assert world.datapath.image == image


@pytest.mark.parametrize("newer", ["one that was not saved", "one whose file is spoilt"])
def test_o27_o7_a_restart_never_goes_back_behind_the_kernel(
    world: World, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    """An older policy on disk may allow what the one in force forbids: nothing is installed, with an alarm,
    and the manager hears that there is none here. After a boot the kernel has nothing, and it is the best
    there is."""
    world.plug(PORT)
    world.take(world.policy())
    with monkeypatch.context() as full:
        if newer == "one that was not saved":
            full.setattr(world.statefile, "save_policy", _no_space)
        world.take(world.manager.delta(rules={"1": None}))
    if newer != "one that was not saved":
        (world.directory / "policy.json").write_bytes(b"{")
    plans = len(world.datapath.plans)
    world.incidents.take()
    world.restart()
    world.plug(PORT)
    assert (len(world.datapath.plans), world.reconciler.hello().generation) == (plans, 0)
    assert world.incident() == ("dfw_policy_file_unusable", HOST)
    world.datapath.remembered = b""
    world.restart()
    world.plug(PORT)
    assert world.reconciler.hello().generation == 1
    assert len(world.datapath.plans) == plans + 1


class Killed(BaseException):
    """As by SIGKILL: nobody gets to do anything."""


def test_o27_o7_a_kill_at_any_moment_forgets_no_newer_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has the newer one, and the daemon was killed before it could write that down anywhere: what
    is on disk is not put in its place. A policy that the kernel refused was never in force."""
    world.plug(PORT)
    world.take(world.policy())
    with killed_once_installed(world, monkeypatch):
        world.take(world.manager.delta(rules={"1": None}))
    world.restart()
    assert world.reconciler.hello().generation == 0
    world.take(world.policy())
    monkeypatch.setattr(reconciler, "INSTALL_PAUSE_S", 0.0)
    generation, world.datapath.failures = world.reconciler.hello().generation, 3
    world.take(world.manager.delta(rules={"1": None}))
    world.restart()
    assert world.reconciler.hello().generation == generation


def test_o2_o41_a_policy_on_disk_that_meets_a_mistake_of_ours_is_like_one_that_is_spoilt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it is taken, with an alarm. A daemon that ended instead would end at every start, and
    never reach the broker that has a better one."""
    world.take(world.policy())
    world.take(world.manager.delta(rules={"3": rule()}))
    world.datapath.remembered = b""
    taken = reconciler.apply

    def fails(state: DesiredState, header: envelope.Header, json: bytes) -> DesiredState:
        if header.generation == 2:
            raise KeyError("no such rule")
        return taken(state, header, json)

    with monkeypatch.context() as broken:
        broken.setattr(reconciler, "apply", fails)
        world.restart()
    assert world.reconciler.hello().generation == 1
    assert world.incident() == ("dfw_policy_file_unusable", HOST)


def test_o2_o41_nor_does_one_end_the_daemon_that_cannot_be_installed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel has stays, the manager hears that it is not the last policy, and can send a better
    one."""
    world.plug(PORT)
    world.take(world.policy())
    with monkeypatch.context() as broken:
        broken.setattr(world.datapath, "install", Mock(side_effect=KeyError("no such row")))
        world.restart()
        world.plug(PORT)
        (told,) = world.reconciler.heartbeat().refusals
    assert (told.kind, told.id) == ("message", "1")
    assert told.reason == "not in force as it is: internal error: KeyError('no such row')"
    assert world.take(world.manager.delta(rules={"3": rule()})).report.refusals == ()
    assert applied(world.datapath.image, 0) == [1, 3, 2]


def test_what_an_older_daemon_remembered_in_its_own_way_says_nothing(world: World) -> None:
    """Thirty-two bytes of any value: what is on disk is taken."""
    world.take(world.policy())
    world.datapath.remembered = b"\xff" * 32
    world.restart()
    assert world.reconciler.hello().generation == 1


@pytest.mark.parametrize("known_by", ["the kernel", "the positions on disk"])
def test_o27_o7_nor_does_an_older_message_take_it_there(
    world: World, monkeypatch: pytest.MonkeyPatch, known_by: str
) -> None:
    """Whoever sends a signed message again, to a host that has lost what came after it, is refused; the
    manager hears what was here, so that one that was restored begins a newer epoch. What is not older is
    taken."""
    world.plug(PORT)
    world.take(first := world.policy())
    with monkeypatch.context() as full:
        if known_by == "the kernel":
            full.setattr(world.statefile, "save_policy", _no_space)
        world.take(world.manager.delta(rules={"1": None}))
    if known_by != "the kernel":
        world.datapath.remembered = b""
        for name in ("policy.json", "policy.previous.json"):
            (world.directory / name).write_bytes(b"{")
    plans = len(world.datapath.plans)
    world.restart()
    outcome = world.take(first)
    assert (outcome.disposition, len(world.datapath.plans)) == (Disposition.REFUSED, plans)
    assert (outcome.report.epoch, outcome.report.generation) == (1, 2)
    assert outcome.report.refusals[0].reason == "generation: (1, 1) is older than (1, 2), which was here"
    assert world.reconciler.hello().generation == 0
    world.manager.generation = 1
    assert world.take(world.manager.snapshot(rules={"2": rule()})).disposition is Disposition.DONE


def test_a_start_without_policy_installs_nothing(world: World) -> None:
    """What the kernel enforces stays; a vNIC is attached, and closed."""
    world.restart()
    world.plug(PORT)
    assert world.datapath.calls == [f"attach {WEB} 7 02:00:00:00:00:01"]
