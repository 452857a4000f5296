"""/api/v1/vsfw/hosts: where each host stands, and that one is none any more."""

from typing import Annotated, Any, Final, Literal

import msgspec
from cryptography import x509
from fastapi import APIRouter, Query, Response

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.broker import Broker, Unreachable
from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.hosts import Host
from manager_stub.levels import Position
from manager_stub.model import HostId
from manager_stub.presence import Presence
from manager_stub.register import Register
from vsfwd.amqp import Link
from vsfwd.protocol.messages import Binding

MAX_SHOWN: Final = 100
"""Reasons why what a host says does not count."""


def router(
    register: Register, presence: Presence, broker: Broker, credentials: Credentials, link: Link
) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/hosts", tags=["Host"])

    @routes.get("")
    async def list_hosts(page: Page) -> Json:
        return listed(register.hosts.values(), page, shown)

    @routes.get("/{id}")
    async def read(id: HostId) -> Json:
        return shown(existing_host(register, id))

    @routes.post("/{id}", status_code=202)
    async def force_sync(id: HostId, action: Annotated[Literal["force_sync"], Query()]) -> Json:
        """Send the host all that it is to have, whatever it says it has."""
        existing_host(register, id)
        register.force_sync(id)
        return shown(register.hosts[id])

    @routes.delete("/{id}")
    async def remove(id: HostId) -> Response:
        """Revoke the host: the broker closes its connection and forgets it."""
        existing_host(register, id)
        register.check_removable(id)
        try:
            await broker.remove_host(id)
        except Unreachable as error:
            raise Problem(503, f"the broker cannot revoke it: {error}") from None
        register.remove_host(id)
        return Response()

    def shown(host: Host) -> Json:
        """`connected` is null where it is not known, and `no_broker` says why, where that is it."""
        return _shown(host, presence, credentials) | {"no_broker": link.absence}

    return routes


def existing_host(register: Register, id: str) -> Host:
    host = register.hosts.get(id)
    if host is None:
        raise Problem(404, f"there is no host {id}")
    return host


def _shown(host: Host, presence: Presence, credentials: Credentials) -> Json:
    return {
        "id": host.id,
        "display_name": host.display_name,
        "wanted": _position(host.level.wanted_position),
        "applied": _position(host.level.applied),
        "in_sync": host.level.in_sync,
        "connected": presence.is_up(host.id),
        "connection_since": presence.since_ms(host.id),
        "last_seen": host.last_seen_ms,
        "certificate": _certificate(credentials.of(host.id)),
        "vsfwd": host.vsfwd,
        "refusals": msgspec.to_builtins(host.refusals),
        "problem": host.problem,
        "vnics": [_vnic(host, binding) for binding in host.bindings],
        "disputed_vnics": msgspec.to_builtins(host.disputed),
        "disputes": host.disputes,
        "left_out": host.left_out[:MAX_SHOWN],
        "reports_refused": host.reports_refused,
    }


def _vnic(host: Host, binding: Binding) -> Json:
    """With the generation it is to have and the one it has: the host's, unless it refused the vNIC."""
    refused = [each.reason for each in host.refusals if (each.kind, each.id) == ("vnics", binding.vnic)]
    shown: Json = msgspec.to_builtins(binding)
    applied = None if refused else host.level.applied.generation
    return {**shown, "wanted": host.level.generation, "applied": applied, "refused": refused}


def _position(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "generation": position.generation, "digest": position.digest}


def _certificate(credential: Credential) -> Json | None:
    """None: a release of before has not kept it."""
    if not credential.certificate:
        return None
    certificate = x509.load_pem_x509_certificate(credential.certificate.encode())
    return {
        "subject": credential.login,
        "serial_number": f"{certificate.serial_number:x}",
        "not_after": int(certificate.not_valid_after_utc.timestamp() * 1000),
    }
