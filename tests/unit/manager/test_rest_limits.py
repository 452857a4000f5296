"""More than a host can hold: refused whole, with its name and both numbers."""

import pytest

from manager_stub.classes import classes
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.policy.model import MAX_RULES
from vsfwd.protocol.messages import Binding, Bindings

VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
HOST, MAC = "33333333-0000-4000-8000-000000000001", "02:00:00:00:00:01"
SECTION = f"{DOMAIN}/security-policies/new"


@pytest.fixture
async def plugged(manager: Manager) -> Manager:
    """With a VM on a host."""
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "vm", "vnics": [{"id": VNIC, "mac": MAC}]})
    manager.register.add_host(HOST, "host")
    manager.vnics.bound(HOST, Bindings((Binding(VNIC, VM, MAC, "veth0"),)))
    return manager


@pytest.mark.slow
async def test_more_rules_than_a_host_holds_are_refused_whole(plugged: Manager) -> None:
    """MAX_RULES on a host is the limit: one more is refused naming the host, and not one rule is stored."""
    there = len(plugged.register.hosts[HOST].level.wanted.objects["rules"])
    rules = [{"id": f"r{number}", "action": "DROP"} for number in range(MAX_RULES - there + 1)]
    before = plugged.stored()
    answer = await plugged.answer("PUT", SECTION, {"rules": rules})
    assert answer.status_code == 400
    assert f"host host ({HOST}): {MAX_RULES + 1} rules" in answer.json()["error_message"]
    assert plugged.stored() == before
    await plugged.call("PUT", SECTION, {"rules": rules[1:]})
    assert len(plugged.register.hosts[HOST].level.wanted.objects["rules"]) == MAX_RULES


async def test_more_classes_of_addresses_than_a_host_tells_apart_are_refused_whole(
    plugged: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that names two addresses more: refused naming the host and both numbers, nothing is stored."""
    objects = plugged.register.hosts[HOST].level.wanted.objects
    limit = classes(objects, 0) + 1
    monkeypatch.setattr("manager_stub.levels.MAX_CLASSES", limit)
    rule = {"id": "r", "action": "DROP", "source_groups": ["192.0.2.1", "192.0.2.2"]}
    before = plugged.stored()
    answer = await plugged.answer("PUT", SECTION, {"rules": [rule]})
    assert answer.status_code == 400
    assert f"host host ({HOST}): addresses there are of {limit + 1} classes" in answer.json()["error_message"]
    assert f"at most {limit} apart" in answer.json()["error_message"]
    assert plugged.stored() == before
    await plugged.call("PUT", SECTION, {"rules": [rule | {"source_groups": ["192.0.2.1"]}]})
