"""A host with one VM, which the fixture `serving` has plugged there, and the rules it is sent."""

import msgspec

from tests.unit.manager.rest import Manager
from vsfwd.policy.model import Rule

HOST = "33333333-0000-4000-8000-000000000001"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
MAC = "02:00:00:00:00:01"


def rules_sent(manager: Manager) -> dict[str, Rule]:
    """By name, as the host reads them."""
    raw = manager.register.hosts[HOST].level.wanted.objects["rules"].values()
    return {rule.name: rule for rule in (msgspec.json.decode(each, type=Rule) for each in raw)}
