"""A vsfwd as its components see it: the real socket, and a list in place of the broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.harness.waiting import eventually
from vsfwd.config import SHIPPED, Component
from vsfwd.ipc.bus import Bus
from vsfwd.ipc.rights import Rights
from vsfwd.ipc.server import Client, IpcServer
from vsfwd.protocol.components import ComponentEvent, ComponentMessage
from vsfwd.relay import NotConnected, Relay

DEADLINE_S = 20
AGENT, OTHER, STRANGER = 1101, 1102, 1103
COMPONENTS = {
    "agent": Component(users=(AGENT,), topics=("users", "facts.*")),
    "other": Component(users=(OTHER,), topics=("news",)),
    "hello": Component(users=(), topics=("hello",)),
    **SHIPPED,
}


class Host:
    """What vsfwd is to components. `said`: what the broker got; `away`: there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[ComponentEvent] = []
        self.away = False
        self.uid = 0
        self.rights = Rights(COMPONENTS)
        self.relay = Relay(self._tell)

    async def _tell(self, event: ComponentEvent) -> None:
        if self.away:
            raise NotConnected("no broker")
        self.said.append(event)

    def interfaces(self, client: Client) -> tuple[Bus]:
        client.uid = self.uid
        return (Bus(client, self.rights, self.relay),)

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """Topics and bodies of what was said."""
        return [(each.topic, each.body) for each in self.said if isinstance(each, ComponentMessage)]

    def send(self, component: str, topic: str, call_s: int = 0, **body: Any) -> tuple[str, Any]:
        """From the manager: its id, and what is answered at once."""
        message = ComponentMessage(str(uuid4()), component, topic, body, call_s)
        return message.id, self.relay.take(message)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Host]:
    host = Host(path)
    task = asyncio.create_task(IpcServer(path, "1.0", host.interfaces).serve())
    try:
        yield host
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    await eventually(condition, "what is waited for", DEADLINE_S)
