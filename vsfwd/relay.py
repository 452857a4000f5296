"""Between the components of this host and the manager: who listens to what, and which calls wait for an
answer. No sockets here, and no broker: `tell` sends, `ipc.bus` reads.

Nothing is stored, and everything that is held is bounded. Towards a component delivery is at most once: what
finds no subscription is refused, and the manager is told. Towards the manager it is at least once: `tell`
returns when the broker has confirmed, and what fails is the component's to say again. A component speaks no
faster than its pace, so that none takes the link from policy or from the others."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import structlog

from vsfwd.protocol.components import Body, ComponentAnswer, ComponentEvent, ComponentMessage

log = structlog.get_logger(log="vsfwd.relay")

MAX_UNTAKEN: Final = 64
"""Messages for one subscription that its client has not read."""
SLOW_S: Final = 30.0
"""How long the oldest of them may wait."""
MAX_UNANSWERED: Final = 64
"""Calls that one component has not answered."""
RATE: Final = 50
"""Messages a second that one component may say,"""
BURST: Final = 100
"""and at once."""
PATIENCE_S: Final = 10


class NotConnected(Exception):
    """No broker has confirmed the message; the text says why."""


class NoAnswer(Exception):
    """Nobody answered in time."""


class Failed(Exception):
    """The answer is an error; the text is the other side's."""


class NobodyWaits(Exception):
    """There is no such call, or not any more."""


@dataclass(eq=False)
class Subscription:
    """`cut_off` ends the connection of a client that does not read."""

    component: str
    topics: frozenset[str]
    cut_off: Callable[[str], None]
    waiting: deque[tuple[float, ComponentMessage]] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, message: ComponentMessage) -> bool:
        """Whether there is room for it."""
        now = asyncio.get_running_loop().time()
        if len(self.waiting) >= MAX_UNTAKEN or (self.waiting and self.waiting[0][0] < now - SLOW_S):
            return False
        self.waiting.append((now, message))
        self.filled.set()
        return True

    async def next(self) -> ComponentMessage:
        while not self.waiting:
            self.filled.clear()
            await self.filled.wait()
        return self.waiting.popleft()[1]


@dataclass(frozen=True)
class _Asked:
    """A call of the manager that a component has."""

    subscription: Subscription
    until: float


class Relay:
    def __init__(self, tell: Callable[[ComponentEvent], Awaitable[None]]) -> None:
        """`tell` returns when the manager's broker has it. Raises NotConnected."""
        self._tell = tell
        self._subscriptions: list[Subscription] = []
        self._asked: dict[str, _Asked] = {}
        self._asking: dict[str, asyncio.Future[ComponentAnswer]] = {}
        self._due: dict[str, float] = {}
        """When each component has used up what it said, at its pace."""
        self._farewells: set[asyncio.Task[None]] = set()

    # From a component

    def subscribe(
        self, component: str, topics: Iterable[str], cut_off: Callable[[str], None]
    ) -> Subscription:
        subscription = Subscription(component, frozenset(topics), cut_off)
        self._subscriptions.append(subscription)
        log.info("component subscribed", component=component, topics=sorted(subscription.topics))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """What it was asked and did not answer, nobody will."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        log.info("component left", component=subscription.component)
        left = [id for id, asked in self._asked.items() if asked.subscription is subscription]
        for id in left:
            del self._asked[id]
        if left:
            farewell = asyncio.create_task(self._give_up(left), name="calls nobody answers")
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def _give_up(self, calls: list[str]) -> None:
        for id in calls:
            try:
                await self._tell(ComponentAnswer(id, error="the component left without an answer"))
            except NotConnected:
                return  # the manager's patience ends

    async def publish(self, component: str, topic: str, body: Body) -> None:
        """Raises ValueError for what cannot be sent, and NotConnected."""
        message = ComponentMessage(str(uuid4()), component, topic, body)
        await self._keep_pace(component)
        await self._tell(message)

    async def call(self, component: str, topic: str, body: Body, patience_s: int) -> Body:
        """The manager's answer. Raises ValueError, NotConnected, NoAnswer and Failed."""
        message = ComponentMessage(str(uuid4()), component, topic, body, patience_s)
        await self._keep_pace(component)
        answer: asyncio.Future[ComponentAnswer] = asyncio.get_running_loop().create_future()
        self._asking[message.id] = answer
        try:
            async with asyncio.timeout(message.answer_within_s):
                await self._tell(message)
                found = await answer
        except TimeoutError:
            raise NoAnswer(f"the manager did not answer within {message.answer_within_s} s") from None
        finally:
            del self._asking[message.id]
        if found.error:
            raise Failed(found.error)
        return found.body

    async def reply(self, component: str, call: str, body: Body, error: str) -> None:
        """Raises ValueError, NobodyWaits and NotConnected."""
        asked = self._asked.get(call)
        now = asyncio.get_running_loop().time()
        if asked is None or asked.subscription.component != component or asked.until < now:
            raise NobodyWaits(f"no answer to {call[:64]!r} is waited for")
        answer = ComponentAnswer(call, body, error)
        del self._asked[call]
        try:
            await self._tell(answer)
        except NotConnected:
            self._asked[call] = asked  # it may try again
            raise

    async def _keep_pace(self, component: str) -> None:
        now = asyncio.get_running_loop().time()
        due = self._due[component] = max(self._due.get(component, now), now) + 1 / RATE
        await asyncio.sleep(max(0.0, due - now - BURST / RATE))

    # From the manager

    def take(self, message: ComponentMessage) -> ComponentAnswer | None:
        """What is to be answered at once: that it was given to the component, or why it was not. A call that
        was given is answered by the component."""
        listening = [
            each
            for each in self._subscriptions
            if each.component == message.component and message.topic in each.topics
        ]
        if not listening:
            reason = f"component {message.component}: nobody there listens to topic {message.topic}"
            return ComponentAnswer(message.id, error=reason)
        if message.answer_within_s:
            return self._ask(listening[0], message)
        if not any([self._give(each, message) for each in listening]):
            return _cut_off(message)
        return ComponentAnswer(message.id)

    def _ask(self, subscription: Subscription, message: ComponentMessage) -> ComponentAnswer | None:
        now = asyncio.get_running_loop().time()
        self._asked = {id: asked for id, asked in self._asked.items() if asked.until >= now}
        component = message.component
        if sum(each.subscription.component == component for each in self._asked.values()) >= MAX_UNANSWERED:
            reason = f"{component}: {MAX_UNANSWERED} calls wait for its answers already"
            return ComponentAnswer(message.id, error=reason)
        if not self._give(subscription, message):
            return _cut_off(message)
        self._asked[message.id] = _Asked(subscription, now + message.answer_within_s)
        return None

    def _give(self, subscription: Subscription, message: ComponentMessage) -> bool:
        if subscription.offer(message):
            return True
        subscription.cut_off(f"component {subscription.component} does not read what it subscribed to")
        self.unsubscribe(subscription)
        return False

    def answered(self, answer: ComponentAnswer) -> None:
        """By the manager. One that comes too late is nobody's."""
        waiting = self._asking.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


def _cut_off(message: ComponentMessage) -> ComponentAnswer:
    return ComponentAnswer(message.id, error=f"{message.component}: it does not read, and was cut off")
