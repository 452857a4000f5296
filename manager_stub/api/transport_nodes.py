"""Hosts as NSX's transport nodes, and their status: /api/v1/transport-nodes, and in the Policy API."""

from typing import Final

from fastapi import APIRouter

from manager_stub.api.hosts import existing_host
from manager_stub.api.objects import Json, Page, listed
from manager_stub.hosts import Host, trouble
from manager_stub.model import HostId
from manager_stub.presence import Presence
from manager_stub.register import Register

_HOMES: Final = (
    "/api/v1/transport-nodes",
    "/policy/api/v1/infra/sites/default/enforcement-points/default/host-transport-nodes",
)

_STATES: Final = ("UP", "DEGRADED", "DOWN", "UNKNOWN")


def router(register: Register, presence: Presence) -> APIRouter:
    routes = APIRouter(tags=["TransportNode"])
    for home in _HOMES:
        _add(routes, register, presence, home)
    return routes


def _add(routes: APIRouter, register: Register, presence: Presence, home: str) -> None:
    @routes.get(home)
    async def list_nodes(page: Page) -> Json:
        return listed(register.hosts.values(), page, _node)

    @routes.get(f"{home}/status")
    async def all_status() -> Json:
        """How many nodes are up, degraded, down or unknown."""
        states = [_state(host, presence.is_up(host.id)) for host in register.hosts.values()]
        return {f"{state.lower()}_count": states.count(state) for state in _STATES}

    @routes.get(f"{home}/{{id}}")
    async def read(id: HostId) -> Json:
        return _node(existing_host(register, id))

    @routes.get(f"{home}/{{id}}/status")
    async def status(id: HostId) -> Json:
        host = existing_host(register, id)
        up = presence.is_up(host.id)
        channel = {True: "UP", False: "DOWN", None: "UNKNOWN"}[up]
        return {
            "node_uuid": host.id,
            "node_display_name": host.display_name,
            "status": _state(host, up),
            "control_connection_status": {"status": channel},
            "mgmt_connection_status": channel,
            "control_connection_since": presence.since_ms(host.id),
            "last_heartbeat_timestamp": host.last_seen_ms,
            "software_version": host.vsfwd,
        }

    @routes.get(f"{home}/{{id}}/state")
    async def state(id: HostId) -> Json:
        """Whether the node has what it is to have."""
        host = existing_host(register, id)
        current = "success" if _realised(host) else "failed" if trouble(host) else "in_progress"
        return {"transport_node_id": host.id, "state": current, "failure_message": trouble(host)}


def _node(host: Host) -> Json:
    return {
        "resource_type": "TransportNode",
        "id": host.id,
        "node_id": host.id,
        "display_name": host.display_name,
        "node_deployment_info": {"resource_type": "HostNode", "id": host.id, "external_id": host.id},
    }


def _state(host: Host, up: bool | None) -> str:
    if not up:
        return "UNKNOWN" if up is None else "DOWN"
    return "DEGRADED" if trouble(host) else "UP"


def _realised(host: Host) -> bool:
    return host.level.in_sync and not trouble(host)
