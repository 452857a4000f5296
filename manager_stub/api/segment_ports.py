"""/infra/segments/{id}/ports: vNICs in the shape of NSX's segment ports.

A port is there because a VM has a vNIC on that segment: nobody makes or deletes one here. Its name and its
tags are what a client may say; they are kept at the VM, whose revision is the port's.
"""

from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX, Patch
from manager_stub.api.objects import Json, Page, check_revision, existing, listed
from manager_stub.model import READ_ONLY, Id, Shown, Tag, Text, Uuid, Vm, Vnic
from manager_stub.register import Register
from manager_stub.world import Stored, World

Port = tuple[Stored[Vm], Vnic]
_HOME = "/infra/segments/{segment}/ports"


class SegmentPort(Shown):
    """What a body says of a port. What it says beside name and tags has to be what the port has."""

    read_only: ClassVar[frozenset[str]] = READ_ONLY

    resource_type: Literal["SegmentPort"] = "SegmentPort"
    id: Uuid | None = None
    display_name: Text | None = None
    description: Literal[""] = ""
    tags: Annotated[list[Tag], Field(max_length=30, default_factory=list)]
    attachment: dict[str, Any] | None = None
    address_bindings: list[dict[str, Any]] | None = None
    admin_state: Literal["UP"] = "UP"
    revision: Annotated[int | None, Field(alias="_revision")] = None


def router(register: Register) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["SegmentPort"])

    @routes.get(_HOME)
    async def list_ports(segment: Id, page: Page) -> Json:
        path = existing(register.world, f"/infra/segments/{segment}").path
        every = ((vm, card) for vm in register.world.vms.values() for card in vm.body.vnics)
        return listed([port for port in every if port[1].segment_path == path], page, _shown)

    @routes.get(f"{_HOME}/{{id}}")
    async def read(segment: Id, id: Uuid) -> Json:
        return _shown(_existing(register.world, segment, id))

    @routes.put(f"{_HOME}/{{id}}")
    async def put(segment: Id, id: Uuid, body: SegmentPort) -> Json:
        """Names and tags the port."""
        port = _existing(register.world, segment, id)
        check_revision(port[0], body.revision, needed=True)
        _write(register, port, body)
        return _shown(_existing(register.world, segment, id))

    @routes.patch(f"{_HOME}/{{id}}")
    async def patch(segment: Id, id: Uuid, body: Patch) -> Response:
        port = _existing(register.world, segment, id)
        card = {"display_name": port[1].display_name, "tags": [tag.model_dump() for tag in port[1].tags]}
        after = SegmentPort.model_validate(card | body)
        check_revision(port[0], after.revision)
        _write(register, port, after)
        return Response()

    return routes


def _existing(world: World, segment: str, id: str) -> Port:
    vm = world.vnics.get(id)
    for card in vm.body.vnics if vm else ():
        if vm and card.id == id and card.segment_path == f"/infra/segments/{segment}":
            return vm, card
    raise Problem(404, f"the path=[/infra/segments/{segment}/ports/{id}] is invalid: there is no such object")


def _write(register: Register, port: Port, body: SegmentPort) -> None:
    vm, card = port
    shown = _shown(port)
    for field in ("id", "attachment", "address_bindings"):
        said = getattr(body, field)
        if said is not None and said != shown[field]:
            raise Problem(400, "is the VM's matter: of a port, display_name and tags are changed here", field)
    named = None if body.display_name == card.id else body.display_name
    after = card.model_copy(update={"display_name": named, "tags": body.tags})
    vnics = [after if each.id == card.id else each for each in vm.body.vnics]
    register.write(put={vm.path: vm.body.model_copy(update={"vnics": vnics})})


def _shown(port: Port) -> Json:
    vm, card = port
    return {
        "resource_type": "SegmentPort",
        "id": card.id,
        "display_name": card.display_name or card.id,
        "tags": [tag.model_dump() for tag in card.tags],
        "attachment": {"id": card.id},
        "address_bindings": [{"ip_address": each, "mac_address": card.mac} for each in card.addresses],
        "admin_state": "UP",
        "path": f"{card.segment_path}/ports/{card.id}",
        "relative_path": card.id,
        "parent_path": card.segment_path,
        "unique_id": card.id,
        "marked_for_delete": False,
        "overridden": False,
        "_system_owned": False,
        "_create_time": vm.created_ms,
        "_last_modified_time": vm.modified_ms,
        "_revision": vm.revision,
    }
