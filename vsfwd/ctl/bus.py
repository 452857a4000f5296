"""`vsfwctl bus`: speak as a component of this host, at the shell."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

import vsfwd.ipc.bus_interface as api
from vsfwd.ctl.shell import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    Checked,
    MessageBody,
    as_json,
    end,
    print_json,
    print_table,
    wide_console,
)
from vsfwd.ipc import client
from vsfwd.protocol.components import MAX_PATIENCE_S, check_component, check_topic
from vsfwd.relay import PATIENCE_S

_UNREACHABLE: Final = (api.NotConnected, api.NoAnswer)
_REFUSED: Final = (api.NotAllowed, api.Invalid, api.Failed, api.NobodyWaits)


_TOPIC: Final = Checked(check_topic)
_component = click.option(
    "--as",
    "component",
    type=Checked(check_component),
    required=True,
    metavar="COMPONENT",
    help="One of vsfwd's configuration.",
)
_body = click.argument("body", type=MessageBody(), default="{}")


@click.group(short_help="Speak with the manager as a component of this host.")
def bus() -> None:
    """Speak with the manager as a component of this host, or listen to what it sends one.

    BODY is a JSON object. Who may be which component is in the configuration of vsfwd; root may be any.

    \b
    Exit status: 0 done; 1 refused; 2 wrong usage; 3 no vsfwd, no broker,
    or no answer in time.
    """


@bus.command()
@_component
@click.argument("topic", type=_TOPIC)
@_body
@click.pass_obj
def publish(socket: Path, component: str, topic: str, body: dict[str, Any]) -> None:
    """Tell the manager. When this ends with 0, the broker has the message."""
    _ask(socket, lambda proxy: proxy.Publish(component=component, topic=topic, body=body))


@bus.command()
@_component
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, MAX_PATIENCE_S),
    default=PATIENCE_S,
    show_default=True,
    metavar="S",
    help="How long the manager has for its answer.",
)
@click.argument("topic", type=_TOPIC)
@_body
@as_json
@click.pass_obj
def call(
    socket: Path, component: str, timeout_s: int, topic: str, body: dict[str, Any], as_json: bool
) -> None:
    """Ask the manager, and print its answer."""
    named = {"component": component, "topic": topic, "timeout_s": timeout_s}
    answer = _ask(socket, lambda proxy: proxy.Call(body=body, **named), timeout_s + client.TIMEOUT_S)["body"]
    if as_json:
        print_json(answer)
        return
    rows = [(name, _text(value)) for name, value in answer.items()]
    print_table(wide_console(), "answer but that it is done", ("field", "value"), rows)


@bus.command()
@_component
@click.option("--count", "most", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--reply", type=MessageBody(), metavar="BODY", help="The answer to each call of the manager.")
@click.argument("topics", type=_TOPIC, nargs=-1, required=True)
@as_json
@click.pass_obj
def subscribe(
    socket: Path,
    component: str,
    most: int | None,
    reply: dict[str, Any] | None,
    topics: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print what the manager sends, a line each, until interrupted."""

    async def listen(proxy: Any) -> None:
        heard = 0
        async for each in proxy.Subscribe(component=component, topics=list(topics)):
            message: api.BusMessage | None = each["message"]
            if message is None:
                click.echo(f"listening to {', '.join(topics)}", err=True)
                continue
            if as_json:
                click.echo(json.dumps({"topic": message.topic, "body": message.body, "call": message.call}))
            else:
                click.echo(f"{message.topic}  {_text(message.body)}" + ("  (call)" if message.call else ""))
            if message.call and reply is not None:
                await _reply(socket, component, message.call, reply)
            heard += 1
            if heard == most:
                return

    # asyncvarlink drops the reply that a subscription waits for when it ends, and asyncio would tell of it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with suppress(KeyboardInterrupt):
        _ask(socket, listen, None)


async def _reply(socket: Path, component: str, call: str, body: dict[str, Any]) -> None:
    """On a connection of its own: the subscription has the other."""
    async with client.connected(socket, api.BusInterface) as proxy:
        await proxy.Reply(component=component, call=call, body=body)


def _ask(
    socket: Path, question: Callable[[Any], Awaitable[Any]], timeout_s: float | None = client.TIMEOUT_S
) -> Any:
    try:
        return client.ask(socket, question, api.BusInterface, timeout_s)
    except client.Unreachable as error:
        end(str(error), EXIT_UNREACHABLE)
    except _UNREACHABLE as error:
        end(str(error.parameters["reason"]), EXIT_UNREACHABLE)
    except _REFUSED as error:
        end(str(error.parameters["reason"]), EXIT_REFUSED)


def _text(value: object) -> str:
    """JSON escapes what would move the cursor."""
    return json.dumps(value)
