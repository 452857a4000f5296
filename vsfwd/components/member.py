"""A component's place on the bus: what it says is said until the broker has it, and what it is asked is asked
of it whenever vsfwd runs."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import structlog

import vsfwd.ipc.bus_interface as api
from vsfwd.config import Config, check_option, config_option, configured
from vsfwd.ipc.client import Unreachable, connected
from vsfwd.log import log_to_stderr
from vsfwd.protocol.components import Body

log = structlog.get_logger(log="vsfwd.component")

AGAIN_S: Final = 2.0

Served = Callable[[Body], Body]
"""The answer to what the manager asks on a topic. Raises ValueError, which tells it why there is none."""


class Member:
    def __init__(self, socket: Path, component: str) -> None:
        self._socket = socket
        self._component = component
        self._missed = ""

    async def publish(self, topic: str, body: Body) -> None:
        """Returns when the broker has it, however long it is away. Raises api.NotAllowed and api.Invalid."""
        while True:
            try:
                async with connected(self._socket, api.BusInterface) as vsfwd:
                    await vsfwd.Publish(component=self._component, topic=topic, body=body)
                self._missed = ""
                return
            except Unreachable as error:
                self._miss("vsfwd is away", str(error))
            except api.NotConnected as error:
                self._miss("the broker is away", error.parameters["reason"])
            await asyncio.sleep(AGAIN_S)

    async def call(self, topic: str, body: Body) -> Body:
        """The manager's answer. Raises Unreachable and the errors of api."""
        async with connected(self._socket, api.BusInterface) as vsfwd:
            answer: Body = (await vsfwd.Call(component=self._component, topic=topic, body=body))["body"]
            return answer

    async def serve(self, topics: Mapping[str, Served], begun: Callable[[], None] = lambda: None) -> NoReturn:
        """`begun` is called whenever a subscription begins: what was sent before it is lost. Raises
        api.NotAllowed."""
        while True:
            try:
                await self._subscribe(topics, begun)
            except Unreachable as error:
                self._miss("vsfwd is away", str(error))
            await asyncio.sleep(AGAIN_S)

    def _miss(self, what: str, reason: str) -> None:
        """Once, as long as it stays so: it is tried again every AGAIN_S, and by whoever publishes, too."""
        if self._missed != what:
            log.warning(what, reason=reason, again_s=AGAIN_S)
        self._missed = what

    async def _subscribe(self, topics: Mapping[str, Served], begun: Callable[[], None]) -> None:
        asked = {"component": self._component, "topics": list(topics)}
        async with (
            connected(self._socket, api.BusInterface) as vsfwd,
            aclosing(vsfwd.Subscribe(**asked)) as messages,
        ):
            async for each in messages:
                if each["message"] is None:
                    self._missed = ""
                    begun()
                else:
                    await self._take(topics, each["message"])

    async def _take(self, topics: Mapping[str, Served], message: api.BusMessage) -> None:
        body, error = {}, ""
        try:
            body = topics[message.topic](message.body)
        except ValueError as reason:
            log.error("message refused", topic=message.topic, reason=str(reason))
            error = str(reason)[:200]
        if message.call is None:
            return
        try:
            async with connected(self._socket, api.BusInterface) as vsfwd:
                await vsfwd.Reply(component=self._component, call=message.call, body=body, error=error)
        except (api.NobodyWaits, api.NotConnected, api.Invalid) as reason:
            log.warning("answer not taken", topic=message.topic, reason=reason.parameters["reason"])


def agent(name: str, purpose: str, run: Callable[[Config], Coroutine[Any, Any, None]]) -> click.Command:
    """The program of an agent, a process of its own, which ends when vsfwd does not allow it what it does.
    It has vsfwd's configuration: who this host is, its key, the socket."""

    @click.command(help=purpose, context_settings={"help_option_names": ["-h", "--help"]})
    @config_option
    @check_option
    @click.version_option(package_name="vsfwd", prog_name=name)
    def main(path: Path, check_config: bool) -> None:
        config = configured(name, path, check_config)
        log_to_stderr()
        try:
            asyncio.run(run(config))
        except* api.NotAllowed as refused:
            for each in refused.exceptions:
                click.echo(f"{name}: {each}", err=True)
            sys.exit(1)

    return main
