"""More than a host can hold: refused whole, with its name and both numbers."""

import pytest

from manager_stub.classes import classes
from tests.unit.manager.rest import DOMAIN, Manager
from tests.unit.manager.serving import HOST
from vsfwd.policy.model import MAX_RULES

SECTION = f"{DOMAIN}/security-policies/new"


@pytest.mark.slow
async def test_more_rules_than_a_host_holds_are_refused_whole(serving: Manager) -> None:
    """MAX_RULES on a host is the limit: one more is refused naming the host, and not one rule is stored."""
    there = len(serving.register.hosts[HOST].level.wanted.objects["rules"])
    rules = [{"id": f"r{number}", "action": "DROP"} for number in range(MAX_RULES - there + 1)]
    before = serving.stored()
    answer = await serving.answer("PUT", SECTION, {"rules": rules})
    assert answer.status_code == 400
    assert f"host host ({HOST}): {MAX_RULES + 1} rules" in answer.json()["error_message"]
    assert serving.stored() == before
    await serving.call("PUT", SECTION, {"rules": rules[1:]})
    assert len(serving.register.hosts[HOST].level.wanted.objects["rules"]) == MAX_RULES


async def test_more_classes_of_addresses_than_a_host_tells_apart_are_refused_whole(
    serving: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that names two addresses more: refused naming the host and both numbers, nothing is stored."""
    objects = serving.register.hosts[HOST].level.wanted.objects
    limit = classes(objects, 0) + 1
    monkeypatch.setattr("manager_stub.levels.MAX_CLASSES", limit)
    rule = {"id": "r", "action": "DROP", "source_groups": ["192.0.2.1", "192.0.2.2"]}
    before = serving.stored()
    answer = await serving.answer("PUT", SECTION, {"rules": [rule]})
    assert answer.status_code == 400
    assert f"host host ({HOST}): addresses there are of {limit + 1} classes" in answer.json()["error_message"]
    assert f"at most {limit} apart" in answer.json()["error_message"]
    assert serving.stored() == before
    await serving.call("PUT", SECTION, {"rules": [rule | {"source_groups": ["192.0.2.1"]}]})
