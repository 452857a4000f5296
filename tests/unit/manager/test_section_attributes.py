"""What a section says of connections reaches the rules that hosts are sent."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, Manager
from tests.unit.manager.serving import rules_sent
from vsfwd.policy.model import APPLICATION, ExistingFlows, Tracking

SECTION = f"{DOMAIN}/security-policies/s"
DEFAULT_SECTION = f"{DOMAIN}/security-policies/default-layer3-section"


@pytest.mark.parametrize(
    ("body", "tracking"),
    [
        ({}, Tracking.STRICT),
        ({"tcp_strict": True}, Tracking.STRICT),
        ({"tcp_strict": False}, Tracking.LOOSE),
        ({"stateful": False}, Tracking.STATELESS),
        ({"stateful": False, "tcp_strict": False}, Tracking.STATELESS),
    ],
)
async def test_x20_tcp_strict_and_stateful_become_the_tracking_of_the_rules(
    serving: Manager, body: dict[str, Any], tracking: Tracking
) -> None:
    """Strict unless it is said; and the section shows what it has."""
    await serving.call("PUT", SECTION, {**body, "rules": [{"id": "r", "action": "ALLOW"}]})
    assert rules_sent(serving)["r"].tracking is tracking
    shown = await serving.call("GET", SECTION)
    assert (shown["stateful"], shown["tcp_strict"]) == (
        body.get("stateful", True),
        body.get("tcp_strict", True),
    )


async def test_existing_flows_are_rechecked_kept_or_cut(serving: Manager) -> None:
    """As the section says, for all its rules, from the next message on."""
    await serving.call("PUT", SECTION, {"rules": [{"id": name, "action": "ALLOW"} for name in "ab"]})
    assert {rules_sent(serving)[name].existing_flows for name in "ab"} == {ExistingFlows.RECHECK}
    for word in ExistingFlows:
        await serving.call("PATCH", SECTION, {"existing_flows": word.upper()})
        assert {rules_sent(serving)[name].existing_flows for name in "ab"} == {word}
    assert rules_sent(serving)["Default Layer3 Rule"].existing_flows is ExistingFlows.RECHECK


async def test_the_default_section_can_be_told_too(serving: Manager) -> None:
    """What its rules want to know of connections is the operator's choice; its place is not."""
    await serving.call("PATCH", DEFAULT_SECTION, {"tcp_strict": False, "existing_flows": "CUT"})
    rule = rules_sent(serving)["Default Layer3 Rule"]
    assert (rule.tracking, rule.existing_flows) == (Tracking.LOOSE, ExistingFlows.CUT)
    refused = await serving.answer("PATCH", DEFAULT_SECTION, {"category": "Emergency"})
    assert refused.status_code == 400


async def test_a_section_or_a_rule_is_monitored(serving: Manager) -> None:
    """The section for all its rules; each rule by itself."""
    rules = [{"id": "a", "action": "DROP", "monitored": True}, {"id": "b", "action": "ALLOW"}]
    await serving.call("PUT", SECTION, {"rules": rules})
    assert [rules_sent(serving)[name].monitored for name in "ab"] == [True, False]
    await serving.call("PATCH", SECTION, {"monitored": True})
    assert [rules_sent(serving)[name].monitored for name in "ab"] == [True, True]
    refused = await serving.answer("PATCH", DEFAULT_SECTION, {"monitored": True})
    assert refused.status_code == 400


async def test_a_rule_of_the_environment_jumps_to_the_application(serving: Manager) -> None:
    """Only there; its section cannot become one of another category."""
    rule = {"id": "r", "action": "JUMP_TO_APPLICATION"}
    await serving.call("PUT", SECTION, {"category": "Environment", "rules": [rule]})
    made = rules_sent(serving)["r"]
    assert made.jumps
    assert made.order < (APPLICATION,)
    assert rules_sent(serving)["Default Layer3 Rule"].order >= (APPLICATION,)
    refused = await serving.answer("PATCH", SECTION, {"category": "Application"})
    assert refused.status_code == 400
    assert "JUMP_TO_APPLICATION is for the category Environment, not Application" in refused.text
