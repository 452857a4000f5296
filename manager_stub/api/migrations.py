"""/api/v1/vsfw/migrations: VMs that move from host to host while they run."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import Strict, Uuid
from manager_stub.moves.move import Move, State
from manager_stub.moves.moves import Moves
from manager_stub.register import Register
from vsfwd.amqp import Link
from vsfwd.protocol.migration import Step


class Migration(Strict):
    """`target`: the id of a host."""

    vm: Uuid
    target: Uuid


def router(register: Register, moves: Moves, link: Link) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/migrations", tags=["Migration"])

    @routes.post("", status_code=201)
    async def begin(body: Migration) -> Json:
        """Answers when the target has the policy and what the VM takes along so far, and the VM may leave; or
        why it may not: 409, and nothing has happened to it."""
        if link.absence:
            raise Problem(503, f"nobody can be prepared: {link.absence}")
        move = await moves.prepared(moves.begin(body.vm, body.target).id)
        if not move.is_open and move.state is not State.ACTIVE:
            raise Problem(409, f"the migration has {move.state}: {move.reason}")
        return _shown(register, move)

    @routes.get("")
    async def list_migrations(page: Page) -> Json:
        """The newest first."""
        return listed(reversed(moves.moves.values()), page, lambda move: _shown(register, move))

    @routes.get("/{id}")
    async def read(id: Uuid) -> Json:
        return _shown(register, existing(id))

    @routes.post("/{id}", status_code=202)
    async def order(id: Uuid, action: Annotated[Literal["freeze", "activate"], Query()]) -> Json:
        """By word of the manager what otherwise the hypervisor says at the source, or the VM at the
        target."""
        existing(id)
        return _shown(register, moves.order(id, Step(action)))

    @routes.delete("/{id}")
    async def abort(id: Uuid) -> Json:
        """The VM stays where it is, and the target forgets it."""
        existing(id)
        return _shown(register, moves.abort(id))

    def existing(id: str) -> Move:
        move = moves.moves.get(id)
        if move is None:
            raise Problem(404, f"there is no migration {id}")
        return move

    return routes


def _shown(register: Register, move: Move) -> Json:
    vm = register.world.vms.get(f"/vsfw/vms/{move.vm}")
    return {
        "id": move.id,
        "vm": {"id": move.vm, "display_name": vm.name if vm else ""},
        "source": _named(register, move.source),
        "target": _named(register, move.target),
        "vnics": [each.vnic for each in move.vnics],
        "state": str(move.state),
        "reason": move.reason,
        "flows": move.flows,
        "bytes": move.bytes,
        "announced": not move.pulled,
        "requested_by": move.user,
        "begin_time": move.begun_ms,
        "last_time": move.changed_ms,
        "expire_time": move.expires_ms,
    }


def _named(register: Register, host: str) -> Json:
    known = register.hosts.get(host)
    return {"id": host, "display_name": known.display_name if known else ""}
