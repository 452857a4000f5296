"""/api/v1/vsfw/dead-letters: messages that were refused by who they were for, or given back too often."""

from typing import Final

from fastapi import APIRouter, Response

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json
from manager_stub.broker import Broker, Unreachable
from manager_stub.dead_letters import DeadLetter, why
from manager_stub.register import Register

SHOWN: Final = 100


def router(register: Register, broker: Broker) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/dead-letters", tags=["DeadLetters"])

    @routes.get("")
    async def read() -> Json:
        """How many there are, as of the broker's last statistics, and the oldest hundred: which host said it,
        or was to hear it, and why nobody took it. The broker keeps the newest 1,000."""
        try:
            count = await broker.dead_letters()
            letters = await broker.oldest_dead_letters(SHOWN) if count else []
        except Unreachable as error:
            raise Problem(503, f"the broker cannot be asked: {error}") from None
        return {"result_count": count, "results": [_shown(register, each) for each in letters]}

    @routes.delete("")
    async def forget() -> Response:
        """All of them: whoever has looked at the queue vsfw.dead needs them no more."""
        try:
            await broker.forget_dead_letters()
        except Unreachable as error:
            raise Problem(503, f"the broker cannot be told: {error}") from None
        return Response()

    return routes


def _shown(register: Register, letter: DeadLetter) -> Json:
    host = register.hosts.get(letter.host)
    return {
        "host": {"id": letter.host, "display_name": host.display_name if host else ""},
        "queue": letter.queue,
        "routing_key": letter.key,
        "reason": letter.reason,
        "description": why(letter.host, letter.to_host, letter.reason, register.hosts),
        "time": letter.time_ms,
        "bytes": letter.size,
    }
