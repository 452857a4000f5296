"""/search of both APIs: objects that a query describes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from manager_stub.api.aside import Aside, Check
from manager_stub.api.errors import Problem
from manager_stub.api.fabric import Places, places, vm_shown
from manager_stub.api.objects import Json, Page, Paging, listed, shown
from manager_stub.model import Strict
from manager_stub.register import Register
from manager_stub.search import MAX_QUERY, BadQuery, parse
from manager_stub.world import World

Text = Annotated[str, Field(max_length=MAX_QUERY)]


class Step(Strict):
    query: Text


class Pipeline(Strict):
    query_pipeline: Annotated[list[Step], Field(min_length=1, max_length=10)]
    """Each looks among what the one before it found."""


def router(register: Register, aside: Aside) -> APIRouter:
    routes = APIRouter(tags=["Search"])
    for home in ("/api/v1/search", "/policy/api/v1/search"):
        _add(routes, register, aside, home)
    return routes


def _add(routes: APIRouter, register: Register, aside: Aside, home: str) -> None:
    async def answer(queries: list[str], page: Paging) -> Json:
        try:
            wanted = [parse(query) for query in queries]
        except BadQuery as error:
            raise Problem(400, str(error), "query") from None
        world, where = register.world, places(register)

        def search(check: Check) -> Json:
            found = [each for each in _documents(world, where, check) if all(want(each) for want in wanted)]
            order = replace(page, sort_by=page.sort_by or "path")
            answer = listed(found, order, lambda document: document)
            # Other than a list, a search says on its last page, too, where the next would begin, and clients
            # read it; but not where it found nothing, since others go on until there is no cursor.
            end = {"cursor": str(page.cursor + len(answer["results"]))} if answer["results"] else {}
            return end | answer

        return await aside.run(search)

    @routes.get(home)
    @routes.get(f"{home}/query")
    async def query(query: Text, page: Page) -> Json:
        return await answer([query], page)

    @routes.post(f"{home}/querypipeline")
    async def pipeline(body: Pipeline, page: Page) -> Json:
        return await answer([step.query for step in body.query_pipeline], page)


def _documents(world: World, where: Places, check: Check) -> Iterator[Json]:
    for kind, objects in world.kinds.items():
        for stored in objects.values():
            check()
            yield vm_shown(world.vms[stored.path], where) if kind == "vms" else shown(stored)
