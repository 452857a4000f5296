"""Sessions one after the other, without a broker. With one: tests/integration."""

import asyncio
import ssl

from vsfwd.amqp import Link, Session, SessionOver


class Failing(Link):
    """Its first session fails while it is cancelled."""

    def __init__(self) -> None:
        super().__init__("test", ["amqps://nowhere"], ssl.create_default_context)
        self.begun = asyncio.Event()

    async def begin(self, session: Session) -> None:
        first = not self.begun.is_set()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if first:
                raise SessionOver("the broker has gone")


async def test_a_session_that_fails_while_it_is_cancelled_is_the_last() -> None:
    """The broker goes at the moment the process is told to end: it ends, and looks for no other session."""
    link = Failing()
    running = asyncio.create_task(link.run())
    await link.begun.wait()
    running.cancel()
    await asyncio.wait([running], timeout=5)
    assert running.cancelled()
