"""The reconciler: messages and vNICs in, one datapath served, nothing lost by what fails."""

import gc
import time
from datetime import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.unit.fake_datapath import FakeDatapath
from tests.unit.policy_messages import APP, HOST, WEB, Manager, group, rule, vnic
from vsfwd.image import Flip, InPlace, Plan
from vsfwd.incidents import Incidents
from vsfwd.policy.model import SessionTimers
from vsfwd.policy.schedule import Now
from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import Kind
from vsfwd.reconciler import INSTALL_ATTEMPTS, Disposition, Outcome, Port, Reconciler
from vsfwd.rows import applied
from vsfwd.statefile import StateFile

PORT = Port(WEB, "veth-web", 7, "02:00:00:00:00:01")
OTHER = Port(APP, "veth-app", 8, "02:00:00:00:00:02")


class World:
    """One host: a manager, a datapath, a disk, and the reconciler between them."""

    def __init__(self, directory: Path) -> None:
        self.manager = Manager()
        self.datapath = FakeDatapath()
        self.statefile = StateFile(directory)
        self.clock = datetime(2026, 11, 22, 7, 59, 59)
        self.incidents = Incidents()
        self.reconciler = self._reconciler()

    def _reconciler(self) -> Reconciler:
        key = self.manager.key.public_key()
        return Reconciler(HOST, key, self.datapath, self.statefile, "1.0", self._now, self.incidents)

    def _now(self) -> Now:
        return Now(self.clock, self.clock)

    def incident(self) -> tuple[str, str]:
        """The one since the last call: event, and what it is about."""
        ((cause, _),) = self.incidents.take().items()
        return cause.event_type, cause.entity

    def at(self, clock: str) -> list[int]:
        """Somebody looks at the clock; the rules that are then in force on the first vNIC."""
        self.clock = datetime.fromisoformat(f"2026-11-22T{clock}")
        self.reconciler.follow_schedules()
        return applied(self.datapath.image, 0)

    def restart(self) -> None:
        self.reconciler = self._reconciler()
        self.reconciler.load()

    def asked_after_a_restart(self) -> bool:
        """Whether a daemon that comes back puts its policy to flows as another one."""
        self.restart()
        self.plug(PORT)
        plan = self.datapath.plans[-1]
        assert isinstance(plan, Flip)
        return not plan.same_policy

    def plug(self, *ports: Port) -> None:
        self.reconciler.vnics_changed({port.vnic: port for port in ports})

    def take(self, message: envelope.Message) -> Outcome:
        return self.reconciler.apply_message(message, time.monotonic_ns())

    def policy(self) -> envelope.Message:
        return self.manager.snapshot(
            rules={
                "1": rule(sources={"groups": ["g"]}),
                "2": rule("drop", action="drop", order=[9, 0, 0, 1]),
            },
            groups={"g": group()},
            vnics={WEB: vnic("10.0.0.1")},
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


def test_a_snapshot_is_enforced_saved_and_reported(world: World) -> None:
    """A policy message ends in the kernel, on disk, and in a report with the generation and the time it
    took."""
    world.plug(PORT)
    outcome = world.take(world.policy())
    assert outcome.disposition is Disposition.DONE
    assert (outcome.report.epoch, outcome.report.generation) == (1, 1)
    assert outcome.report.digest == world.manager.digest
    assert outcome.report.duration_us > 0
    assert outcome.report.refusals == ()
    assert world.datapath.image is not None
    assert 0 in world.datapath.image.vnics
    world.restart()
    assert world.reconciler.state.generation == 1


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


def test_a_tag_that_moves_costs_one_entry(world: World) -> None:
    """A vNIC that joins a group used as source changes the live bank in place."""
    world.plug(PORT)
    world.take(world.policy())
    world.take(world.manager.delta(vnics={WEB: vnic("10.0.0.1", groups=("g",))}))
    assert [type(plan) for plan in world.datapath.plans] == [Flip, InPlace]
    assert world.reconciler.state.generation == 2


def test_timers_reach_the_datapath_beside_the_policy(world: World) -> None:
    """A vNIC's timers change without a new bank, so that no flow is asked about again or cut."""
    world.plug(PORT, OTHER)
    world.take(world.policy())
    assert world.datapath.timers == {}
    timers = {"profile": "short", "udp_single": 10}
    world.take(world.manager.delta(vnics={WEB: vnic("10.0.0.1") | {"timers": timers}}))
    assert [type(plan) for plan in world.datapath.plans] == [Flip]
    assert world.datapath.timers == {WEB: SessionTimers("short", udp_single=10)}
    world.take(world.manager.delta(vnics={WEB: vnic("10.0.0.1")}))
    assert world.datapath.timers == {}


def scheduled(manager: Manager) -> envelope.Message:
    """Rule 1 is in force from 8:00 to 17:00."""
    hours = {"schedule": {"times": [[480, 1020]]}}
    return manager.snapshot(
        rules={"1": rule() | hours, "2": rule("drop", action="drop")}, vnics={WEB: vnic("10.0.0.1")}
    )


def test_a_schedule_turns_by_the_clock_of_the_host(world: World) -> None:
    """Without a message, in the second it says, and once only; also when the clock jumps, back too."""
    world.plug(PORT)
    world.take(scheduled(world.manager))
    assert applied(world.datapath.image, 0) == [2]
    installed = len(world.datapath.plans)
    for clock, rules in (
        *(("07:59:59", [2]), ("08:00:00", [1, 2]), ("08:00:01", [1, 2]), ("16:59:59", [1, 2])),
        *(("17:00:00", [2]), ("09:00:00", [1, 2]), ("23:00:00", [2])),
    ):
        assert world.at(clock) == rules, clock
    assert len(world.datapath.plans) == installed + 4


def test_a_schedule_turns_while_the_daemon_is_not_there(world: World) -> None:
    """What is in force after a restart is what the clock says then, before anybody looks at it again."""
    world.plug(PORT)
    world.take(scheduled(world.manager))
    world.clock = datetime(2026, 11, 22, 12)
    world.restart()
    world.plug(PORT)
    assert applied(world.datapath.image, 0) == [1, 2]
    assert world.reconciler.enforced().rules.keys() == {1, 2}
    world.at("18:00:00")
    assert world.reconciler.enforced().rules.keys() == {2}


def test_a_turn_that_the_kernel_refuses_is_tried_again(world: World) -> None:
    """With the next second."""
    world.plug(PORT)
    world.take(scheduled(world.manager))
    world.datapath.failures = INSTALL_ATTEMPTS
    assert world.at("08:00:00") == [2]
    assert world.at("08:00:01") == [1, 2]


def test_a_vnic_that_is_plugged_later_has_its_timers(world: World) -> None:
    """They are of the vNICs that are here, whenever they come."""
    world.take(world.manager.snapshot(vnics={WEB: vnic("10.0.0.1") | {"timers": {"udp_single": 10}}}))
    assert world.datapath.timers == {}
    world.plug(PORT)
    assert world.datapath.timers == {WEB: SessionTimers(udp_single=10)}


def test_a_gap_asks_for_a_snapshot(world: World) -> None:
    """A delta on a generation this host never had is refused, and the manager is asked for everything."""
    world.take(world.policy())
    world.manager.delta(groups={"h": group()})
    outcome = world.take(world.manager.delta(groups={"i": group()}))
    assert outcome.disposition is Disposition.REFUSED
    assert outcome.report.resync
    assert outcome.report.generation == 1
    assert [(r.kind, r.id) for r in outcome.report.refusals] == [("message", "3")]
    assert world.take(world.manager.snapshot(groups={"j": group()})).disposition is Disposition.DONE


def test_a_wrong_digest_asks_for_a_snapshot(world: World) -> None:
    """A delta that ends in another state than the manager's is refused, and the manager is asked for
    everything."""
    world.take(world.policy())
    world.manager.generation += 1
    outcome = world.take(world.manager.sealed(Kind.DELTA, b"{}", base=1, digest="0" * 64))
    assert outcome.disposition is Disposition.REFUSED
    assert outcome.report.resync


def test_a_forged_message_is_refused_and_asks_for_nothing(world: World) -> None:
    """Who cannot sign cannot make a host ask for snapshots either."""
    world.take(world.policy())
    forger = Manager()
    outcome = world.take(forger.snapshot(groups={"g": group()}))
    assert outcome.disposition is Disposition.REFUSED
    assert not outcome.report.resync
    assert outcome.report.refusals[0].reason.startswith("signature")
    assert world.reconciler.state.generation == 1
    assert world.reconciler.counters.refused == 1


def test_a_duplicate_is_done_with_and_changes_nothing(world: World) -> None:
    """The same message twice is one change."""
    message = world.policy()
    world.plug(PORT)
    world.take(message)
    calls = list(world.datapath.calls)
    outcome = world.take(message)
    assert outcome.disposition is Disposition.DONE
    assert outcome.report.generation == 1
    assert world.datapath.calls == calls
    assert world.reconciler.counters.duplicate == 1


def test_a_bad_rule_is_reported_by_id_and_stops_no_other(world: World) -> None:
    """One rule of a message cannot be understood: it is named in the report, the others are enforced."""
    world.plug(PORT)
    message = world.manager.snapshot(
        rules={"1": rule(), "2": rule(action="maybe")}, vnics={WEB: vnic("10.0.0.1")}
    )
    outcome = world.take(message)
    assert outcome.disposition is Disposition.DONE
    assert [(r.kind, r.id) for r in outcome.report.refusals] == [("rules", "2")]
    assert world.datapath.image is not None
    assert [entry.id for entry in world.datapath.image.rules] == [1]


def test_a_kernel_that_refuses_once_is_asked_again(world: World) -> None:
    """An install that fails is tried again, with a whole bank."""
    world.plug(PORT)
    world.datapath.failures = 1
    assert world.take(world.policy()).disposition is Disposition.DONE


def test_a_kernel_that_goes_on_refusing_keeps_the_last_good_policy(world: World) -> None:
    """The message is refused with the kernel's reason; the next tick puts the last good policy in again."""
    world.plug(PORT)
    world.take(world.policy())
    good = world.datapath.image
    world.datapath.failures = 3
    outcome = world.take(world.manager.delta(rules={"3": rule()}))
    assert outcome.disposition is Disposition.REFUSED
    assert outcome.report.generation == 1
    assert "bank 1: no memory" in outcome.report.refusals[0].reason
    world.datapath.calls.clear()
    world.plug(PORT)
    assert world.datapath.image == good
    assert world.datapath.calls == ["flip"]


def test_after_an_error_nobody_expected_the_tables_are_built_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel has is not known any more: no change is made in place of what may not be there."""
    world.plug(PORT)
    world.take(world.policy())
    joins = world.manager.delta(vnics={WEB: vnic("10.0.0.1", groups=("g",))})
    with monkeypatch.context() as broken:
        broken.setattr(world.datapath, "install", _bug)
        outcome = world.take(joins)
    assert "internal error" in outcome.report.refusals[0].reason
    world.take(joins)
    assert [type(plan) for plan in world.datapath.plans] == [Flip, Flip]


def _bug(_: Plan) -> None:
    raise RuntimeError("half done")


def test_the_collector_rests_only_while_a_policy_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python looks for cycles again after a message, also after one that is refused."""
    world.plug(PORT)
    at_work = []
    install = world.datapath.install

    def watched(plan: Plan) -> None:
        at_work.append(gc.isenabled())
        install(plan)

    monkeypatch.setattr(world.datapath, "install", watched)
    assert world.take(world.policy()).disposition is Disposition.DONE
    assert (at_work, gc.isenabled()) == ([False], True)
    assert world.take(Manager().snapshot()).disposition is Disposition.REFUSED
    assert gc.isenabled()


def test_what_a_policy_leaves_goes_back_to_the_kernel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the policy before, after a whole one; one address leaves nothing that would be worth it."""
    given = []
    monkeypatch.setattr("vsfwd.reconciler.give_back", lambda: given.append(world.reconciler.state.generation))
    world.plug(PORT)
    world.take(world.policy())
    world.take(world.manager.delta(vnics={WEB: vnic("10.0.0.1", groups=("g",))}))
    world.take(world.manager.delta(rules={"2": None}))
    assert given == [1, 3]


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


def test_a_start_without_policy_installs_nothing(world: World) -> None:
    """What the kernel enforces stays; a vNIC is attached, and closed."""
    world.restart()
    world.plug(PORT)
    assert world.datapath.calls == [f"attach {WEB} 7 02:00:00:00:00:01"]


def test_a_takeover_never_closes_a_vnic(world: World) -> None:
    """A vNIC of the last daemon that is gone now is detached, and the bank that says so has the others
    open."""
    world.plug(PORT)
    world.take(world.policy())
    world.datapath.slots[APP] = 1
    world.restart()
    world.plug(PORT)
    assert all(0 in plan.image.vnics for plan in world.datapath.plans)


def test_a_slot_never_has_two_owners(world: World) -> None:
    """Between the end of one vNIC and the start of the next in its slot there is a bank without it."""
    world.plug(PORT)
    world.take(world.policy())
    world.datapath.calls.clear()
    world.plug(OTHER)
    assert world.datapath.calls[:3] == [f"detach {WEB}", "flip", f"attach {APP} 8 02:00:00:00:00:02"]


def test_a_vnic_that_lost_its_programs_is_attached_again(world: World) -> None:
    """Found by the datapath, or told by whoever watches; the others are left alone, and no policy changes."""
    world.plug(PORT, OTHER)
    world.datapath.calls.clear()
    world.datapath.taken_off = {WEB}
    world.plug(PORT, OTHER)
    assert world.datapath.calls == [f"attach {WEB} 7 02:00:00:00:00:01"]
    world.plug(PORT, OTHER)
    world.reconciler.vnics_changed({WEB: PORT, APP: OTHER}, {APP})
    assert world.datapath.calls[1:] == [f"attach {APP} 8 02:00:00:00:00:02"]


def test_o4_lost_programs_are_mended_and_told(world: World) -> None:
    """Without a look at the devices; nothing happens to a vNIC that has lost nothing."""
    world.plug(PORT, OTHER)
    world.datapath.calls.clear()
    world.reconciler.mend()
    assert (world.datapath.calls, world.incidents.take()) == ([], {})
    world.datapath.taken_off = {WEB}
    world.reconciler.mend()
    assert world.datapath.calls == [f"attach {WEB} 7 02:00:00:00:00:01"]
    assert world.incident() == ("dfw_filter_removed", WEB)
    world.reconciler.mend()
    assert world.incidents.take() == {}


def test_o4_what_cannot_be_mended_is_tried_again_as_a_new_vnic(world: World) -> None:
    """It is no longer said to be attached."""
    world.plug(PORT, OTHER)
    world.datapath.taken_off = world.datapath.unattachable = {WEB}
    world.reconciler.mend()
    assert (world.reconciler.ports, set(world.reconciler.unattached)) == ({APP: OTHER}, {WEB})
    world.datapath.unattachable = set()
    world.plug(PORT, OTHER)
    assert (world.reconciler.ports, world.reconciler.unattached) == ({WEB: PORT, APP: OTHER}, {})


def test_o5_a_program_that_stays_in_front_is_told_as_long_as_it_does(world: World) -> None:
    """Nothing can be done about it here."""
    world.plug(PORT)
    for overtaken in (True, True, False):
        world.datapath.overtaken = {WEB} if overtaken else set()
        world.reconciler.mend()
        assert len(world.incidents.take()) == overtaken


def test_a_vnic_that_comes_while_another_goes_is_opened(world: World) -> None:
    """In one look at the devices: the bank without the one is followed by a bank with the other."""
    world.plug(PORT)
    world.take(
        world.manager.snapshot(rules={"1": rule()}, vnics={WEB: vnic("10.0.0.1"), APP: vnic("10.0.0.2")})
    )
    world.plug(OTHER)
    assert world.datapath.image is not None
    assert set(world.datapath.image.vnics) == {world.datapath.slots[APP]}


def test_whoever_reads_a_port_has_its_slot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment of an apply: the slot comes with the port."""
    seen: list[dict[str, int]] = []
    install = world.datapath.install

    def look(plan: Plan) -> None:
        seen.append({id: port.slot for id, port in world.reconciler.ports.items()})
        install(plan)

    monkeypatch.setattr(world.datapath, "install", look)
    world.plug(PORT)
    world.take(
        world.manager.snapshot(rules={"1": rule()}, vnics={WEB: vnic("10.0.0.1"), APP: vnic("10.0.0.2")})
    )
    world.plug(PORT, OTHER)
    world.plug(OTHER)
    assert seen == [{WEB: 0}, {WEB: 0, APP: 1}, {APP: 1}]


def test_o42_a_vnic_that_cannot_be_attached_stops_no_other(world: World) -> None:
    """Its device may be gone already; it is tried again by the next look. Here and at the manager it is said
    which one it is, and why; and no longer when it is attached, or gone."""
    world.take(world.policy())
    for cured in (True, False):
        world.datapath.unattachable = {WEB}
        world.plug(PORT, OTHER)
        assert world.reconciler.ports == {APP: OTHER}
        assert world.reconciler.unattached[WEB].reason == f"{WEB}: no such device"
        assert world.incident() == ("dfw_filter_not_applied", WEB)
        assert [(r.kind, r.id) for r in world.reconciler.heartbeat().refusals] == [("vnics", WEB)]
        if cured:
            world.datapath.unattachable = set()
            world.plug(PORT, OTHER)
            assert world.reconciler.ports == {WEB: PORT, APP: OTHER}
        world.plug(OTHER)
        assert (world.reconciler.unattached, world.reconciler.heartbeat().refusals) == ({}, ())


def test_hello_says_what_is_enforced(world: World) -> None:
    """The greeting has generation, digest and what is refused."""
    world.take(world.manager.snapshot(rules={"2": rule(action="maybe")}))
    hello = world.reconciler.hello()
    assert (hello.epoch, hello.generation, hello.digest) == (1, 1, world.manager.digest)
    assert [(r.kind, r.id) for r in hello.refusals] == [("rules", "2")]


def test_a_vnic_that_is_expected_needs_no_install_when_it_comes(world: World) -> None:
    """Its policy is in its slot already; one that is given up leaves the tables."""
    world.plug(PORT)
    world.take(
        world.manager.snapshot(rules={"1": rule()}, vnics={WEB: vnic("10.0.0.1"), APP: vnic("10.0.0.2")})
    )
    world.reconciler.expect([APP])
    installed = len(world.datapath.plans)
    assert world.datapath.image is not None
    assert len(world.datapath.image.vnics) == 2
    world.plug(PORT, OTHER)
    assert len(world.datapath.plans) == installed
    world.plug(PORT)
    world.reconciler.expect([APP])
    world.reconciler.give_up([APP])
    assert set(world.datapath.image.vnics) == {world.datapath.slots[WEB]}
