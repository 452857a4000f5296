"""/search of both APIs: objects that a query describes."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from manager_stub.api.errors import Problem
from manager_stub.api.fabric import places, vm_shown
from manager_stub.api.objects import Json, Page, Paging, listed, shown
from manager_stub.model import Strict
from manager_stub.register import Register
from manager_stub.search import MAX_QUERY, BadQuery, parse, values

Text = Annotated[str, Field(max_length=MAX_QUERY)]
Field_ = Annotated[str, Query(max_length=100)]


class Step(Strict):
    query: Text


class Pipeline(Strict):
    query_pipeline: Annotated[list[Step], Field(min_length=1, max_length=10)]
    """Each looks among what the one before it found."""


def router(register: Register) -> APIRouter:
    routes = APIRouter(tags=["Search"])
    for home in ("/api/v1/search", "/policy/api/v1/search"):
        _add(routes, register, home)
    return routes


def _add(routes: APIRouter, register: Register, home: str) -> None:
    @routes.get(home)
    @routes.get(f"{home}/query")
    async def query(query: Text, page: Page, sort_by: Field_ = "path", sort_ascending: bool = True) -> Json:
        return _answer(register, [query], page, sort_by, sort_ascending)

    @routes.post(f"{home}/querypipeline")
    async def pipeline(
        body: Pipeline, page: Page, sort_by: Field_ = "path", sort_ascending: bool = True
    ) -> Json:
        return _answer(register, [step.query for step in body.query_pipeline], page, sort_by, sort_ascending)


def _answer(register: Register, queries: list[str], page: Paging, sort_by: str, ascending: bool) -> Json:
    try:
        wanted = [parse(query) for query in queries]
    except BadQuery as error:
        raise Problem(400, str(error), "query") from None
    found = [document for document in _documents(register) if all(want(document) for want in wanted)]
    found.sort(key=lambda document: next(values(document, sort_by), ""), reverse=not ascending)
    answer = listed(found, page, lambda document: document)
    # Other than a list, a search always says where the next page would begin.
    return {"cursor": str(min(page.cursor + page.size, len(found)))} | answer


def _documents(register: Register) -> Iterator[Json]:
    where = places(register)
    yield from (vm_shown(vm, where) for vm in register.world.vms.values())
    for kind, objects in register.world.kinds.items():
        if kind != "vms":
            yield from (shown(stored) for stored in objects.values())
