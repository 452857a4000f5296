"""VMs and vNICs in NSX's shape, and the calls that tag VMs: below /api/v1/fabric, and the same below both
places of the Policy API."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AliasChoices, Field

from manager_stub.api.errors import Problem
from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import Strict, Tag, Uuid, Vm, Vnic
from manager_stub.register import Register
from manager_stub.world import Stored, World, id_of

_REALIZED = "/policy/api/v1/infra/realized-state"
_POINT = f"{_REALIZED}/enforcement-points/default"
MAX_TAGS = 30


Places = dict[str, tuple[str, str]]
"""Host and device where vNICs are plugged, by vNIC."""


class TagUpdate(Strict):
    """`external_id` is `virtual_machine_id` in the Policy API."""

    external_id: Annotated[Uuid, Field(validation_alias=AliasChoices("external_id", "virtual_machine_id"))]
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)]


def router(register: Register) -> APIRouter:
    routes = APIRouter(tags=["Fabric"])
    for home in ("/api/v1/fabric", "/policy/api/v1/fabric", _REALIZED, _POINT):
        _add_vms(routes, register, f"{home}/virtual-machines")
    for home in ("/api/v1/fabric", "/policy/api/v1/fabric", _POINT):
        _add_vifs(routes, register, f"{home}/vifs")

    @routes.get(f"{_POINT}/virtual-machines/{{id}}")
    async def read(id: Uuid) -> Json:
        return vm_shown(existing_vm(register.world, id), places(register))

    return routes


def _add_vms(routes: APIRouter, register: Register, url: str) -> None:
    @routes.get(url)
    async def list_vms(
        page: Page,
        display_name: str | None = None,
        external_id: str | None = None,
        host_id: str | None = None,
    ) -> Json:
        where = places(register)
        found = [
            vm
            for vm in register.world.vms.values()
            if display_name in (None, vm.name)
            and external_id in (None, id_of(vm.path))
            and host_id in (None, _host(vm, where))
        ]
        return listed(found, page, lambda vm: vm_shown(vm, where))

    @routes.post(url, status_code=204)
    async def update_tags(
        body: TagUpdate, action: Annotated[Literal["add_tags", "remove_tags", "update_tags"], Query()]
    ) -> None:
        """Add to, take from or replace the tags of a VM."""
        vm = existing_vm(register.world, body.external_id)
        register.write(put={vm.path: tagged(vm.body, action, body.tags)})


def _add_vifs(routes: APIRouter, register: Register, url: str) -> None:
    @routes.get(url)
    async def list_vifs(
        page: Page,
        owner_vm_id: str | None = None,
        host_id: str | None = None,
        display_name: str | None = None,
    ) -> Json:
        where = places(register)
        every = ((vm, card) for vm in register.world.vms.values() for card in vm.body.vnics)
        shown = (vif_shown(register, vm, card, where) for vm, card in every)
        found = [
            vif
            for vif in shown
            if owner_vm_id in (None, vif["owner_vm_id"])
            and host_id in (None, vif.get("host_id"))
            and display_name in (None, vif["display_name"])
        ]
        return listed(found, page, lambda vif: vif)


def existing_vm(world: World, id: str) -> Stored[Vm]:
    vm = world.vms.get(f"/vsfw/vms/{id}")
    if vm is None:
        raise Problem(404, f"there is no VM {id}", "external_id")
    return vm


def tagged(vm: Vm, action: str, tags: list[Tag]) -> Vm:
    after = tags
    if action == "add_tags":
        after = [*vm.tags, *(tag for tag in tags if tag not in vm.tags)]
    elif action == "remove_tags":
        after = [tag for tag in vm.tags if tag not in tags]
    if len(after) > MAX_TAGS:
        raise Problem(400, f"{len(after)} are more than the {MAX_TAGS} that a VM may have", "tags")
    return vm.model_copy(update={"tags": after})


def places(register: Register) -> Places:
    return {
        binding.vnic: (host.id, binding.device)
        for host in register.hosts.values()
        for binding in host.bindings
    }


def _host(vm: Stored[Vm], where: Places) -> str | None:
    return next((where[card.id][0] for card in vm.body.vnics if card.id in where), None)


def vm_shown(vm: Stored[Vm], where: Places) -> Json:
    id, host, body = id_of(vm.path), _host(vm, where), vm.body
    known = {"os_name": body.os_name, "computer_name": body.computer_name}
    running = "VM_RUNNING" if host else "UNKNOWN"
    found = {
        "resource_type": "VirtualMachine",
        "external_id": id,
        "display_name": vm.name,
        "tags": [tag.model_dump() for tag in vm.body.tags],
        "type": "REGULAR",
        "power_state": running if body.power_state == "UNKNOWN" else body.power_state,
        "guest_info": {field: text for field, text in known.items() if text},
        "compute_ids": [f"externalId:{id}", f"instanceUuid:{id}"],
        "_last_sync_time": vm.modified_ms,
    }
    return found | {"host_id": host} if host else found


def vif_shown(register: Register, vm: Stored[Vm], card: Vnic, where: Places) -> Json:
    host, device = where.get(card.id, (None, ""))
    found = {
        "resource_type": "VirtualNetworkInterface",
        "external_id": card.id,
        "display_name": device or card.id,
        "owner_vm_id": id_of(vm.path),
        "owner_vm_type": "REGULAR",
        "lport_attachment_id": card.id,
        "mac_address": card.mac,
        "device_name": device,
        "ip_address_info": list(_address_info(register, card)),
    }
    return found | {"host_id": host} if host else found


def _address_info(register: Register, card: Vnic) -> Iterator[dict[str, Any]]:
    """Addresses by where they are known from; USER for what is typed, which NSX has no word for."""
    if card.addresses:
        yield {"source": "USER", "ip_addresses": card.addresses}
    seen: dict[str, list[str]] = {}
    for judged in register.judgements.get(card.id, ()):
        seen.setdefault(judged.claimed.source.upper(), []).append(judged.address)
    yield from ({"source": source, "ip_addresses": addresses} for source, addresses in seen.items())
