"""Between one client and the broker: a TCP proxy that delays, loses, repeats, spoils, cuts, and goes silent.

TLS is inside: of bytes that are lost, repeated or spoiled the session notices at the next record, and ends.
What becomes of whole messages is another matter, see `hostile.py`.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

CHUNK: Final = 16 * 1024


class Spoil(StrEnum):
    """What happens to the next bytes that come by."""

    LOSE = "lose"
    REPEAT = "repeat"
    FLIP = "flip"


class Connection:
    """One that was accepted, with its way on. `silent`: nothing passes any more and nobody is told."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.silent = False

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class FaultyProxy:
    def __init__(self, address: str, port: int, seed: int) -> None:
        self._to = address, port
        self.chance = random.Random(seed)
        self._connections: set[Connection] = set()
        self._spoils: list[Spoil] = []
        self._server: asyncio.Server | None = None
        self.delay_s = 0.0
        self.refuses = False

    @asynccontextmanager
    async def running(self, address: str = "127.0.0.1") -> AsyncIterator["FaultyProxy"]:
        self._server = await asyncio.start_server(self._serve, address, 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut()

    @property
    def url(self) -> str:
        assert self._server is not None
        address, port = self._server.sockets[0].getsockname()
        return f"amqps://{address}:{port}"

    @property
    def open(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Every connection, at both ends."""
        for connection in self._connections:
            connection.cut()

    def go_silent(self) -> None:
        """Connections there are stay open and carry nothing more; new ones do. So does a firewall on the way
        that forgets its flows, or a peer that lost its power."""
        for connection in self._connections:
            connection.silent = True

    def spoil(self, how: Spoil) -> None:
        self._spoils.append(how)

    def heal(self) -> None:
        """What comes from now on passes. Silent connections stay so: nobody but their ends can end them."""
        self.delay_s, self.refuses = 0.0, False
        self._spoils.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:  # the broker is down
            writer.transport.abort()
            return
        connection = Connection(writer, far_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass(connection, reader, far_writer))
                ways.create_task(self._pass(connection, far_reader, writer))
        except* OSError:
            pass  # an end is gone, and so is the other
        finally:
            connection.cut()
            self._connections.discard(connection)

    async def _pass(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK):
            if self.delay_s:
                await asyncio.sleep(self.chance.uniform(0, 2 * self.delay_s))
            if not connection.silent:
                writer.write(self._spoiled(data))
                await writer.drain()
        if not connection.silent:
            raise ConnectionResetError("one end has closed")  # and so the other way ends too

    def _spoiled(self, data: bytes) -> bytes:
        if not self._spoils:
            return data
        how = self._spoils.pop(0)
        if how is Spoil.LOSE:
            return b""
        if how is Spoil.REPEAT:
            return data + data
        spoilt = bytearray(data)
        spoilt[self.chance.randrange(len(spoilt))] ^= 1 << self.chance.randrange(8)
        return bytes(spoilt)
