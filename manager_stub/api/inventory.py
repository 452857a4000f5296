"""/api/v1/vsfw: VMs with their vNICs and tags, clusters, datacenters."""

from fastapi import APIRouter, Response

from manager_stub.api.objects import Json, Page, check_body, existing, listed, shown
from manager_stub.model import Cluster, Datacenter, Entity, Id, Uuid, Vm
from manager_stub.register import Register
from manager_stub.world import Stored

PREFIX = "/api/v1/vsfw"


def router(register: Register) -> APIRouter:
    routes = APIRouter()
    _add_kind(routes, register, "vms", Vm, Uuid)
    _add_kind(routes, register, "clusters", Cluster, Id)
    _add_kind(routes, register, "datacenters", Datacenter, Id)

    return routes


def _shown(register: Register, path: str) -> Json:
    stored = existing(register.world, path)
    excluded = {"excluded_vnics": register.excluded_vnics(path)} if isinstance(stored.body, Vm) else {}
    return {**shown(stored), **excluded}


def _with_reported(before: Stored[Vm] | None, body: Entity) -> Entity:
    if before is None or not isinstance(body, Vm):
        return body
    unsaid = {"os_name", "computer_name", "power_state"} - body.model_fields_set
    return body.model_copy(update={field: getattr(before.body, field) for field in unsaid})


def _add_kind(
    routes: APIRouter, register: Register, kind: str, model: type[Entity], id_type: type[str]
) -> None:
    url, tags = f"{PREFIX}/{kind}", [model.__name__]

    @routes.get(url, tags=[*tags])
    async def list_objects(page: Page) -> Json:
        return listed(register.world.kinds[kind], page, lambda path: _shown(register, path))

    @routes.get(f"{url}/{{id}}", tags=[*tags])
    async def read(id: id_type) -> Json:  # type: ignore[valid-type]
        return _shown(register, f"/vsfw/{kind}/{id}")

    @routes.put(f"{url}/{{id}}", tags=[*tags])
    async def put(id: id_type, body: model) -> Json:  # type: ignore[valid-type]
        """Creates or replaces; checks `_revision` if the body has one. What hosts report of a guest stays
        unless the body says otherwise."""
        path = f"/vsfw/{kind}/{id}"
        check_body(register.world, path, body)
        register.write(put={path: _with_reported(register.world.vms.get(path), body)})
        return _shown(register, path)

    @routes.delete(f"{url}/{{id}}", tags=[*tags])
    async def delete(id: id_type) -> Response:  # type: ignore[valid-type]
        path = f"/vsfw/{kind}/{id}"
        existing(register.world, path)
        register.write(put={}, delete=[path])
        return Response()
