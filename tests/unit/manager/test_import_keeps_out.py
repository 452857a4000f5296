"""What of an NSX export keeps something out and cannot be taken: the rest is not taken by itself."""

from typing import Any

from tests.unit.manager.nsx_export import (
    DEFAULT,
    IMPORT,
    POLICY,
    RULE,
    SECTION,
    below,
    faulty,
    imported,
    nsx,
    rule,
)
from tests.unit.manager.rest import DOMAIN, Manager

KEEPS_OUT: list[tuple[str, dict[str, Any], str]] = [
    # below which object, what is put there, what is left out and keeps something out
    (RULE, {"action": "DROP", "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (RULE, {"action": "REJECT", "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (RULE, {"action": "JUMP_TO_APPLICATION"}, f"{SECTION}/rules/in"),
    (RULE, {"action": "REDIRECT"}, f"{SECTION}/rules/in"),
    (RULE, {"action": "DROP", "services": ["/infra/services/own"]}, f"{SECTION}/rules/in"),
    (RULE, {"destinations_excluded": True, "profiles": ["x"]}, f"{SECTION}/rules/in"),
    (POLICY, {"category": "SharedPreRules", "children+": rule("d", action="DROP")}, f"{SECTION}/rules/d"),
    (POLICY, {"connectivity_preference": "ALLOWLIST"}, SECTION),
    (RULE, {"profiles": ["x"]}, ""),
    (RULE, {"action": "DROP", "disabled": True, "profiles": ["x"]}, ""),
    (RULE, {"action": "DROP", "marked_for_delete": True}, ""),
    (POLICY, {"children+": rule("d", action="DROP"), "logging_enabled": True}, ""),
    (
        "Domain:default",
        {"children+": nsx("GatewayPolicy", "g", rules=[rule("d", action="DROP")["Rule"]])},
        "",
    ),
]


async def test_what_keeps_something_out_is_not_left_out_in_silence(manager: Manager) -> None:
    """Rules that drop, reject, jump or exclude, and sections that end in a rule of their own; not what only
    allows, or is not in force."""
    for where, put, keeps_out in KEEPS_OUT:
        found = imported(manager.register.world, faulty(where, put))
        assert found.left_out
        assert bool(found.opening()) == bool(keeps_out), (where, put)
        assert found.opening().startswith(keeps_out)


async def test_a_strategy_that_asks_for_a_drop_at_the_end_is_no_matter_where_there_is_one(
    manager: Manager,
) -> None:
    """`connectivity_strategy` of older exports: WHITELIST wants the default rule to drop, here or in the
    export; BLACKLIST keeps nothing out."""
    for where in ("", "Domain:default"):
        for strategy, action, opens in (
            ("WHITELIST", "DROP", False),
            ("WHITELIST_ENABLE_LOGGING", "ALLOW", True),
            ("BLACKLIST", "ALLOW", False),
        ):
            tree = faulty(where, {"connectivity_strategy": strategy})
            below(tree, f"{DEFAULT}/Rule:default-layer3-rule")["action"] = action
            found = imported(manager.register.world, tree)
            assert any(line.what == f"connectivity_strategy: {strategy}" for line in found.left_out)
            assert ("connectivity_strategy" in found.opening()) is opens, (where, strategy)


async def test_an_import_that_would_let_more_in_is_refused_unless_that_is_said(manager: Manager) -> None:
    """The rules below would decide: the differences say so too, and nothing is changed."""
    tree, before = faulty(RULE, {"action": "DROP", "profiles": ["x"]}), manager.stored()
    shown = await manager.call("POST", f"{IMPORT}/diff", tree)
    assert shown["refused"].startswith(f"{SECTION}/rules/in: cannot be taken")
    answer = await manager.answer("POST", IMPORT, tree)
    assert (answer.status_code, answer.json()["error_message"]) == (400, shown["refused"])
    assert manager.stored() == before
    assert "refused" not in await manager.call("POST", f"{IMPORT}/diff?partly=true", tree)
    assert (await manager.call("POST", f"{IMPORT}?partly=true", tree))["left_out"]
    rules = (await manager.call("GET", f"{DOMAIN}/security-policies/web"))["rules"]
    assert [each["id"] for each in rules] == ["out"]
