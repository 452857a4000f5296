"""/api/v1/vsfw/addresses: which addresses vNICs were seen with, what that is worth, and who approves it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from manager_stub.addresses import Judged, State
from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import HostAddress, Strict, Uuid
from manager_stub.register import Register
from manager_stub.vnics import Vnics


class Named(Strict):
    vnic: Uuid
    address: HostAddress


def router(register: Register, vnics: Vnics) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/addresses", tags=["Address"])

    @routes.get("")
    async def list_addresses(page: Page, vnic: Uuid | None = None, state: State | None = None) -> Json:
        every = (each for judged in register.judgements.values() for each in judged)
        found = [each for each in every if vnic in (None, each.vnic) and state in (None, each.state)]
        return listed(found, page, _shown)

    @routes.post("", status_code=204)
    async def decide(body: Named, action: Annotated[Literal["approve", "revoke", "forget"], Query()]) -> None:
        """Approve an address that was seen, take that back, or forget that it was seen."""
        judged = {each.address: each for each in register.judgements.get(body.vnic, ())}
        if body.address not in judged:
            raise Problem(404, f"vNIC {body.vnic} was not seen with {body.address}", "address")
        if action == "approve" and judged[body.address].state is State.REFUSED:
            raise Problem(409, judged[body.address].reason, "address")
        if action == "forget":
            vnics.forget(body.vnic, body.address)
        else:
            vnics.approve(body.vnic, body.address, action == "approve")

    return routes


def _shown(judged: Judged) -> dict[str, Any]:
    """`expires` is in seconds since 1970, 0 where nothing ends it; `first_seen` in milliseconds; `server` the
    MAC address from which a lease came."""
    return {
        "vnic": judged.vnic,
        "address": judged.address,
        "source": judged.claimed.source.upper(),
        "server": judged.claimed.server,
        "state": judged.state,
        "reason": judged.reason,
        "approved": judged.claimed.approved,
        "host": judged.claimed.host,
        "first_seen": judged.claimed.first_seen_ms,
        "expires": judged.claimed.expires,
    }
