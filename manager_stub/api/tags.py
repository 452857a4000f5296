"""/policy/api/v1/infra/tags: the tags there are, what has them, and one tag to and from many VMs."""

from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from manager_stub.api.fabric import existing_vm, tagged
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import Entity, Id, Strict, Tag, Uuid
from manager_stub.register import Register
from manager_stub.world import Stored, id_of


class Resources(Strict):
    resource_type: Literal["VirtualMachine"]
    resource_ids: Annotated[list[Uuid], Field(max_length=1000)]


class TagOperation(Strict):
    """NSX's bulk operation: one tag, to and from many VMs."""

    resource_type: Literal["TagBulkOperation"] = "TagBulkOperation"
    id: str | None = None
    display_name: str | None = None
    tag: Tag
    apply_to: Annotated[list[Resources], Field(max_length=10, default_factory=list)]
    remove_from: Annotated[list[Resources], Field(max_length=10, default_factory=list)]


def router(register: Register) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/infra/tags", tags=["Tag"])

    def tagged_objects() -> list[tuple[Tag, Stored[Entity]]]:
        kinds = register.world.kinds.values()
        every = (stored for objects in kinds for stored in objects.values())
        return [(tag, stored) for stored in every for tag in stored.body.tags]

    @routes.get("")
    async def list_tags(page: Page, scope: str | None = None, tag: str | None = None) -> Json:
        counts = Counter((each.scope, each.tag) for each, _ in tagged_objects())
        found = [key for key in sorted(counts) if scope in (None, key[0]) and tag in (None, key[1])]
        return listed(found, page, lambda key: _counted(key, counts[key]))

    @routes.get("/effective-resources")
    async def list_resources(
        page: Page,
        tag: Annotated[str, Query(max_length=256)],
        scope: Annotated[str, Query(max_length=128)] = "",
    ) -> Json:
        wanted = Tag(scope=scope, tag=tag)
        return listed([stored for each, stored in tagged_objects() if each == wanted], page, _resource)

    @routes.put("/tag-operations/{id}")
    async def tag_many(id: Id, body: TagOperation) -> Json:
        """Done when it is answered, and not kept."""
        named = {vm: None for each in (*body.apply_to, *body.remove_from) for vm in each.resource_ids}
        vms = {vm: existing_vm(register.world, vm).body for vm in named}
        for resources in body.apply_to:
            vms |= {vm: tagged(vms[vm], "add_tags", [body.tag]) for vm in resources.resource_ids}
        for resources in body.remove_from:
            vms |= {vm: tagged(vms[vm], "remove_tags", [body.tag]) for vm in resources.resource_ids}
        register.write(put={f"/vsfw/vms/{vm}": after for vm, after in vms.items()})
        path = f"/infra/tags/tag-operations/{id}"
        return {**body.model_dump(exclude_none=True), "id": id, "path": path, "status": "Success"}

    return routes


def _counted(key: tuple[str, str], count: int) -> Json:
    return {"scope": key[0], "tag": key[1], "tagged_objects_count": count}


def _resource(stored: Stored[Entity]) -> Json:
    return {
        "target_type": stored.body.model_dump()["resource_type"],
        "target_id": id_of(stored.path),
        "target_display_name": stored.name,
    }
