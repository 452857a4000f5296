"""/api/v1/vsfw/dead-letters: messages that were refused by who they were for, or given back too often."""

from fastapi import APIRouter, Response

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json
from manager_stub.broker import Broker, Unreachable


def router(broker: Broker) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/dead-letters", tags=["DeadLetters"])

    @routes.get("")
    async def count() -> Json:
        """How many there are, as of the broker's last statistics. The broker keeps the newest 1,000."""
        try:
            return {"result_count": await broker.dead_letters()}
        except Unreachable as error:
            raise Problem(503, f"the broker cannot be asked: {error}") from None

    @routes.delete("")
    async def forget() -> Response:
        """All of them: whoever has looked at the queue vsfw.dead needs them no more."""
        try:
            await broker.forget_dead_letters()
        except Unreachable as error:
            raise Problem(503, f"the broker cannot be told: {error}") from None
        return Response()

    return routes
