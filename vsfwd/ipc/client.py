"""Asking a vsfwd over its socket: one connection, one question, from code that is not asynchronous."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncvarlink import VarlinkClientProtocol, connect_unix_varlink

from vsfwd.ipc.interface import HostInterface

TIMEOUT_S: Final = 60
T = TypeVar("T")


class Unreachable(Exception):
    """No vsfwd answers on the socket; the text says what to look at."""


def ask(path: Path, question: Callable[[Any], Awaitable[T]]) -> T:
    """The answer to `question`, which is called with a proxy of HostInterface. Raises Unreachable, or the
    typed errors of the interface."""
    return asyncio.run(_ask(path, question))


async def _ask(path: Path, question: Callable[[Any], Awaitable[T]]) -> T:
    try:
        transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, path)
    except FileNotFoundError:
        raise Unreachable(f"{path}: no such socket; is vsfwd running, and is --socket right?") from None
    except ConnectionRefusedError:
        raise Unreachable(f"{path}: nobody listens; vsfwd has ended, start it again") from None
    except PermissionError:
        raise Unreachable(f"{path}: permission denied; run as root or join the socket's group") from None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await question(protocol.make_proxy(HostInterface))
    except TimeoutError:
        raise Unreachable(f"{path}: no answer within {TIMEOUT_S} s; see the log of vsfwd") from None
    except ConnectionError as error:
        raise Unreachable(f"{path}: {error}; see the log of vsfwd") from None
    finally:
        transport.close()
