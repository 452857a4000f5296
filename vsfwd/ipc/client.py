"""Asking a vsfwd over its socket: one connection, one question, also from code that is not asynchronous."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncvarlink import VarlinkClientProtocol, VarlinkInterface, connect_unix_varlink

from vsfwd.ipc.interface import HostInterface

TIMEOUT_S: Final = 60
T = TypeVar("T")


class Unreachable(Exception):
    """No vsfwd answers on the socket; the text says what to look at."""


def ask(
    path: Path,
    question: Callable[[Any], Awaitable[T]],
    interface: type[VarlinkInterface] = HostInterface,
    timeout_s: float | None = TIMEOUT_S,
) -> T:
    """The answer to `question`, which is called with a proxy of the interface. Raises Unreachable, or the
    typed errors of the interface."""
    return asyncio.run(_ask(path, question, interface, timeout_s))


async def _ask(
    path: Path,
    question: Callable[[Any], Awaitable[T]],
    interface: type[VarlinkInterface],
    timeout_s: float | None,
) -> T:
    try:
        async with connected(path, interface) as proxy, asyncio.timeout(timeout_s):
            return await question(proxy)
    except TimeoutError:
        raise Unreachable(f"{path}: no answer within {timeout_s} s; see the log of vsfwd") from None


@asynccontextmanager
async def connected(path: Path, interface: type[VarlinkInterface]) -> AsyncIterator[Any]:
    """A proxy. Raises Unreachable, also when the connection ends meanwhile."""
    try:
        transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, path)
    except FileNotFoundError:
        raise Unreachable(f"{path}: no such socket; is vsfwd running, and is --socket right?") from None
    except ConnectionRefusedError:
        raise Unreachable(f"{path}: {_why_refused(path)}") from None
    except PermissionError:
        raise Unreachable(f"{path}: permission denied; run as root or join the socket's group") from None
    try:
        yield protocol.make_proxy(interface)
    except ConnectionError as error:
        raise Unreachable(f"{path}: {error}; see the log of vsfwd") from None
    finally:
        transport.close()


def _why_refused(path: Path) -> str:
    """connect(2) says the same of a file that is no socket."""
    if path.is_socket():
        return "nobody listens; vsfwd has ended, start it again"
    return "no socket; is --socket right?"
