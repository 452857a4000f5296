"""Drafts (/policy/api/v1/infra/drafts), saved configurations and confirmation (/api/v1/vsfw/configurations,
/api/v1/vsfw/publish)."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Response
from pydantic import Field

from manager_stub.api.aside import Aside, Check
from manager_stub.api.dry_run import DryRun, Minutes
from manager_stub.api.errors import Problem
from manager_stub.api.hierarchy import planned
from manager_stub.api.infra import PREFIX as POLICY
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.checks import Refused
from manager_stub.model import Id, Strict, Text
from manager_stub.publish import Change, Publishing
from manager_stub.register import Register
from manager_stub.transaction import Row

T = TypeVar("T")

Confirm = Annotated[int | None, Query(ge=1, le=86400)]
"""Seconds after which it undoes itself, unless it is confirmed."""
Number = Annotated[int, Field(ge=1, lt=2**31)]


class Draft(Strict):
    resource_type: Literal["PolicyDraft"] = "PolicyDraft"
    display_name: Text = ""
    user_area: dict[str, Any] = Field(default_factory=dict)
    """A tree, as the hierarchical API takes it."""


class Saved(Strict):
    display_name: Annotated[Text, Field(min_length=1)]


def router(register: Register, publishing: Publishing, aside: Aside, dry_run: DryRun) -> APIRouter:
    routes = APIRouter()
    _add_drafts(routes, register, publishing, aside, dry_run)
    _add_configurations(routes, register, publishing, aside, dry_run)
    _add_confirmation(routes, publishing)
    return routes


def _add_drafts(
    routes: APIRouter, register: Register, publishing: Publishing, aside: Aside, dry_run: DryRun
) -> None:
    url, tags = f"{POLICY}/infra/drafts", ["PolicyDraft"]

    def existing(id: str) -> Row:
        draft = publishing.drafts.get(id)
        if draft is None:
            raise Problem(404, f"there is no draft {id}")
        return draft

    @routes.get(url, tags=[*tags])
    async def list_drafts(page: Page) -> Json:
        return listed(publishing.drafts.values(), page, _draft)

    @routes.get(f"{url}/{{id}}", tags=[*tags])
    async def read(id: Id) -> Json:
        return _draft(existing(id))

    @routes.put(f"{url}/{{id}}", tags=[*tags])
    async def put(id: Id, body: Draft) -> Json:
        """Keeps what is to be changed, and changes nothing."""
        change = await worked_out(register, aside, lambda now: planned(now, body.user_area))
        publishing.keep_draft(id, body.display_name or id, body.user_area, change)
        return _draft(existing(id))

    @routes.get(f"{url}/{{id}}/diff", tags=[*tags])
    async def diff(id: Id) -> Response:
        """What publishing it would change, and in `refused` why it would not be possible."""
        tree, frozen = existing(id)["tree"], register.frozen()
        return await aside.answer(lambda check: differences(frozen, planned(frozen, tree), check))

    @routes.get(f"{url}/{{id}}/dry-run", tags=[*tags])
    async def try_out(id: Id, minutes: Minutes = 15) -> Json:
        """Which flows that were seen in the last minutes would end otherwise, were it published; and which
        hosts did not tell."""
        tree = existing(id)["tree"]
        return await dry_run(lambda now: planned(now, tree), minutes)

    @routes.post(f"{url}/{{id}}", tags=[*tags])
    async def publish(
        id: Id, action: Annotated[Literal["publish"], Query()], confirm_within: Confirm = None
    ) -> Response:
        """All of it at once, and the draft is gone; refused when somebody changed one of its objects
        meanwhile."""
        draft = existing(id)
        change = await worked_out(register, aside, lambda now: planned(now, draft["tree"]))
        if existing(id) != draft:
            raise Problem(409, "the draft was changed while it was read")
        publishing.check_revisions(id)
        with_confirmation(register, publishing, change, confirm_within)
        publishing.drop_draft(id)
        return Response()

    @routes.delete(f"{url}/{{id}}", tags=[*tags])
    async def delete(id: Id) -> Response:
        publishing.drop_draft(existing(id)["id"])
        return Response()


def _add_configurations(
    routes: APIRouter, register: Register, publishing: Publishing, aside: Aside, dry_run: DryRun
) -> None:
    url, tags = f"{PREFIX}/configurations", ["Configuration"]

    def existing(id: int) -> Row:
        row = publishing.saved(id)
        if row is None:
            raise Problem(404, f"there is no configuration {id}, or no more")
        return row

    @routes.get(url, tags=[*tags])
    async def list_saved(page: Page) -> Json:
        """The newest first."""
        return listed(publishing.all_saved(), page, _saved)

    @routes.post(url, status_code=201, tags=[*tags])
    async def save(body: Saved) -> Json:
        return _saved(publishing.save(body.display_name))

    @routes.get(f"{url}/{{id}}", tags=[*tags])
    async def read(id: Number) -> Json:
        return _saved(existing(id))

    @routes.get(f"{url}/{{id}}/diff", tags=[*tags])
    async def diff(id: Number) -> Response:
        """What rolling back to it would change, and in `refused` why it would not be possible."""
        saved, frozen = existing(id)["change"], register.frozen()
        return await aside.answer(
            lambda check: differences(frozen, publishing.way_back(frozen.world, saved), check)
        )

    @routes.get(f"{url}/{{id}}/dry-run", tags=[*tags])
    async def try_out(id: Number, minutes: Minutes = 15) -> Json:
        """As that of a draft."""
        saved = existing(id)["change"]
        return await dry_run(lambda now: publishing.way_back(now.world, saved), minutes)

    @routes.post(f"{url}/{{id}}", tags=[*tags])
    async def roll_back(
        id: Number, action: Annotated[Literal["roll_back"], Query()], confirm_within: Confirm = None
    ) -> Response:
        """The policy is as it was then, all of it or nothing."""
        saved = existing(id)["change"]
        change = await worked_out(register, aside, lambda now: publishing.way_back(now.world, saved))
        with_confirmation(register, publishing, change, confirm_within)
        return Response()

    @routes.delete(f"{url}/{{id}}", tags=[*tags])
    async def delete(id: Number) -> Response:
        publishing.forget(existing(id))
        return Response()


def _add_confirmation(routes: APIRouter, publishing: Publishing) -> None:
    url, tags = f"{PREFIX}/publish", ["Publish"]

    @routes.get(url, tags=[*tags])
    async def read() -> Json:
        """What waits to be confirmed; `deadline` in milliseconds since 1970."""
        if publishing.window is None:
            return {"waiting": False}
        return {
            "waiting": True,
            "user": publishing.window["user"],
            "deadline": publishing.window["deadline_ms"],
        }

    @routes.post(url, status_code=204, tags=[*tags])
    async def decide(
        action: Annotated[Literal["begin", "confirm", "roll_back"], Query()], confirm_within: Confirm = None
    ) -> None:
        """`begin`: what is changed from now on, by whatever call, undoes itself unless it is confirmed.
        Who began it confirms it or rolls it back, or an enterprise admin."""
        if action == "begin":
            if confirm_within is None:
                raise Problem(400, "missing", "confirm_within")
            publishing.open_window(confirm_within)
            return
        if publishing.window is None:
            earlier = f"; to go back to an earlier policy, see {PREFIX}/configurations"
            raise Problem(409, f"nothing waits to be confirmed{earlier if action == 'roll_back' else ''}")
        publishing.check_own()
        if action == "confirm":
            publishing.close_window()
        else:
            publishing.undo_window()


async def worked_out(register: Register, aside: Aside, plan: Callable[[Register], T]) -> T:
    """What a request asks for, worked out beside the loop; again, and here, where the policy has changed
    meanwhile."""
    frozen = register.frozen()
    found = await aside.run(lambda check: plan(frozen))
    return found if register.world.has_policy_of(frozen.world) else plan(register)


def with_confirmation(
    register: Register, publishing: Publishing, change: Change, confirm_within: int | None
) -> None:
    """Publish; with `confirm_within` in a window of its own."""
    if confirm_within is not None:
        publishing.open_window(confirm_within)
    try:
        register.write(put=change.put, delete=change.delete)
    except Refused:
        if confirm_within is not None:
            publishing.close_window()
        raise


def differences(register: Register, change: Change, check: Check) -> Json:
    check()
    found: Json = {"results": change.diff(register.world, check)}
    check()
    try:
        register.after(change.put, change.delete)
    except Refused as refused:
        return found | {"refused": str(refused)}
    return found


def _draft(row: Row) -> Json:
    return {
        "resource_type": "PolicyDraft",
        "id": row["id"],
        "display_name": row["display_name"],
        "path": f"/infra/drafts/{row['id']}",
        "is_auto_draft": False,
        "user_area": row["tree"],
        "_last_modified_time": row["modified_ms"],
        "_last_modified_user": row["user"],
    }


def _saved(row: Row) -> Json:
    return {
        "id": row["id"],
        "display_name": row["display_name"],
        "automatic": row["automatic"],
        "user": row["user"],
        "time": row["time_ms"],
    }
