"""Saved configurations: one for each change of the policy, and the way back to any of them."""

from typing import Any

from manager_stub.publish import MAX_MANUAL
from manager_stub.transaction import MAX_SAVED
from tests.unit.manager.rest import DOMAIN, VSFW, Manager

SAVED = f"{VSFW}/configurations"
GROUP = f"{DOMAIN}/groups/g"
SECTION = f"{DOMAIN}/security-policies/s"
VM = "11111111-0000-4000-8000-000000000001"


async def saved(manager: Manager) -> list[Any]:
    return (await manager.call("GET", SAVED))["results"]  # type: ignore[no-any-return]


async def test_every_change_of_the_policy_is_saved_by_itself(manager: Manager) -> None:
    """With who and when, the newest first; inventory, and what changes nothing, is no publish."""
    before = await saved(manager)
    await manager.call("PATCH", GROUP, {"description": "one"})
    await manager.call("PATCH", GROUP, {"description": "one"})
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "web"})
    (new,) = [row for row in await saved(manager) if row not in before]
    assert (new["user"], new["automatic"]) == ("admin", True)
    assert (await saved(manager))[0] == new


async def test_a_roll_back_makes_the_policy_what_it_was(manager: Manager) -> None:
    """What was made is gone, what was deleted is back, what was changed is as before; tags stay."""
    await manager.call("PUT", GROUP, {"description": "one"})
    rule = {"id": "r", "action": "DROP", "source_groups": [GROUP.removeprefix("/policy/api/v1")]}
    await manager.call("PUT", SECTION, {"rules": [rule]})
    was = policy(manager)
    name = {"display_name": "before the change"}
    kept = await manager.call("POST", SAVED, name)
    await manager.call("DELETE", SECTION)
    await manager.call("PATCH", GROUP, {"description": "two"})
    await manager.call("PUT", f"{DOMAIN}/groups/new", {})
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "web"})
    diff = await manager.call("GET", f"{SAVED}/{kept['id']}/diff")
    assert [each["path"].rsplit("/", 1)[1] for each in diff["results"]] == ["g", "new", "s", "r"]
    await manager.call("POST", f"{SAVED}/{kept['id']}?action=roll_back")
    assert policy(manager) == was
    assert (await manager.call("GET", f"{SAVED}/{kept['id']}/diff"))["results"] == []
    assert (await manager.call("GET", f"{VSFW}/vms/{VM}"))["display_name"] == "web"


def policy(manager: Manager) -> dict[str, Any]:
    world = manager.register.world
    kinds = [world.kinds[kind] for kind in ("groups", "security-policies", "rules")]
    return {path: stored.body for objects in kinds for path, stored in objects.items()}


async def test_a_roll_back_that_is_not_possible_changes_nothing(manager: Manager) -> None:
    """A group it would bring back names what is no more: refused, and the diff says why before."""
    segment = "/policy/api/v1/infra/segments/blue"
    await manager.call("PUT", segment, {})
    path = {"resource_type": "PathExpression", "paths": ["/infra/segments/blue"]}
    await manager.call("PUT", GROUP, {"expression": [path]})
    kept = (await saved(manager))[0]["id"]
    await manager.call("PATCH", GROUP, {"expression": []})
    await manager.call("PUT", f"{DOMAIN}/groups/new", {})
    await manager.call("DELETE", segment)
    assert "/infra/segments/blue" in (await manager.call("GET", f"{SAVED}/{kept}/diff"))["refused"]
    was = policy(manager)
    answer = await manager.answer("POST", f"{SAVED}/{kept}?action=roll_back")
    assert (answer.status_code, policy(manager)) == (400, was)


async def test_a_hundred_are_kept_and_those_saved_by_hand_stay(manager: Manager) -> None:
    """The oldest automatic one makes room; of those saved by hand there is a limit."""
    for number in range(MAX_MANUAL):
        await manager.call("POST", SAVED, {"display_name": f"by hand {number}"})
    refused = await manager.answer("POST", SAVED, {"display_name": "one more"})
    assert refused.status_code == 400
    for number in range(MAX_SAVED):
        await manager.call("PATCH", GROUP, {"description": str(number)})
    rows = await saved(manager)
    assert len(rows) == MAX_SAVED
    assert sum(not row["automatic"] for row in rows) == MAX_MANUAL
    back = next(row for row in rows[::-1] if row["automatic"])
    await manager.call("POST", f"{SAVED}/{back['id']}?action=roll_back")
    group = await manager.call("GET", GROUP)
    assert group["description"] == str(MAX_MANUAL)
    await manager.call("DELETE", f"{SAVED}/{rows[-1]['id']}")
    assert (await manager.answer("GET", f"{SAVED}/{rows[-1]['id']}")).status_code == 404
