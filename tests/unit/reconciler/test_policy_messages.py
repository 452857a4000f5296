"""The reconciler: messages in, one datapath served, nothing lost by what fails."""

import gc

import pytest

from tests.unit.policy_messages import WEB, Manager, group, rule, vnic
from tests.unit.reconciler.world import OTHER, PORT, World
from vsfwd.image import Flip, InPlace, Plan
from vsfwd.policy.model import SessionTimers
from vsfwd.protocol.envelope import Kind
from vsfwd.reconciler import Disposition


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
    """What the kernel has is not known any more: no change is made in place of what may not be there, and the
    policy of before counts as what was last in force."""
    world.plug(PORT)
    world.take(world.policy())
    in_force = world.datapath.last_in_force()
    joins = world.manager.delta(vnics={WEB: vnic("10.0.0.1", groups=("g",))})
    with monkeypatch.context() as broken:
        broken.setattr(world.datapath, "install", _bug)
        outcome = world.take(joins)
    assert "internal error" in outcome.report.refusals[0].reason
    assert world.datapath.last_in_force() == in_force
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


def test_hello_says_what_is_enforced(world: World) -> None:
    """The greeting has generation, digest and what is refused."""
    world.take(world.manager.snapshot(rules={"2": rule(action="maybe")}))
    hello = world.reconciler.hello()
    assert (hello.epoch, hello.generation, hello.digest) == (1, 1, world.manager.digest)
    assert [(r.kind, r.id) for r in hello.refusals] == [("rules", "2")]
