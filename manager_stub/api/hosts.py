"""/api/v1/vsfw/hosts: where each host stands, and that one is none any more."""

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.broker import Broker, Unreachable
from manager_stub.hosts import Host
from manager_stub.levels import Position
from manager_stub.model import Uuid
from manager_stub.register import Register

MAX_SHOWN: Final = 100
"""Reasons why what a host says does not count."""


def router(register: Register, broker: Broker) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/hosts", tags=["Host"])

    @routes.get("")
    async def list_hosts(page: Page) -> Json:
        connected = await connected_hosts(broker)
        return listed(register.hosts.values(), page, lambda host: _shown(host, connected))

    @routes.get("/{id}")
    async def read(id: Uuid) -> Json:
        return _shown(existing_host(register, id), await connected_hosts(broker))

    @routes.delete("/{id}")
    async def remove(id: Uuid) -> Response:
        """Revoke the host: the broker closes its connection and forgets it."""
        existing_host(register, id)
        register.check_removable(id)
        try:
            await broker.remove_host(id)
        except Unreachable as error:
            raise Problem(503, f"the broker cannot revoke it: {error}") from None
        register.remove_host(id)
        return Response()

    return routes


def existing_host(register: Register, id: str) -> Host:
    host = register.hosts.get(id)
    if host is None:
        raise Problem(404, f"there is no host {id}")
    return host


async def connected_hosts(broker: Broker) -> frozenset[str] | None:
    """None when the broker cannot be asked."""
    try:
        return await broker.connected_hosts()
    except Unreachable:
        return None


def _shown(host: Host, connected: frozenset[str] | None) -> Json:
    """`connected` is null when the broker cannot be asked."""
    return {
        "id": host.id,
        "display_name": host.display_name,
        "wanted": _position(host.level.wanted_position),
        "applied": _position(host.level.applied),
        "in_sync": host.level.applied == host.level.wanted_position,
        "connected": None if connected is None else host.id in connected,
        "last_seen": host.last_seen_ms,
        "vsfwd": host.vsfwd,
        "refusals": msgspec.to_builtins(host.refusals),
        "problem": host.problem,
        "vnics": msgspec.to_builtins(host.bindings),
        "disputed_vnics": msgspec.to_builtins(host.disputed),
        "disputes": host.disputes,
        "left_out": host.left_out[:MAX_SHOWN],
        "reports_refused": host.reports_refused,
    }


def _position(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "generation": position.generation, "digest": position.digest}
