"""io.vsfwd.Bus as one client has it: who it is decides what it may say and hear."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from asyncvarlink import GenericVarlinkErrorReply, varlinkmethod

import vsfwd.ipc.bus_interface as api
from vsfwd import relay
from vsfwd.ipc import rights
from vsfwd.ipc.server import Client
from vsfwd.protocol.components import MAX_PATIENCE_S


class Bus(api.BusInterface):
    def __init__(self, client: Client, allowed: rights.Rights, through: relay.Relay) -> None:
        self._client = client
        self._rights = allowed
        self._relay = through

    @varlinkmethod(return_parameter="message", allow_foreign=True, delay_generator=False)
    async def Subscribe(self, *, component: str, topics: list[str]) -> AsyncIterator[api.BusMessage | None]:
        with _told():
            self._rights.check(self._client.uid, component, *topics)
        subscription = self._relay.subscribe(component, topics, self._client.disconnect)
        self._client.when_gone(lambda: self._relay.unsubscribe(subscription))
        gone = asyncio.create_task(self._client.gone(), name="client of a subscription")
        try:
            yield None
            while True:
                coming = asyncio.ensure_future(subscription.next())
                await asyncio.wait((coming, gone), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    coming.cancel()
                    break
                message = coming.result()
                # What it may may have changed since.
                with _told():
                    self._rights.check(self._client.uid, component, *topics)
                call = message.id if message.answer_within_s else None
                yield api.BusMessage(message.topic, message.body, call)
        finally:
            gone.cancel()
            self._relay.unsubscribe(subscription)
        raise GenericVarlinkErrorReply(f"{api.NAME}.Ended")  # which nobody hears any more

    @varlinkmethod(allow_foreign=True)
    async def Publish(self, *, component: str, topic: str, body: Any) -> None:
        with _told():
            self._rights.check(self._client.uid, component, topic)
            await self._relay.publish(component, topic, body)

    @varlinkmethod(return_parameter="body", allow_foreign=True)
    async def Call(self, *, component: str, topic: str, body: Any, timeout_s: int | None = None) -> Any:
        with _told():
            self._rights.check(self._client.uid, component, topic)
            patience_s = relay.PATIENCE_S if timeout_s is None else timeout_s
            if not 1 <= patience_s <= MAX_PATIENCE_S:
                raise ValueError(f"timeout_s: {patience_s} is not between 1 and {MAX_PATIENCE_S}")
            return await self._relay.call(component, topic, body, patience_s)

    @varlinkmethod(allow_foreign=True)
    async def Reply(self, *, component: str, call: str, body: Any, error: str | None = None) -> None:
        with _told():
            self._rights.check(self._client.uid, component)
            await self._relay.reply(component, call, body, error or "")


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong, in the words of the interface."""
    try:
        yield
    except rights.NotAllowed as error:
        raise api.NotAllowed(reason=str(error)) from None
    except ValueError as error:
        raise api.Invalid(reason=str(error)) from None
    except relay.NotConnected as error:
        raise api.NotConnected(reason=str(error)) from None
    except relay.NoAnswer as error:
        raise api.NoAnswer(reason=str(error)) from None
    except relay.Failed as error:
        raise api.Failed(reason=str(error)) from None
    except relay.NobodyWaits as error:
        raise api.NobodyWaits(reason=str(error)) from None
