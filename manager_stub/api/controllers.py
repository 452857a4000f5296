"""/api/v1/vsfw/controllers: which controllers there are, for the control-plane agents of the hosts."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from pydantic import Field, field_validator

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json
from manager_stub.components.control_plane import ControlPlane
from manager_stub.model import HostAddress, Id, Strict, patterns
from vsfwd.protocol.control_plane import MAX_CONTROLLERS, PORT, Controller


class ControllerBody(Strict):
    id: Id
    address: HostAddress
    port: Annotated[int, Field(ge=1, le=65535)] = PORT
    thumbprint: Annotated[str, Field(pattern=patterns.THUMBPRINT)] = ""


class ControllersBody(Strict):
    """`generation`, where it is there, is that of the list that is replaced."""

    controllers: Annotated[list[ControllerBody], Field(max_length=MAX_CONTROLLERS)]
    generation: int | None = None

    @field_validator("controllers")
    @classmethod
    def _each_once(cls, controllers: list[ControllerBody]) -> list[ControllerBody]:
        if len({each.id for each in controllers}) != len(controllers):
            raise ValueError("an id is there twice")
        return controllers


def router(control_plane: ControlPlane) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/controllers", tags=["Controller"])

    @routes.get("")
    async def read() -> Json:
        return _shown(control_plane)

    @routes.put("")
    async def put(body: ControllersBody) -> Json:
        """Stored, and sent to every host."""
        current = control_plane.list.generation
        if body.generation not in (None, current):
            raise Problem(412, f"the list is at generation {current}, not {body.generation}", "generation")
        control_plane.put([Controller(**each.model_dump()) for each in body.controllers])
        return _shown(control_plane)

    return routes


def _shown(control_plane: ControlPlane) -> Json:
    kept = control_plane.list
    shown: list[Any] = [msgspec.structs.asdict(each) for each in kept.controllers]
    return {"generation": kept.generation, "controllers": shown}
