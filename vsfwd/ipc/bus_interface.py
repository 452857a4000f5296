"""The varlink interface `io.vsfwd.Bus`: what a component of the host may do with vsfwd's link to the manager.
Its field names are a promise to other people's programs.

The class is the signature only; `vsfwd.ipc.bus` answers. A subscription takes its connection for itself: who
subscribes speaks over another one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

NAME: Final = "io.vsfwd.Bus"


class NotAllowed(TypedVarlinkErrorReply, interface=NAME):
    """The configuration of vsfwd does not let this user be that component, or have that topic."""

    class Parameters:
        reason: str


class Invalid(TypedVarlinkErrorReply, interface=NAME):
    """No such name, topic or body can be sent. Nothing was."""

    class Parameters:
        reason: str


class NotConnected(TypedVarlinkErrorReply, interface=NAME):
    """No broker has confirmed that it has the message. It may have it all the same: say it again."""

    class Parameters:
        reason: str


class NoAnswer(TypedVarlinkErrorReply, interface=NAME):
    """The manager was asked and did not answer in time."""

    class Parameters:
        reason: str


class Failed(TypedVarlinkErrorReply, interface=NAME):
    """The manager's answer is that it will not or cannot."""

    class Parameters:
        reason: str


class NobodyWaits(TypedVarlinkErrorReply, interface=NAME):
    """The call was answered, was another component's, or its time is over."""

    class Parameters:
        reason: str


@dataclass(frozen=True)
class BusMessage:
    """From the manager. `call`: what Reply is to be told, null where no answer is expected."""

    topic: str
    body: Any
    call: str | None


class BusInterface(VarlinkInterface, name=NAME):
    """Every method names the component that speaks, which is checked against the uid of the peer."""

    errors = (NotAllowed, Invalid, NotConnected, NoAnswer, Failed, NobodyWaits)

    @varlinkmethod(return_parameter="message", allow_foreign=True, delay_generator=False)
    async def Subscribe(self, *, component: str, topics: list[str]) -> AsyncIterator[BusMessage | None]:
        """The first reply is null: what is sent from then on comes. A call goes to the one subscription that
        has its topic for longest, other messages to all. A component that leaves 64 messages untaken, or one
        for 30 s, is disconnected."""
        raise NotImplementedError
        yield

    @varlinkmethod(allow_foreign=True)
    async def Publish(self, *, component: str, topic: str, body: Any) -> None:
        """To the manager. When it returns, the broker has the message on disk."""
        raise NotImplementedError

    @varlinkmethod(return_parameter="body", allow_foreign=True)
    async def Call(self, *, component: str, topic: str, body: Any, timeout_s: int | None = None) -> Any:
        """Ask the manager; the answer."""
        raise NotImplementedError

    @varlinkmethod(allow_foreign=True)
    async def Reply(self, *, component: str, call: str, body: Any, error: str | None = None) -> None:
        """Answer a call of the manager: with `body`, or with why there is none."""
        raise NotImplementedError
