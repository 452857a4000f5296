"""/infra/services/{id}/service-entries: the entries of a service one by one. They are kept in the service,
and a change of one is a change of the service."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX, Patch
from manager_stub.api.objects import Json, Page, existing, listed
from manager_stub.model import Entry, Id, Service
from manager_stub.register import Register
from manager_stub.world import Stored

_entry: TypeAdapter[Entry] = TypeAdapter(Entry)


def router(register: Register) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/infra/services/{{service}}/service-entries", tags=["Service"])

    @routes.get("")
    async def list_entries(service: Id, page: Page) -> Json:
        stored = _service(register, service)
        named = [entry for entry in stored.body.service_entries if entry.id is not None]
        return listed(named, page, lambda entry: _shown(stored, entry))

    @routes.get("/{id}")
    async def read(service: Id, id: Id) -> Json:
        stored = _service(register, service)
        return _shown(stored, _existing(stored, id))

    @routes.put("/{id}")
    async def put(service: Id, id: Id, body: Patch) -> Json:
        _write(register, service, id, _entry.validate_python(body | {"id": id}))
        return await read(service, id)

    @routes.patch("/{id}")
    async def patch(service: Id, id: Id, body: Patch) -> Response:
        before = next((e for e in _service(register, service).body.service_entries if e.id == id), None)
        document = before.model_dump(exclude_unset=True) if before else {}
        _write(register, service, id, _entry.validate_python(document | body | {"id": id}))
        return Response()

    @routes.delete("/{id}")
    async def delete(service: Id, id: Id) -> Response:
        _existing(_service(register, service), id)
        _write(register, service, id, None)
        return Response()

    return routes


def _service(register: Register, id: str) -> Stored[Service]:
    path = f"/infra/services/{id}"
    existing(register.world, path)
    return register.world.services[path]


def _existing(service: Stored[Service], id: str) -> Entry:
    for entry in service.body.service_entries:
        if entry.id == id:
            return entry
    raise Problem(404, f"the path=[{service.path}/service-entries/{id}] is invalid: there is no such object")


def _write(register: Register, service: str, id: str, entry: Entry | None) -> None:
    """The service with this entry in place of the one of that id, or without it."""
    stored = _service(register, service)
    before = stored.body.service_entries
    after: list[Any] = [(entry if each.id == id else each) for each in before]
    if all(each.id != id for each in before):
        after.append(entry)
    document = stored.body.model_dump(exclude_unset=True, by_alias=True)
    entries = [each.model_dump(exclude_unset=True) for each in after if each is not None]
    register.write(put={stored.path: Service.model_validate(document | {"service_entries": entries})})


def _shown(service: Stored[Service], entry: Entry) -> Json:
    return {
        **entry.model_dump(exclude_none=True),
        "display_name": entry.display_name or entry.id,
        "path": f"{service.path}/service-entries/{entry.id}",
        "parent_path": service.path,
        "relative_path": entry.id,
    }
