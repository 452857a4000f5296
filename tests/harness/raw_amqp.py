"""AMQP 0-9-1 by hand, so that an enrolled host can say what no client library would let it."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from vsfwd.config import Config
from vsfwd.protocol import topology

CONTENT_TYPE: Final = 1 << 15
HEADERS: Final = 1 << 13
TIMESTAMP: Final = 1 << 6
USER_ID: Final = 1 << 4
"""Which properties a message has, in their order (AMQP 0-9-1, 1.8.3, class 60)."""
_BASIC: Final = 60
_CLOSE: Final = ((10, 50), (20, 40))
"""Of the connection, of the channel."""
_NOWAIT_CONSUME: Final = b"\x08"
_NOWAIT: Final = b"\x01"
_DEADLINE_S: Final = 20.0


def short(text: bytes) -> bytes:
    return struct.pack(">B", len(text)) + text


def long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


class RawChannel:
    """Channel 1 of a connection, with publisher confirms."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def publish(self, key: str, flags: int, properties: bytes, body: bytes = b"{}") -> None:
        """To the events, until the broker has it."""
        self._method(_BASIC, 40, b"\0\0" + short(topology.EVENTS.encode()) + short(key.encode()) + b"\0")
        self._frame(2, 1, struct.pack(">HHQH", _BASIC, 0, len(body), flags) + properties)
        self._frame(3, 1, body)
        await self._until(_BASIC, 80)

    async def consume_and_cancel(self, queue: str, tag: bytes, arguments: bytes = b"") -> None:
        """As fast as the broker reads; it answers neither. `arguments`: a table's content."""
        self._method(
            _BASIC, 20, b"\0\0" + short(queue.encode()) + short(tag) + _NOWAIT_CONSUME + long(arguments)
        )
        self._method(_BASIC, 30, short(tag) + _NOWAIT)
        await self._writer.drain()
        await asyncio.sleep(0)  # drain does not find out by itself that the connection has gone

    async def _open(self) -> None:
        self._writer.write(b"AMQP\0\0\x09\x01")
        await self._until(10, 10)
        self._method(10, 11, long(b"") + short(b"EXTERNAL") + long(b"") + short(b"en_US"), channel=0)
        await self._until(10, 30)
        self._method(10, 31, struct.pack(">HIH", 2047, 131072, 0), channel=0)
        self._method(10, 40, short(topology.VHOST.encode()) + short(b"") + b"\0", channel=0)
        await self._until(10, 41)
        self._method(20, 10, short(b""))
        await self._until(20, 11)
        self._method(85, 10, b"\0")
        await self._until(85, 11)

    def _method(self, of: int, id: int, arguments: bytes, channel: int = 1) -> None:
        self._frame(1, channel, struct.pack(">HH", of, id) + arguments)

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._writer.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    async def _until(self, of: int, id: int) -> None:
        """A method comes. Raises ConnectionError with what the broker says, EOFError, TimeoutError."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                kind, _, size = struct.unpack(">BHI", await self._reader.readexactly(7))
                payload = await self._reader.readexactly(size + 1)
                came = struct.unpack(">HH", payload[:4]) if kind == 1 else None
                if came == (of, id):
                    return
                if came in _CLOSE:
                    raise ConnectionError(payload[4:])


@asynccontextmanager
async def raw_channel(config: Config) -> AsyncIterator[RawChannel]:
    tls = ssl.create_default_context(cafile=config.ca)
    tls.load_cert_chain(config.certificate, config.key)
    host, _, port = config.broker_urls[0].removeprefix("amqps://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    try:
        channel = RawChannel(reader, writer)
        await channel._open()
        yield channel
    finally:
        writer.close()
