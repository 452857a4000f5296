"""Policies that change without end: a vsfwd as it runs holds afterwards what it held before."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.harness.resources import Resources
from tests.integration.daemon_host import POLICY, Setting
from tests.unit.policy_messages import WEB, Manager, group, rule, vnic
from vagrant.lab.waiting import wait_until
from vsfwd.datapath import bpf
from vsfwd.datapath.schema import constant
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Applied

pytestmark = pytest.mark.slow
LONG: Final = pytest.mark.timeout(3600)
FEW, MANY = 120, 10_000
KEPT: Final = 8
"""Groups, each with its rule: a new one takes the place of the oldest."""
ADDRESSES: Final = 20
"""That are members by turns: text that was parsed once is remembered, up to 65,536 of them."""
ROUND: Final = 3 * ADDRESSES
SNAPSHOT_EVERY: Final = 50
MEMORY_BYTES: Final = 4 << 20
"""What Python and its allocators may move by, of some 50 MB: the table of interned strings alone grows by one
at some moment. Of each of many updates 420 bytes may be left: no message, and no object of a policy."""


class Churn:
    """A policy in which groups and rules that never were before come, change and go."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._policy: dict[str, dict[str, Any]] = {kind: dict(of) for kind, of in POLICY.items()}
        self._turn = 0

    def next(self) -> Message:
        """By turns a group with a rule about it, one address more in it, and the vNIC in it; now and then the
        whole policy."""
        number, what = divmod(self._turn, 3)
        self._turn += 1
        new, member = f"group{number}", number % ADDRESSES
        addresses = [f"198.51.100.{member}", f"2001:db8::{member:x}"]
        match what:
            case 0:
                changes = {
                    "groups": {new: group(*addresses), f"group{number - KEPT}": None},
                    "rules": {str(100 + number): about(new), str(100 + number - KEPT): None},
                }
            case 1:
                changes = {"groups": {new: group(*addresses, f"203.0.113.{member}")}}
            case _:
                changes = {"vnics": {WEB: vnic("192.0.2.10", groups=(new,))}}
        return self._said(changes)

    def _said(self, changes: dict[str, dict[str, Any]]) -> Message:
        for kind, objects in changes.items():
            for id in [id for id, object in objects.items() if object is None]:
                if self._policy[kind].pop(id, None) is None:
                    del objects[id]
            self._policy[kind] |= {id: object for id, object in objects.items() if object is not None}
        if self._turn % SNAPSHOT_EVERY == 0:
            return self._manager.snapshot(**self._policy)
        return self._manager.delta(**changes)


def about(group: str) -> dict[str, Any]:
    return rule(group, sources={"groups": [group]}, order=[5, 0, 0, 0])


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=[pytest.mark.deep, LONG])])
async def test_o37_policies_that_change_without_end_leave_nothing(
    setting: Setting, times: int, record_property: Callable[[str, str], None]
) -> None:
    """No descriptor, no bytes of maps, no rule counter, no memory: the daemon has as much as before."""
    await setting.with_policy()
    assert setting.host.process is not None
    pid, churn = setting.host.process.pid, Churn(setting.host.manager)

    async def update(times: int) -> None:
        for _ in range(times):
            await setting.manager.policy(churn.next())
        last = setting.host.manager.generation
        applied = await setting.manager.reported(Applied, lambda said: said.generation == last)
        assert applied.refusals == ()

    await update(ROUND)
    before, counters = Resources.of(pid), counted(setting)
    for _ in range(0, times, ROUND):
        await update(ROUND)
    wait_until(lambda: Resources.of(pid)[:2] <= before[:2], "no more descriptors and maps than before")
    grown = Resources.of(pid).memory - before.memory
    figure = f"{times} updates of policy: {grown:,} bytes of memory more, of {before.memory:,}"
    record_property("figure", figure)
    assert grown <= MEMORY_BYTES
    assert counted(setting) == counters


def counted(setting: Setting) -> int:
    """Rules that have a counter."""
    (path,) = setting.host.pins.rglob("counter_rule")
    owners = bpf.pinned(path)
    return sum(any(owner) for _, owner in bpf.items(owners, 4, 8, constant("COUNTERS")))
