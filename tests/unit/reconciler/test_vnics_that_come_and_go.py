"""The reconciler and its vNICs: attached, opened, mended, given up, and none the worse for another."""

import pytest

from tests.unit.policy_messages import APP, WEB, rule, vnic
from tests.unit.reconciler.world import OTHER, PORT, World
from vsfwd.image import Plan
from vsfwd.policy.model import SessionTimers


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


def test_a_vnic_on_another_device_by_its_number_is_attached_before_any_flip(world: World) -> None:
    """With all that takes, the new device would be open meanwhile. What is on it is not taken off, and nobody
    is told that somebody did; the policy comes to the vNIC's slot again, which is empty, when it is there."""
    world.plug(PORT, OTHER)
    world.take(world.policy())
    world.datapath.calls.clear()
    world.datapath.taken_off = {WEB}
    world.reconciler.vnics_changed({WEB: PORT}, {WEB}, {WEB})
    assert world.datapath.calls == [
        f"forget {WEB}",
        f"attach {WEB} 7 02:00:00:00:00:01",
        f"detach {APP}",
        "flip",
    ]
    assert (world.reconciler.ports, world.incidents.take()) == ({WEB: PORT}, {})
    world.datapath.calls.clear()
    world.reconciler.vnics_changed({WEB: PORT}, frozenset(), {WEB})
    assert world.datapath.calls == [f"forget {WEB}", f"attach {WEB} 7 02:00:00:00:00:01", "flip"]
    world.datapath.unattachable = {WEB}
    world.reconciler.vnics_changed({WEB: PORT}, frozenset(), {WEB})
    assert (world.reconciler.ports, set(world.reconciler.unattached)) == ({}, {WEB})


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


def test_a_vnic_that_keeps_the_programs_of_before_is_told_and_tried_again(world: World) -> None:
    """Nobody took its programs off. The others have what is newest."""
    world.plug(PORT, OTHER)
    world.datapath.belated = world.datapath.unattachable = {WEB}
    for _ in range(2):
        world.plug(PORT, OTHER)
        assert (world.reconciler.ports, set(world.reconciler.unattached)) == ({APP: OTHER}, {WEB})
        assert world.incident() == ("dfw_filter_not_applied", WEB)
    world.datapath.unattachable = set()
    world.plug(PORT, OTHER)
    assert (world.reconciler.ports, world.reconciler.unattached) == ({WEB: PORT, APP: OTHER}, {})


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


def test_a_vnic_that_is_plugged_later_has_its_timers(world: World) -> None:
    """They are of the vNICs that are here, whenever they come."""
    world.take(world.manager.snapshot(vnics={WEB: vnic("10.0.0.1") | {"timers": {"udp_single": 10}}}))
    assert world.datapath.timers == {}
    world.plug(PORT)
    assert world.datapath.timers == {WEB: SessionTimers(udp_single=10)}
