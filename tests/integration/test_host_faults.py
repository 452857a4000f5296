"""A policy that forbids everything, on a host that wants to hear the next one."""

import pytest

from tests.integration.daemon_host import Setting
from tests.unit.policy_messages import rule
from vsfwd.protocol.messages import Applied

pytestmark = pytest.mark.slow


async def test_o20_a_rule_that_drops_everything_does_not_cut_off_the_manager(setting: Setting) -> None:
    """Only vNICs are filtered: the host's own way to the broker is not, so the mistake can be taken back."""
    await setting.with_policy()
    everything = rule("everything", action="drop", order=[0, 0, 0, 0])
    await setting.manager.policy(setting.host.manager.delta(rules={"9": everything}))
    await setting.manager.reported(Applied, lambda event: event.generation == 2)
    assert not setting.host.ping()
    assert setting.host.ask("status")["broker"]
    await setting.manager.policy(setting.host.manager.delta(rules={"9": None}))
    await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert setting.host.ping()
