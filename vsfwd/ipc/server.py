"""The socket that local clients connect to: who they are, and what they cannot do to the daemon.

Every connection gets an interface of its own that knows the peer's uid (SO_PEERCRED). A client that sends
garbage, never ends a message, never reads or never goes away hurts only itself: what it may leave in memory
is bounded, and of too many connections the oldest is closed."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from asyncvarlink import (
    FileDescriptorArray,
    VarlinkInterface,
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkTransport,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

log = structlog.get_logger(log="vsfwd.ipc")

MAX_CONNECTIONS: Final = 64
MAX_REQUEST: Final = 64 * 1024
"""Bytes of one message from a client."""
MAX_WAITING: Final = 64
"""Requests of one client that wait for their turn."""
MAX_UNREAD: Final = 16
"""Replies one client has not read."""


class _Protocol(VarlinkInterfaceServerProtocol):
    """Varlink's protocol with limits on both directions."""

    def __init__(self, registry: VarlinkInterfaceRegistry, connection: socket.socket) -> None:
        super().__init__(registry)
        self._connection = connection
        self._unfinished = 0
        self._waiting = 0
        self._unread = 0

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        end = data.rfind(b"\0")
        self._unfinished = len(data) - end - 1 if end >= 0 else self._unfinished + len(data)
        self._waiting += data.count(b"\0")
        if self._unfinished > MAX_REQUEST:
            self._disconnect(f"a message of more than {MAX_REQUEST} bytes")
        elif self._waiting > MAX_WAITING:
            self._disconnect(f"more than {MAX_WAITING} requests at once")
        else:
            try:
                super().message_received(data, fds)
            except (RecursionError, ValueError) as error:  # what json.loads raises beside its own error
                self.error_received(error, data, fds)

    def request_received(
        self, obj: dict[str, Any], fds: FileDescriptorArray | None
    ) -> asyncio.Future[None] | None:
        self._waiting -= 1
        done: asyncio.Future[None] | None = super().request_received(obj, fds)
        return done

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        self._disconnect("not a varlink message")

    def send_message(
        self, obj: dict[str, Any], fds: list[int] | None = None, autoclose: bool = True
    ) -> asyncio.Future[None]:
        self._unread += 1
        if self._unread > MAX_UNREAD:
            self._disconnect(f"more than {MAX_UNREAD} replies are not read")
        sent: asyncio.Future[None] = super().send_message(obj, fds, autoclose)
        sent.add_done_callback(self._read)
        return sent

    def _read(self, sent: asyncio.Future[None]) -> None:
        self._unread -= 1
        sent.exception()

    def _disconnect(self, reason: str) -> None:
        log.warning("client disconnected", reason=reason)
        # The transport reads for as long as there is something to read: only an end of file stops it.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._transport is not None:
            self._transport.abort()


class IpcServer:
    """Owns the socket file; one that a killed daemon left behind is replaced."""

    def __init__(self, path: Path, version: str, interface: Callable[[int], VarlinkInterface]) -> None:
        """`interface` makes what a peer with that uid may talk to."""
        self._version = version
        self._interface = interface
        self._connections: dict[VarlinkTransport, None] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        umask = os.umask(0o117)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(umask)
        self._socket.listen(MAX_CONNECTIONS)

    async def serve(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        try:
            while True:
                connection, _ = await loop.sock_accept(self._socket)
                self._take(connection)
        finally:
            self._socket.close()
            for transport in list(self._connections):
                transport.abort()

    def _take(self, connection: socket.socket) -> None:
        while len(self._connections) >= MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            log.warning("too many clients: the oldest is disconnected", limit=MAX_CONNECTIONS)
            del self._connections[oldest]
            oldest.abort()
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(
            VarlinkServiceInterface("vsfw", "vsfwd", self._version, "https://github.com/vsfw/vsfw", registry)
        )
        registry.register_interface(self._interface(peer_uid(connection)))
        loop = asyncio.get_running_loop()
        transport = VarlinkTransport(loop, connection, connection, _Protocol(registry, connection))
        self._connections[transport] = None
        transport.closed_future.add_done_callback(lambda _: self._connections.pop(transport, None))


def peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
