"""Components on the hosts, as the manager has them: what it sends them and who waits for their answers, what
they say, and what they ask.

What a component says is stored, up to a number of messages of each host and component, and read back by
whoever may; what comes twice is stored once. What is sent is not stored: it is delivered while somebody
waits for it, or not at all."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from manager_stub import audit
from manager_stub.clock import now_ms
from manager_stub.rounds import Rounds
from manager_stub.store import Store
from manager_stub.transaction import Row
from vsfwd.protocol.components import (
    KIND_OF,
    Body,
    ComponentAnswer,
    ComponentEvent,
    ComponentMessage,
)

log = structlog.get_logger("manager.components")

MAX_KEPT: Final = 200
"""Messages of one component of one host; the oldest go."""
MAX_COMPONENTS: Final = 16
"""Of one host that are kept: a host could make names up."""
MAX_OPEN: Final = 20_000
"""Messages that are sent, or wait for an answer, at once."""
MAX_SENT_AT_ONCE: Final = 64
MAX_ANSWERS: Final = 64
"""To one host that have not gone out: as many calls as wait at a `vsfwd` for one component."""
ANSWER_LIVES_S: Final = 60

Service = Callable[[str, Body], Body]
"""What the manager does for components: host and question in, answer out. Raises Declined."""


class Declined(Exception):
    """A component asked for what it does not get; the text says why."""


class Busy(Exception):
    """Too much is under way; the text says so."""


@dataclass(frozen=True)
class Letter:
    """To a host, while somebody waits for it."""

    host: str
    event: ComponentEvent
    lives_s: int

    @property
    def kind(self) -> str:
        return KIND_OF[type(self.event)]

    @property
    def json(self) -> bytes:
        return msgspec.json.encode(self.event)


class Switchboard:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.outgoing: Rounds[Letter] = Rounds()
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to send."""
        self.services: dict[tuple[str, str], Service] = {}
        """By component and topic."""
        self.listeners: dict[tuple[str, str], Callable[[str, Body], None]] = {}
        """Who else takes what a component says, once, before it is stored. Raises Declined."""
        self._waiting: dict[str, tuple[str, asyncio.Future[ComponentAnswer]]] = {}
        """By message, the host and its answer."""
        self._known: dict[str, set[str]] = {}
        """Components of each host that have said something."""
        for each in store.speakers():
            self._known.setdefault(each["host"], set()).add(each["component"])

    def hosts_by_component(self) -> Mapping[str, int]:
        """On how many hosts each has said something."""
        return Counter(component for of_host in self._known.values() for component in of_host)

    # To components

    async def send(
        self, hosts: Collection[str], component: str, topic: str, body: Body, *, call: bool, patience_s: int
    ) -> Mapping[str, ComponentAnswer]:
        """What each host answers: its component to a call; to other messages vsfwd, that it gave them to the
        component. Raises Busy."""
        if len(self._waiting) + len(hosts) > MAX_OPEN:
            raise Busy(f"{len(self._waiting)} messages to components are under way, try again")
        within_s = patience_s if call else 0
        asked = {host: ComponentMessage(str(uuid4()), component, topic, body, within_s) for host in hosts}
        loop = asyncio.get_running_loop()
        answers = {message.id: (host, loop.create_future()) for host, message in asked.items()}
        letters = [Letter(host, message, patience_s) for host, message in asked.items()]
        self._waiting |= answers
        for letter in letters:
            self.outgoing.add(letter.host, letter)
        self.wake()
        try:
            if answers:
                await asyncio.wait([answer for _, answer in answers.values()], timeout=patience_s)
        finally:
            for letter in letters:
                del self._waiting[letter.event.id]
                self.outgoing.remove(letter.host, letter)
        late = f"no answer within {patience_s} s"
        return {
            host: answer.result() if answer.done() else ComponentAnswer(id, error=late)
            for id, (host, answer) in answers.items()
        }

    def post(self, hosts: Collection[str], component: str, topic: str, body: Body, lives_s: int) -> None:
        """Nobody waits for it. Where there is no room it is left: it must be of a kind that is asked for."""
        if len(self.outgoing) + len(hosts) > MAX_OPEN:
            log.error("not sent to components: too much is under way", component=component, topic=topic)
            return
        messages = {host: ComponentMessage(str(uuid4()), component, topic, body) for host in hosts}
        for host, message in messages.items():
            self.outgoing.add(host, Letter(host, message, lives_s))
        self.wake()

    def sent_by_hand(self, component: str, topic: str, to: Mapping[str, object], call: bool) -> None:
        """In the audit log, and without the body: it may be a secret."""
        row = audit.change(f"/vsfw/components/{component}/{topic}", None, {**to, "call": call}, now_ms())
        with self._store.begin() as transaction:
            transaction.add_changes([row])

    # From components

    def acts_on(self, event: ComponentEvent) -> bool:
        """Whether more becomes of it than that it is kept, or given to who waits for it."""
        if not isinstance(event, ComponentMessage):
            return False
        about = event.component, event.topic
        return about in (self.services if event.answer_within_s else self.listeners)

    def take(self, events: Sequence[tuple[str, ComponentEvent]]) -> list[str]:
        """What hosts' components say, in its order; why each does not count, empty where it does. What is
        stored is when this returns."""
        return [reason for reason, _ in self._taken(events)]

    def _taken(self, events: Sequence[tuple[str, ComponentEvent]]) -> list[tuple[str, Row | None]]:
        known = self._store.messages_known([event.id for _, event in events])
        taken: list[tuple[str, Row | None]] = []
        for host, event in events:
            if isinstance(event, ComponentAnswer):
                self._answered(host, event)
                taken.append(("", None))
            elif (host, event.id) in known:
                taken.append(("", None))
            elif event.answer_within_s:
                self._serve(host, event)
                taken.append(("", None))
            else:
                known.add((host, event.id))
                taken.append(self._said(host, event))
        with self._store.begin() as transaction:
            transaction.add_said([row for _, row in taken if row is not None], MAX_KEPT)
        return taken

    def _said(self, host: str, message: ComponentMessage) -> tuple[str, Row | None]:
        of_host = self._known.setdefault(host, set())
        if message.component not in of_host and len(of_host) >= MAX_COMPONENTS:
            return f"component {message.component}: more than {MAX_COMPONENTS} components of one host", None
        of_host.add(message.component)
        try:
            if listener := self.listeners.get((message.component, message.topic)):
                listener(host, message.body)
        except Declined as declined:
            return f"component {message.component}, {message.topic}: {declined}", None
        row = {
            "host": host,
            "component": message.component,
            "topic": message.topic,
            "message": message.id,
            "time_ms": now_ms(),
            "body": msgspec.json.encode(message.body).decode(),
        }
        return "", row

    def _answered(self, host: str, answer: ComponentAnswer) -> None:
        """Of the host that was asked; one that comes too late is nobody's."""
        asked, waiting = self._waiting.get(answer.id, ("", None))
        if waiting is not None and asked == host and not waiting.done():
            waiting.set_result(answer)

    def _serve(self, host: str, message: ComponentMessage) -> None:
        if len(self.outgoing.of(host)) >= MAX_ANSWERS:
            return  # whoever asks is told that nobody answered in time
        service = self.services.get((message.component, message.topic))
        try:
            if service is None:
                raise Declined(f"the manager does nothing at {message.topic!r} for {message.component!r}")
            answer = ComponentAnswer(message.id, service(host, message.body))
        except Declined as declined:
            answer = ComponentAnswer(message.id, error=str(declined))
        self.outgoing.add(host, Letter(host, answer, ANSWER_LIVES_S))
        self.wake()
