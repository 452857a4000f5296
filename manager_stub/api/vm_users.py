"""/api/v1/vsfw/vms/{id}/users: who is logged on to a VM, as a context agent told."""

from fastapi import APIRouter

from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, existing
from manager_stub.components.context import GuestContext
from manager_stub.model import Uuid
from manager_stub.register import Register


def router(register: Register, context: GuestContext) -> APIRouter:
    routes = APIRouter(tags=["Vm"])

    @routes.get(f"{PREFIX}/vms/{{id}}/users")
    async def users(id: Uuid) -> Json:
        """`host` and `time` are of whoever told it, null where nobody did."""
        existing(register.world, f"/vsfw/vms/{id}")
        told = context.of(id)
        if told is None:
            return {"results": [], "result_count": 0, "host": None, "time": None}
        host, known = told
        found = [
            {"name": user.name, "domain": user.domain, "session": user.session, "since": user.since or None}
            for user in known.guest.users
        ]
        named = {"id": host, "display_name": register.hosts[host].display_name}
        return {"results": found, "result_count": len(found), "host": named, "time": known.time_ms}

    return routes
