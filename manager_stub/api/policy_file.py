"""The policy as one document (/api/v1/vsfw/policy), as `vsfwctl` keeps it in a file: `declared` says what
is in it. And what another manager exported (/api/v1/vsfw/policy/import): `imports` says what becomes of
it."""

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Query, Response

from manager_stub.api.aside import Aside, Check, written
from manager_stub.api.declared import change, document
from manager_stub.api.errors import Problem
from manager_stub.api.imports import imported
from manager_stub.api.imports.report import Import
from manager_stub.api.infra import Patch
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json
from manager_stub.api.publish import Confirm, differences, with_confirmation, worked_out
from manager_stub.checks import Refused
from manager_stub.model import patterns
from manager_stub.publish import Change, Publishing
from manager_stub.register import Register

Digest = Annotated[str | None, Query(pattern=patterns.DIGEST)]


def router(register: Register, publishing: Publishing, aside: Aside) -> APIRouter:
    routes = APIRouter(tags=["PolicyDocument"])
    url = f"{PREFIX}/policy"

    @routes.get(url)
    async def read() -> Response:
        world = register.world
        return await aside.answer(lambda check: document(world))

    @routes.post(f"{url}/diff")
    async def compare(body: Patch) -> Response:
        """What `PUT` of this body would change, in `refused` why it would not be possible, and in `digest`
        what to say that exactly this is meant."""
        frozen = register.frozen()
        return await aside.answer(
            lambda check: _signed(differences(frozen, change(frozen.world, body), check))
        )

    @routes.put(url)
    async def put(body: Patch, digest: Digest = None, confirm_within: Confirm = None) -> Response:
        """The policy is what the body says, all of it or nothing, and what it does not name is gone. Without
        a difference nothing happens: no revision, no generation, nothing to confirm."""

        def plan(now: Register) -> tuple[Change, list[Json]]:
            wanted = change(now.world, body)
            return wanted, wanted.diff(now.world)

        wanted, results = await worked_out(register, aside, plan)
        _check_digest(digest, results)
        if results:
            with_confirmation(register, publishing, wanted, confirm_within)
        return written({"results": results})

    _add_import(routes, register, publishing, aside)
    return routes


def _add_import(routes: APIRouter, register: Register, publishing: Publishing, aside: Aside) -> None:
    url = f"{PREFIX}/policy"

    @routes.post(f"{url}/import/diff")
    async def compare_import(body: Patch, partly: bool = False) -> Response:
        """What `POST …/import` of this tree would change, as of a document; in `left_out` what has no
        counterpart here, by path, what and why; in `metadata` fields that are of no account, counted."""
        frozen = register.frozen()

        def read(check: Check) -> Json:
            taken = imported(frozen.world, body, check)
            shown = differences(frozen, taken.change(), check) | taken.report()
            opening = "" if partly else taken.opening()
            return _signed(shown | {"refused": opening} if opening else shown)

        return await aside.answer(read)

    @routes.post(f"{url}/import")
    async def take(
        body: Patch, digest: Digest = None, partly: bool = False, confirm_within: Confirm = None
    ) -> Json:
        """What has a counterpart is here as it is there, all of it or nothing; what the tree does not have
        stays. Nothing is taken where a rule that does not simply allow has to be left out, unless `partly`:
        what stands below it would decide."""
        before = register.world

        def read(check: Check) -> tuple[Import, Change]:
            taken = imported(before, body, check)
            return taken, taken.change()

        taken, wanted = await aside.run(read)
        results = wanted.diff(register.world)
        _check_digest(digest, results)
        if any(register.world.get(path) is not before.get(path) for path in taken.put):
            raise Problem(412, "the policy was changed while this was read")
        if not partly and (opening := taken.opening()):
            raise Refused("", opening)
        if results:
            with_confirmation(register, publishing, wanted, confirm_within)
        return {"results": results} | taken.report()


def _signed(found: Json) -> Json:
    """With what says that exactly these differences are meant."""
    return found | {"digest": _digest(found["results"])}


def _check_digest(digest: str | None, results: list[Json]) -> None:
    if digest not in (None, _digest(results)):
        raise Problem(412, "the policy is not what it was when these differences were shown")


def _digest(results: list[Json]) -> str:
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()
