"""Hosts as NSX's transport nodes, their status, and the alarms that follow from it: /api/v1/transport-nodes,
/api/v1/alarms, and the same in the Policy API."""

from collections.abc import Iterator, Sequence
from typing import Final

from fastapi import APIRouter

from manager_stub.addresses import State
from manager_stub.api.disputes import all_disputes
from manager_stub.api.hosts import connected_hosts, existing_host
from manager_stub.api.objects import Json, Page, listed
from manager_stub.broker import Broker
from manager_stub.hosts import Host
from manager_stub.model import Uuid
from manager_stub.register import Register

_HOMES: Final = (
    "/api/v1/transport-nodes",
    "/policy/api/v1/infra/sites/default/enforcement-points/default/host-transport-nodes",
)

_MOST: Final = 10
"""vNICs, or reasons, that an alarm names."""
_STATES: Final = ("UP", "DEGRADED", "DOWN", "UNKNOWN")


def router(register: Register, broker: Broker) -> APIRouter:
    routes = APIRouter(tags=["TransportNode"])
    for home in _HOMES:
        _add(routes, register, broker, home)

    for home in ("/api/v1/alarms", "/policy/api/v1/alarms"):

        @routes.get(home)
        async def list_alarms(page: Page) -> Json:
            """What is wrong now. An alarm is gone with its cause."""
            connected = await connected_hosts(broker)
            hosts = register.hosts.values()
            alarms = [alarm for host in hosts for alarm in _alarms(host, _is_up(host, connected))]
            alarms += [*_disputed(register), *_duplicate(register)]
            return listed(alarms, page, lambda alarm: alarm)

    return routes


def _add(routes: APIRouter, register: Register, broker: Broker, home: str) -> None:
    @routes.get(home)
    async def list_nodes(page: Page) -> Json:
        return listed(register.hosts.values(), page, _node)

    @routes.get(f"{home}/status")
    async def all_status() -> Json:
        """How many nodes are up, degraded, down or unknown."""
        connected = await connected_hosts(broker)
        states = [_state(host, _is_up(host, connected)) for host in register.hosts.values()]
        return {
            f"{state.lower()}_count": states.count(state) for state in ("UP", "DEGRADED", "DOWN", "UNKNOWN")
        }

    @routes.get(f"{home}/{{id}}")
    async def read(id: Uuid) -> Json:
        return _node(existing_host(register, id))

    @routes.get(f"{home}/{{id}}/status")
    async def status(id: Uuid) -> Json:
        host = existing_host(register, id)
        up = _is_up(host, await connected_hosts(broker))
        channel = {True: "UP", False: "DOWN", None: "UNKNOWN"}[up]
        return {
            "node_uuid": host.id,
            "node_display_name": host.display_name,
            "status": _state(host, up),
            "control_connection_status": {"status": channel},
            "mgmt_connection_status": channel,
        }

    @routes.get(f"{home}/{{id}}/state")
    async def state(id: Uuid) -> Json:
        """Whether the node has what it is to have."""
        host = existing_host(register, id)
        current = "success" if _realised(host) else "failed" if _trouble(host) else "in_progress"
        return {"transport_node_id": host.id, "state": current, "failure_message": _trouble(host)}


def _node(host: Host) -> Json:
    return {
        "resource_type": "TransportNode",
        "id": host.id,
        "node_id": host.id,
        "display_name": host.display_name,
        "node_deployment_info": {"resource_type": "HostNode", "id": host.id, "external_id": host.id},
    }


def _is_up(host: Host, connected: frozenset[str] | None) -> bool | None:
    """None where the broker cannot be asked."""
    return None if connected is None else host.id in connected


def _state(host: Host, up: bool | None) -> str:
    if not up:
        return "UNKNOWN" if up is None else "DOWN"
    return "DEGRADED" if _trouble(host) else "UP"


def _realised(host: Host) -> bool:
    return host.level.applied == host.level.wanted_position and not _trouble(host)


def _trouble(host: Host) -> str:
    refused = "; ".join(f"{each.kind} {each.id}: {each.reason}" for each in host.refusals)
    return host.problem or refused


def _alarms(host: Host, up: bool | None) -> Iterator[Json]:
    if up is False:
        what = "The host has no connection to the broker."
        yield _alarm(host, "communication", "management_channel_to_transport_node_down", what)
    if _trouble(host):
        yield _alarm(host, "distributed_firewall", "realization_failed", _trouble(host))
    if host.left_out:
        what = f"The host reports what cannot be: {_first(host.left_out)}"
        yield _alarm(host, "distributed_firewall", "report_refused", what)


def _disputed(register: Register) -> Iterator[Json]:
    """One for each host that claims what others have."""
    told: dict[str, list[str]] = {}
    for each in all_disputes(register):
        whose = f"host {each['host']['display_name']} ({each['host']['id']})" if each["host"] else "nobody"
        told.setdefault(each["claimed_by"]["id"], []).append(f"{each['vnic']} of {whose}")
    for id, vnics in told.items():
        host = register.hosts[id]
        what = f"Host {host.display_name} ({id}) claims vNICs that are not its own: {_first(vnics)}"
        yield _alarm(host, "distributed_firewall", "vnic_disputed", what)


def _duplicate(register: Register) -> Iterator[Json]:
    """One for each host that tells of addresses of others."""
    told: dict[str, list[str]] = {}
    for judged in register.judgements.values():
        for each in judged:
            if each.state is State.REFUSED and each.claimed.host in register.hosts:
                what = f"{each.address} at vNIC {each.vnic}, but {each.reason}"
                told.setdefault(each.claimed.host, []).append(what)
    for id, addresses in told.items():
        what = f"The host tells of addresses that others have: {_first(addresses)}"
        yield _alarm(register.hosts[id], "distributed_firewall", "duplicate_ip_address", what)


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return "; ".join(texts[:_MOST]) + more


def _alarm(host: Host, feature: str, event: str, description: str) -> Json:
    return {
        "id": f"{event}.{host.id}",
        "feature_name": feature,
        "event_type": event,
        "severity": "CRITICAL",
        "status": "OPEN",
        "node_id": host.id,
        "node_display_name": host.display_name,
        "entity_id": host.id,
        "description": description,
        "last_reported_time": host.last_seen_ms,
    }
