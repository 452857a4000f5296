"""Reads that take long: they stop nobody else, have an end, and are few at a time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from manager_stub import audit
from manager_stub.api import aside, hierarchy, policy_file, publish, rule_analysis, search
from manager_stub.api.aside import MAX_OF_ONE, MAX_WAITING, Aside
from manager_stub.lint import lint
from manager_stub.publish import Change
from manager_stub.world import World
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

pytestmark = pytest.mark.slow

LATE_S = 20.0
SEARCH = "/policy/api/v1/search/query?query=id:x"


class Held:
    """Work that goes on until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, *args: Any) -> str:
        self.begun.set()
        assert self.may_end.wait(LATE_S)
        return "done"


def of(user: str, beside: Aside, work: Callable[..., str]) -> "asyncio.Task[str]":
    before = audit.actor.set(user)
    try:
        return asyncio.create_task(beside.run(work))
    finally:
        audit.actor.reset(before)


async def test_a_user_has_few_at_a_time_and_others_have_theirs() -> None:
    """503 for one more of the same user, and of anybody once all places are taken; free again when they have
    ended, also when nobody waits for the answer any more."""
    beside, held = Aside(), Held()
    waiting = [of(f"user {n // MAX_OF_ONE}", beside, held) for n in range(MAX_WAITING)]
    await asyncio.to_thread(held.begun.wait, LATE_S)
    waiting[0].cancel()
    for user in ("user 0", "user 1", "somebody else"):
        with pytest.raises(HTTPException) as refused:
            await of(user, beside, held)
        assert refused.value.status_code == 503
    held.may_end.set()
    assert await asyncio.gather(*waiting[1:]) == ["done"] * (MAX_WAITING - 1)
    assert await of("user 0", beside, held) == "done"


async def test_it_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 that says so; the next one has its own time."""
    beside = Aside()

    def endless(check: aside.Check) -> str:
        while True:
            check()

    monkeypatch.setattr(aside, "READ_S", 0.05)
    with pytest.raises(HTTPException, match="this takes more than"):
        await of("eve", beside, endless)
    assert await of("eve", beside, lambda check: "done") == "done"


@pytest.mark.parametrize(
    ("module", "step", "path"),
    [
        (search, "shown", SEARCH),
        (publish, "planned", f"{INFRA}/drafts/d/diff"),
        (publish, "differences", f"{VSFW}/configurations/1/diff"),
        (rule_analysis, "lint", f"{INFRA}/rule-analysis"),
        (policy_file, "document", f"{VSFW}/policy"),
        (hierarchy, "_children", f"{INFRA}?filter=Type-Group"),
    ],
    ids=["search", "diff of a draft", "diff of a configuration", "rule analysis", "the policy", "its tree"],
)
async def test_the_manager_goes_on_while_somebody_asks_much(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, path: str
) -> None:
    """Others' calls are answered and published meanwhile; one user's third question is refused."""
    await manager.call("PUT", f"{INFRA}/drafts/d", {"user_area": {}})
    held = Held()
    monkeypatch.setattr(module, step, held)
    asking = [asyncio.create_task(manager.answer("GET", path)) for _ in range(MAX_OF_ONE)]
    await asyncio.to_thread(held.begun.wait, LATE_S)
    await manager.call("PUT", f"{DOMAIN}/groups/g", {})
    refused = await manager.answer("GET", path)
    assert (refused.status_code, refused.json()["httpStatus"]) == (503, "SERVICE_UNAVAILABLE")
    monkeypatch.undo()
    held.may_end.set()
    await asyncio.gather(*asking, return_exceptions=True)
    await manager.call("GET", path)


async def test_what_is_compared_does_not_change_meanwhile(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison is of one moment: what is written while it runs is not in it."""
    await manager.call("PUT", f"{INFRA}/drafts/d", {"user_area": {}})
    before = len(manager.register.world.groups)
    held, plan = Held(), publish.planned
    found: list[int] = []

    def late(register: Any, tree: Any) -> Any:
        held()
        found.append(len(register.world.groups))
        return plan(register, tree)

    monkeypatch.setattr(publish, "planned", late)
    asking = asyncio.create_task(manager.call("GET", f"{INFRA}/drafts/d/diff"))
    await asyncio.to_thread(held.begun.wait, LATE_S)
    await manager.call("PUT", f"{DOMAIN}/groups/g", {})
    held.may_end.set()
    assert await asking == {"results": []}
    assert found == [before]


@pytest.mark.parametrize("change", [True, False])
async def test_what_is_published_is_worked_out_of_the_policy_as_it_is(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, change: bool
) -> None:
    """Beside the loop; once more where another has changed the policy meanwhile, so that nothing of that is
    undone. Inventory that changes is no reason."""
    await manager.call("PUT", f"{DOMAIN}/groups/g", {"description": "old"})
    document = await manager.call("GET", f"{VSFW}/policy")
    document["groups"][0]["display_name"] = "new"
    held, work_out = Held(), policy_file.change
    times: list[World] = []

    def late(world: World, body: Any) -> Change:
        held()
        times.append(world)
        return work_out(world, body)

    monkeypatch.setattr(policy_file, "change", late)
    publishing = asyncio.create_task(manager.call("PUT", f"{VSFW}/policy", document))
    await asyncio.to_thread(held.begun.wait, LATE_S)
    url = f"{DOMAIN}/groups/other" if change else f"{VSFW}/vms/11111111-0000-4000-8000-000000000001"
    await manager.call("PUT", url, {})
    held.may_end.set()
    await publishing
    assert len(times) == (2 if change else 1)
    assert [group.body.display_name for group in manager.register.world.groups.values()] == ["new"]


async def test_a_draft_that_is_replaced_while_it_is_read_is_not_published(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409, and the other one is there still."""
    await manager.call("PUT", f"{INFRA}/drafts/d", {"user_area": {}})
    held, plan = Held(), publish.planned
    monkeypatch.setattr(publish, "planned", lambda *given: (held(), plan(*given))[1])
    asking = asyncio.create_task(manager.answer("POST", f"{INFRA}/drafts/d?action=publish"))
    await asyncio.to_thread(held.begun.wait, LATE_S)
    manager.parts.publishing.keep_draft("d", "other", {}, Change({}, []))
    held.may_end.set()
    assert (await asking).status_code == 409
    assert (await manager.call("GET", f"{INFRA}/drafts/d"))["display_name"] == "other"


async def test_an_analysis_and_a_comparison_can_be_ended_at_every_rule(manager: Manager) -> None:
    """Their time is looked at in between, not only before and after."""
    rules = [{"id": f"r{number}", "action": "DROP"} for number in range(20)]
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": rules})
    world = manager.register.world
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 10:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        lint(manager.register.realised, check=check)
    checks = 0
    with pytest.raises(TimeoutError):
        Change({}, [*world.rules]).diff(world, check)
