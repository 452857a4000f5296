"""The web server under the REST interface: who may connect, and what clients cannot do to each other.

uvicorn speaks HTTP; connections are accepted here, because uvicorn bounds neither their number nor the time
that a client takes to say a request or to take the answer. A client that says nothing, or never ends what it
says, or does not read, is cut off; of
too many from one source the oldest that says nothing goes, then the oldest that waits for what a wrong guess
costs. All of it holds before a password is asked for.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from h11 import CLOSED, IDLE, MUST_CLOSE, SEND_BODY
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from manager_stub import throttle
from manager_stub.sources import source_of

SHUTDOWN_S: Final = 5
"""What open requests are given to end."""
HANDSHAKE_S: Final = 10.0
REQUEST_S: Final = 30.0
"""What a client is given to say a whole request, since it connected or since the last answer, and to take the
last answer. uvicorn closes
one that says nothing at all after an answer in five seconds."""
MAX_CONNECTIONS: Final = 512
"""Less than the 1,024 files a process may have open where nobody says otherwise."""
MAX_FROM_ONE: Final = 64
"""Connections from one source (`sources.py`)."""
BACKLOG: Final = 128
ACCEPT_AGAIN_S: Final = 1.0

log = structlog.get_logger(log="manager.web")


class CannotListen(Exception):
    """On the address of the REST interface; the text says why."""


class _Connection(H11Protocol):
    """uvicorn's protocol with a limit on the time a request takes to come."""

    def __init__(self, server: "WebServer", accepted: socket.socket, source: str) -> None:
        super().__init__(server.config, server.server_state, {})
        self.accepted = accepted
        self.source = source
        self.lost = asyncio.Event()
        self.is_delayed = False
        """By what guessing costs (`throttle.py`)."""
        self.app = self._answer
        self._late: asyncio.TimerHandle | None = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        throttle.held.set(self._delay)  # in the context of this request's own task
        await self.config.loaded_app(scope, receive, send)

    def _delay(self, is_delayed: bool) -> None:
        self.is_delayed = is_delayed

    def is_waiting(self) -> bool:
        """For its client: for the handshake, for a request, or to take the answer."""
        return self.conn.their_state in (IDLE, SEND_BODY) or self.conn.our_state in (MUST_CLOSE, CLOSED)

    def close(self) -> None:
        """At once, also in the middle of a handshake, where there is no transport yet."""
        with suppress(OSError):
            self.accepted.shutdown(socket.SHUT_RDWR)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_time()
        self.lost.set()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self.is_waiting():
            self._forget_time()
        elif self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self.close)

    def _forget_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class WebServer(uvicorn.Server):
    """`run_until_exit` serves until `should_exit`. Signals are left to the composition root: uvicorn's own
    way ends the process before the rest is closed."""

    def __init__(self, app: ASGIApp, listen: tuple[str, int], certificate: Path, key: Path) -> None:
        config = uvicorn.Config(
            app,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_config=None,
            lifespan="off",
            ws="none",  # whichever library is there: its connections would have none of these limits
            proxy_headers=False,  # nobody stands in front: an address is what the kernel says
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        config.load()
        super().__init__(config)
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        try:
            self.listener = socket.create_server(listen, family=family, backlog=BACKLOG)
        except OSError as error:
            why = f"{error.strerror}; end what listens there, or have a manager elsewhere"
            if error.errno == errno.EADDRNOTAVAIL:
                why = f"{listen[0]} is no address of this machine; see listen in manager.toml"
            raise CannotListen(f"{listen[0]}:{listen[1]}: {why}") from None
        self.listener.setblocking(False)
        self._open: dict[_Connection, asyncio.Task[None]] = {}
        """Oldest first."""
        self._accepting: asyncio.Task[None] | None = None

    @property
    def tls(self) -> ssl.SSLContext:
        """What new connections are begun with."""
        assert self.config.ssl is not None  # config.load made it
        return self.config.ssl

    async def run_until_exit(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._accepting = group.create_task(self._accept(), name="accept")
            await self.serve(sockets=[])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        self.listener.close()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, (address, *_) = await loop.sock_accept(self.listener)
            except OSError as error:  # no files left, or the client is gone again
                log.warning("a connection was not accepted", reason=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            source = source_of(address)
            if self._make_room(source):
                connection = _Connection(self, accepted, source)
                self._open[connection] = asyncio.create_task(self._serve_one(connection))
            else:
                accepted.close()

    def _make_room(self, source: str) -> bool:
        """Whether one more from there may be served. No request that is being worked on is cut off for it."""
        from_there = [connection for connection in self._open if connection.source == source]
        for limit, connections in ((MAX_FROM_ONE, from_there), (MAX_CONNECTIONS, list(self._open))):
            if len(connections) < limit:
                continue
            idle = [connection for connection in connections if connection.is_waiting()]
            delayed = [connection for connection in connections if connection.is_delayed]
            oldest = next(iter(idle + delayed), None)
            log.warning("too many connections", limit=limit, refused=source)
            if oldest is None:
                return False
            del self._open[oldest]
            oldest.close()
        return True

    async def _serve_one(self, connection: _Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                connection.accepted,
                ssl=self.config.ssl,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
            await connection.lost.wait()
        except OSError as error:
            log.debug("no TLS connection", source=connection.source, reason=str(error))
        finally:
            self._open.pop(connection, None)
