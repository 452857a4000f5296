"""A policy larger than what any host holds."""

import pytest

from manager_stub.model import Rule, SecurityPolicy
from manager_stub.world import id_of
from tests.harness.policies import after
from tests.unit.manager.expressions import vm
from tests.unit.manager.rest import DOMAIN, Manager
from vsfwd.policy.bits import rule_bits
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import MAX_RULES
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import Binding, Bindings, Guest

pytestmark = pytest.mark.slow

HOST = "33333333-0000-4000-8000-000000000001"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
SECTION = "/infra/domains/default/security-policies/s"
MANY = 65_537
"""One more than 16 bits count, and four times what a host holds."""


async def test_65537_rules_keep_their_order(manager: Manager) -> None:
    """In the manager, across a restart, and at a host that needs a few of them, the first and the last among
    these. They were written in the reverse order, so it is not that of their ids."""
    manager.register.add_host(HOST, "host")
    card = Binding(VNIC, VM, "02:00:00:00:00:01", "veth", Guest("here"))
    manager.vnics.bound(HOST, Bindings((card,)))
    for name in ("here", "elsewhere"):
        await manager.call("PUT", f"{DOMAIN}/groups/{name}", {"expression": [vm("Name", "EQUALS", name)]})
    here, elsewhere = ([f"/infra/domains/default/groups/{name}"] for name in ("here", "elsewhere"))
    rules = {
        f"{SECTION}/rules/r{number}": Rule(
            action="DROP", sequence_number=number, scope=elsewhere if number % MAX_RULES else here
        )
        for number in reversed(range(MANY))
    }
    manager.register.write(put={SECTION: SecurityPolicy(), **rules})

    again = Manager(manager.directory, "")
    for register in (manager.register, again.register):
        assert [id_of(rule.path) for rule in register.world.rules_of(SECTION)] == [
            f"r{number}" for number in range(MANY)
        ]
        state = after(DesiredState(), register.hosts[HOST].level.wanted.objects, Kind.SNAPSHOT)
        in_order = [state.rules[entry.id].name for entry in rule_bits(state.rules).entries]
        assert [name for name in in_order if name.startswith("r")] == [
            f"r{number}" for number in range(0, MANY, MAX_RULES)
        ]
    await again.close()
