"""What hosts are asked and who waits for it: the manager's requests that have an answer.

Every host gets the same time. One that does not answer in it, or answers what cannot be read, has an answer
all the same: one that says so."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final
from uuid import uuid4

from manager_stub.register import Register
from vsfwd.protocol.messages import Reply, Request

PATIENCE_S: Final = 10.0


class Inquiry:
    def __init__(self, register: Register, patience_s: float = PATIENCE_S) -> None:
        self._register = register
        self._patience_s = patience_s
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply]]] = {}
        """By request, the host and its answer."""
        register.replied = self._replied
        register.unreadable = self._unreadable

    async def flows(self, hosts: Collection[str], minutes: int) -> Mapping[str, Reply]:
        """What each host saw in the last minutes. `error` says why there is nothing."""
        asked = {host: Request(str(uuid4()), "flows", minutes=minutes) for host in hosts}
        loop = asyncio.get_running_loop()
        answers = {request.id: (host, loop.create_future()) for host, request in asked.items()}
        self._waiting |= answers
        for host, request in asked.items():
            self._register.requests.add(host, request)
        self._register.wake()
        try:
            if answers:
                await asyncio.wait([answer for _, answer in answers.values()], timeout=self._patience_s)
        finally:
            for host, request in asked.items():
                del self._waiting[request.id]
                self._register.requests.remove(host, request)
        late = f"no answer within {self._patience_s:g} s"
        return {
            host: answer.result() if answer.done() else Reply(id, late)
            for id, (host, answer) in answers.items()
        }

    def _replied(self, host: str, reply: Reply) -> None:
        asked, answer = self._waiting.get(reply.id, ("", None))
        if answer is not None and asked == host and not answer.done():
            answer.set_result(reply)

    def _unreadable(self, host: str, reason: str) -> None:
        """It does not say to which question."""
        for id, (asked, answer) in self._waiting.items():
            if asked == host and not answer.done():
                answer.set_result(Reply(id, f"its answer was refused: {reason}"))
