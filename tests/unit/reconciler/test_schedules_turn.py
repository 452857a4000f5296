"""The reconciler and the clock: rules are in force in the hours of their schedule."""

from datetime import datetime

from tests.unit.policy_messages import WEB, Manager, rule, vnic
from tests.unit.reconciler.world import PORT, World
from vsfwd.protocol import envelope
from vsfwd.reconciler import INSTALL_ATTEMPTS
from vsfwd.rows import applied


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
