"""/api/v1/vsfw/disputes: vNICs that a host claims while another has them, and who is to have them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import HostId, Strict, Uuid
from manager_stub.plugged import disputes
from manager_stub.register import Register
from manager_stub.vnics import Vnics
from vsfwd.protocol.messages import Binding


class Decision(Strict):
    vnic: Uuid
    host: HostId


def router(register: Register, vnics: Vnics) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/disputes", tags=["Dispute"])

    @routes.get("")
    async def list_disputes(page: Page) -> Json:
        return listed(_all(register), page, lambda each: each)

    @routes.post("", status_code=204)
    async def settle(body: Decision, action: Annotated[Literal["settle"], Query()]) -> None:
        """Give a vNIC, and the VM it is of, to one of the hosts that claim it."""
        if not any(each["vnic"] == body.vnic for each in _all(register)):
            raise Problem(404, f"vNIC {body.vnic} is not disputed", "vnic")
        host = register.hosts.get(body.host)
        if host is None or body.vnic not in {each.vnic for each in (*host.bindings, *host.disputed)}:
            raise Problem(409, f"host {body.host} does not say that it has vNIC {body.vnic}", "host")
        vnics.settle(body.vnic, body.host)

    return routes


def _all(register: Register) -> list[Json]:
    return [_shown(register, *each) for each in disputes(register.world, register.hosts.values())]


def _shown(register: Register, claimant: str, binding: Binding, holder: str) -> Json:
    """`host` is null where several claim the vNIC and none has it."""
    vm = register.world.vnics.get(binding.vnic)
    found = {"vnic": binding.vnic, "vm": vm.path[-36:] if vm else binding.vm}
    return found | {"claimed_by": _named(register, claimant), "host": _named(register, holder)}


def _named(register: Register, host: str) -> Json | None:
    return {"id": host, "display_name": register.hosts[host].display_name} if host else None
