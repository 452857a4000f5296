"""/infra/realized-state: whether the hosts have what an object says, in NSX's words; and the places of NSX
of which there is one here: domain, site, enforcement point.

A host reports the generation of all it has, so what is true of the policy is true of each of its objects.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query

from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, Page, existing, listed
from manager_stub.model import Entity, patterns
from manager_stub.register import Register
from manager_stub.world import Stored

Intent = Annotated[str, Query(pattern=patterns.INTENT)]

_PLACES: Final = {
    "/infra/domains": "Domain",
    "/infra/sites": "Site",
    "/infra/sites/default/enforcement-points": "EnforcementPoint",
}


def router(register: Register) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["Realization"])
    _add_realized(routes, register)
    for url, kind in _PLACES.items():
        _add_place(routes, kind, url)
    return routes


def _add_realized(routes: APIRouter, register: Register) -> None:
    home = "/infra/realized-state"

    @routes.get(f"{home}/realized-entities")
    async def entities(intent_path: Intent, page: Page) -> Json:
        return listed([existing(register.world, intent_path)], page, lambda stored: _entity(register, stored))

    @routes.get(f"{home}/status")
    async def status(intent_path: Intent) -> Json:
        existing(register.world, intent_path)
        state = {"REALIZED": "SUCCESS", "UNREALIZED": "IN_PROGRESS", "ERROR": "ERROR"}[_state(register)]
        return {"intent_path": intent_path, "consolidated_status": {"consolidated_status": state}}

    @routes.post(f"{home}/realized-entity", status_code=204)
    async def refresh(intent_path: Intent) -> None:
        """Nothing has to be asked: hosts report by themselves."""
        existing(register.world, intent_path)


def _entity(register: Register, stored: Stored[Entity]) -> Json:
    resource = stored.body.model_dump()["resource_type"]
    return {
        "resource_type": "GenericPolicyRealizedResource",
        "id": stored.unique_id,
        "entity_type": f"Realized{resource}",
        "state": _state(register),
        "intent_paths": [stored.path],
        "realization_specific_identifier": str(stored.number) if stored.number else stored.unique_id,
        "alarms": [],
    }


def _state(register: Register) -> str:
    """Of all hosts that have vNICs."""
    hosts = [host for host in register.hosts.values() if host.bindings]
    if any(host.problem for host in hosts):
        return "ERROR"
    behind = any(not host.level.in_sync for host in hosts)
    return "UNREALIZED" if behind else "REALIZED"


def _add_place(routes: APIRouter, kind: str, url: str) -> None:
    place = {"resource_type": kind, "id": "default", "display_name": "default", "path": f"{url}/default"}

    @routes.get(url)
    async def list_places(page: Page) -> Json:
        return listed([place], page, lambda each: each)

    @routes.get(f"{url}/{{id}}")
    async def read(id: str) -> Json:
        if id != "default":
            raise Problem(404, f"the path=[{url}/{id}] is invalid: there is no such object")
        return place
