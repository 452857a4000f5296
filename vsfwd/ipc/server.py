"""The socket that local clients connect to: who they are, and what they cannot do to the daemon.

Every connection gets interfaces of its own that know the peer's uid (SO_PEERCRED). A client that sends
garbage, never ends a message, never reads or never goes away hurts only itself: what it may leave in memory
is bounded, and of too many connections the oldest is closed of the user who has most."""

import asyncio
import os
import shutil
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
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
ACCEPT_AGAIN_S: Final = 0.5
"""After a connection that could not be accepted."""


class _Transport(VarlinkTransport):
    MAX_RECV_FDS = 0
    """No method takes one. The kernel drops those that come: kept until their request is answered, those of
    two clients would be all that the daemon may have open."""


class _Protocol(VarlinkInterfaceServerProtocol):
    """Varlink's protocol with limits on both directions."""

    def __init__(self, registry: VarlinkInterfaceRegistry, client: "Client") -> None:
        super().__init__(registry)
        self._client = client
        self._unfinished = 0
        self._waiting = 0
        self._unread = 0

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        end = data.rfind(b"\0")
        self._unfinished = len(data) - end - 1 if end >= 0 else self._unfinished + len(data)
        self._waiting += data.count(b"\0")
        if self._unfinished > MAX_REQUEST:
            self._client.disconnect(f"a message of more than {MAX_REQUEST} bytes")
        elif self._waiting > MAX_WAITING:
            self._client.disconnect(f"more than {MAX_WAITING} requests at once")
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
        self._client.disconnect("not a varlink message")

    def send_message(
        self, obj: dict[str, Any], fds: list[int] | None = None, autoclose: bool = True
    ) -> asyncio.Future[None]:
        self._unread += 1
        if self._unread > MAX_UNREAD:
            self._client.disconnect(f"more than {MAX_UNREAD} replies are not read")
        sent: asyncio.Future[None] = super().send_message(obj, fds, autoclose)
        sent.add_done_callback(self._read)
        return sent

    def _read(self, sent: asyncio.Future[None]) -> None:
        self._unread -= 1
        sent.exception()


class Client:
    """Who is at the other end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.uid = peer_uid(connection)
        self._connection = connection
        self._transport: VarlinkTransport | None = None

    def connected(self, transport: VarlinkTransport) -> None:
        self._transport = transport

    def disconnect(self, reason: str) -> None:
        log.warning("client disconnected", uid=self.uid, reason=reason)
        # The transport reads for as long as there is something to read: only an end of file stops it.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._transport is not None:
            self._transport.abort()

    def when_gone(self, do: Callable[[], None]) -> None:
        if self._transport is not None:
            self._transport.closed_future.add_done_callback(lambda _: do())

    async def gone(self) -> None:
        """Until the client ends the connection, or says more while a call of its own runs, which ends it too.
        The transport does not listen meanwhile."""
        assert self._transport is not None
        if not self._transport.is_closing():
            heard = asyncio.Event()
            loop = asyncio.get_running_loop()
            with self._connection.dup() as ear:
                loop.add_reader(ear, heard.set)
                try:
                    await heard.wait()
                finally:
                    loop.remove_reader(ear)
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._transport.abort()
        await asyncio.shield(self._transport.closed_future)


class IpcServer:
    """Owns the socket file; one that a killed daemon left behind is replaced."""

    def __init__(
        self,
        path: Path,
        version: str,
        interfaces: Callable[[Client], Iterable[VarlinkInterface]],
        group: str = "",
    ) -> None:
        """`interfaces` makes what a client may talk to. `group` is who may connect beside root."""
        self._version = version
        self._interfaces = interfaces
        self._connections: dict[VarlinkTransport, Client] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        umask = os.umask(0o117)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(umask)
        if group:
            shutil.chown(path, group=group)
        self._socket.listen(MAX_CONNECTIONS)

    async def serve(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._socket)
                except OSError as error:  # no files left, or the client is gone again
                    log.warning("a connection was not accepted", reason=str(error))
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                    continue
                self._take(connection)
        finally:
            self._socket.close()
            for transport in list(self._connections):
                transport.abort()

    def _take(self, connection: socket.socket) -> None:
        while len(self._connections) >= MAX_CONNECTIONS:
            (most, _), *_ = Counter(client.uid for client in self._connections.values()).most_common(1)
            oldest = next(each for each, client in self._connections.items() if client.uid == most)
            self._connections.pop(oldest).disconnect(f"of too many ({MAX_CONNECTIONS}) it is the oldest")
        client = Client(connection)
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(
            VarlinkServiceInterface("vsfw", "vsfwd", self._version, "https://github.com/vsfw/vsfw", registry)
        )
        for interface in self._interfaces(client):
            registry.register_interface(interface)
        loop = asyncio.get_running_loop()
        transport = _Transport(loop, connection, connection, _Protocol(registry, client))
        client.connected(transport)
        self._connections[transport] = client
        transport.closed_future.add_done_callback(lambda _: self._connections.pop(transport, None))


def peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
