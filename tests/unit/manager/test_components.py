"""Components on the hosts, by REST: what they are sent, what they answer, what they have said. The hosts are
the test."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest

from manager_stub.components import courier
from manager_stub.components import switchboard as board
from manager_stub.components.courier import Courier
from manager_stub.components.switchboard import Declined, Switchboard
from tests.unit.manager.rest import VSFW, Manager
from vsfwd.protocol.components import MAX_MESSAGE, ComponentAnswer, ComponentMessage

COMPONENTS = f"{VSFW}/components"
HOSTS = [f"33333333-0000-4000-8000-00000000000{number}" for number in range(3)]


@pytest.fixture
async def hosts(manager: Manager) -> list[str]:
    """Three, of which two are in a cluster, and that in a datacenter."""
    for host in HOSTS:
        manager.register.add_host(host, f"host{host[-1]}")
    await manager.call("PUT", f"{VSFW}/clusters/c", {"hosts": HOSTS[1:]})
    await manager.call("PUT", f"{VSFW}/datacenters/d", {"clusters": ["c"]})
    return HOSTS


async def answered(
    manager: Manager, kind: str, body: Any, answer: Callable[[str, ComponentMessage], ComponentAnswer | None]
) -> Any:
    """What the caller gets when the hosts answer so."""
    asking = asyncio.create_task(manager.answer("POST", f"{COMPONENTS}/agent/{kind}", body))
    async with asyncio.timeout(20):
        while not asking.done():
            for _, letter in manager.parts.switchboard.outgoing.take(100):
                assert isinstance(letter.event, ComponentMessage)
                if found := answer(letter.host, letter.event):
                    manager.parts.switchboard.take([(letter.host, found)])
            await asyncio.sleep(0.001)
    return (await asking).json()


def said(topic: str = "users", component: str = "agent", **body: Any) -> ComponentMessage:
    return ComponentMessage(str(uuid4()), component, topic, body)


@pytest.mark.parametrize(
    ("to", "reached"),
    [
        ({"hosts": HOSTS[:1]}, HOSTS[:1]),
        ({"clusters": ["c"]}, HOSTS[1:]),
        ({"datacenters": ["d"]}, HOSTS[1:]),
        ({"hosts": HOSTS[:1], "clusters": ["c"]}, HOSTS),
        ({"all_hosts": True}, HOSTS),
    ],
)
async def test_a_call_reaches_those_who_are_named(
    manager: Manager, hosts: list[str], to: Any, reached: list[str]
) -> None:
    """Hosts, those of clusters and of datacenters, or all: each once, with its answer."""
    body = {"topic": "users", "body": {"q": 1}, **to}
    found = await answered(
        manager,
        "calls",
        body,
        lambda host, message: ComponentAnswer(message.id, {"of": host, **message.body}),
    )
    assert [each["host"]["id"] for each in found["results"]] == reached
    assert [each["body"] for each in found["results"]] == [{"of": host, "q": 1} for host in reached]
    assert all(each["done"] and not each["reason"] for each in found["results"])


async def test_who_does_not_answer_stops_no_other(manager: Manager, hosts: list[str]) -> None:
    """One is late, one refuses, one answers."""

    def answer(host: str, message: ComponentMessage) -> ComponentAnswer | None:
        refused = ComponentAnswer(message.id, error="nobody there")
        return {HOSTS[1]: ComponentAnswer(message.id, {"ok": True}), HOSTS[2]: refused}.get(host)

    found = await answered(manager, "calls", {"topic": "users", "all_hosts": True, "timeout_s": 1}, answer)
    assert [(each["done"], each["reason"]) for each in found["results"]] == [
        (False, "no answer within 1 s"),
        (True, ""),
        (False, "nobody there"),
    ]


async def test_who_cannot_be_reached_is_told_at_once(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is known to be down, and every host where there is no broker: nobody waits for it."""
    monkeypatch.setattr(manager.parts.presence, "is_up", lambda host: host != HOSTS[1])
    body = {"topic": "users", "all_hosts": True, "timeout_s": 60}
    found = await answered(manager, "calls", body, lambda host, message: ComponentAnswer(message.id))
    assert [each["reason"] for each in found["results"]] == ["", "host is down", ""]
    link = manager.parts.publisher
    link.connected_to, link.last_error = None, "amqps://10.0.0.1:5671: refused"
    found = await manager.call("POST", f"{COMPONENTS}/agent/calls", body)
    reasons = {each["reason"] for each in found["results"]}
    assert reasons == {"no broker (amqps://10.0.0.1:5671: refused)"}
    assert not manager.parts.switchboard.outgoing


async def test_a_message_is_no_call(manager: Manager, hosts: list[str]) -> None:
    """Nobody waits for the component; vsfwd says that it was given."""
    patience = []

    def answer(host: str, message: ComponentMessage) -> ComponentAnswer:
        patience.append(message.answer_within_s)
        return ComponentAnswer(message.id)

    body = {"topic": "users", "hosts": HOSTS[:1]}
    assert (await answered(manager, "messages", body, answer))["results"][0]["done"]
    await answered(manager, "calls", body, answer)
    assert patience == [0, 10]


async def test_a_host_cannot_answer_for_another(manager: Manager, hosts: list[str]) -> None:
    """Though it knows the id."""

    def answer(host: str, message: ComponentMessage) -> None:
        manager.parts.switchboard.take([(HOSTS[1], ComponentAnswer(message.id, {"false": True}))])

    body = {"topic": "users", "hosts": HOSTS[:1], "timeout_s": 1}
    found = await answered(manager, "calls", body, answer)
    assert not found["results"][0]["done"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"topic": "users"}, "say hosts, clusters, datacenters or all_hosts"),
        ({"topic": "users", "hosts": [str(uuid4())]}, "hosts.0: there is no host"),
        ({"topic": "users", "clusters": ["x"]}, "clusters: there is no 'x'"),
        ({"topic": "users", "datacenters": ["x"]}, "datacenters: there is no 'x'"),
        ({"topic": "Users", "all_hosts": True}, "topic"),
        ({"topic": "users", "all_hosts": True, "timeout_s": 61}, "timeout_s"),
        ({"topic": "users", "all_hosts": True, "body": []}, "body: Input should be"),
        ({"topic": "users", "all_hosts": True, "body": {"x": "x" * 16384}}, "over the limit of 16384"),
        ({"topic": "users", "all_hosts": True, "body": {"n": 2**64}}, "an integer of more than 64 bits"),
        ({"topic": "users", "all_hosts": True, "reply": 1}, "reply: unknown field"),
    ],
)
async def test_what_cannot_be_sent_is_refused_by_field(
    manager: Manager, hosts: list[str], body: Any, reason: str
) -> None:
    """Nothing goes out, and there is no line about it in the audit log."""
    before = await manager.call("GET", f"{VSFW}/audit-log")
    answer = await manager.answer("POST", f"{COMPONENTS}/agent/messages", body)
    assert answer.status_code == 400
    assert reason in answer.json()["error_message"]
    assert not manager.parts.switchboard.outgoing
    assert await manager.call("GET", f"{VSFW}/audit-log") == before


async def test_who_sent_what_to_whom_is_in_the_audit_log_but_not_the_body(
    manager: Manager, hosts: list[str]
) -> None:
    """It may be a key."""
    body = {"topic": "users", "clusters": ["c"], "body": {"key": "hush"}, "timeout_s": 1}
    await answered(manager, "messages", body, lambda host, message: ComponentAnswer(message.id))
    (line,) = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/components"))["results"]
    assert (line["user"], line["path"]) == ("admin", "/vsfw/components/agent/users")
    assert line["after"] == {
        "hosts": [], "clusters": ["c"], "datacenters": [], "all_hosts": False, "call": False
    }  # fmt: skip


async def test_what_components_say_is_read_by_host_and_topic_in_pages(
    manager: Manager, hosts: list[str]
) -> None:
    """The newest first; also after a restart."""
    first, second, third = (said(n=number) for number in range(3))
    manager.parts.switchboard.take(
        [(HOSTS[0], first), (HOSTS[1], second), (HOSTS[0], third), (HOSTS[0], said("facts", x=1))]
    )

    async def numbers(query: str) -> list[Any]:
        found = await manager.call("GET", f"{COMPONENTS}/agent/messages?{query}")
        return [each["body"].get("n") for each in found["results"]]

    assert await numbers("topic=users") == [2, 1, 0]
    assert await numbers(f"host={HOSTS[0]}") == [None, 2, 0]
    assert await numbers(f"host={HOSTS[1]}&topic=facts") == []
    page = await manager.call("GET", f"{COMPONENTS}/agent/messages?page_size=2&topic=users")
    assert await numbers(f"topic=users&cursor={page['cursor']}") == [0]
    assert page["results"][0]["host"] == {"id": HOSTS[0], "display_name": "host0"}
    speakers = (await manager.call("GET", COMPONENTS))["results"]
    assert [(each["component"], each["host"]["id"], each["messages"]) for each in speakers] == [
        ("agent", HOSTS[0], 3),
        ("agent", HOSTS[1], 1),
    ]
    manager.register.remove_host(HOSTS[0])
    assert await numbers("") == [1]


async def test_what_comes_twice_is_there_once(manager: Manager, hosts: list[str]) -> None:
    """The broker gives again what was not acknowledged, in one batch or in two; another host's message is
    not the same though it has the same id."""
    message = said(n=1)
    for batch in ([(HOSTS[0], message)] * 2, [(HOSTS[0], message), (HOSTS[1], message)]):
        assert manager.parts.switchboard.take(batch) == ["", ""]
    found = (await manager.call("GET", f"{COMPONENTS}/agent/messages"))["results"]
    assert [each["host"]["id"] for each in found] == [HOSTS[1], HOSTS[0]]


async def test_o38_what_is_kept_of_a_host_is_bounded(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each component the newest; of names that a host makes up, the first. Others are not touched."""
    monkeypatch.setattr(board, "MAX_KEPT", 3)
    monkeypatch.setattr(board, "MAX_COMPONENTS", 2)
    take = manager.parts.switchboard.take
    take([(HOSTS[1], said(n=-1))])
    for number in range(5):
        take([(HOSTS[0], said(n=number))])
    take([(HOSTS[0], said(component="other"))])
    (reason,) = take([(HOSTS[0], said(component="another"))])
    assert "more than 2 components" in reason
    found = (await manager.call("GET", f"{COMPONENTS}/agent/messages"))["results"]
    assert [each["body"]["n"] for each in found] == [4, 3, 2, -1]
    assert (await manager.call("GET", f"{COMPONENTS}/another/messages"))["results"] == []


async def test_the_manager_answers_what_components_ask(manager: Manager, hosts: list[str]) -> None:
    """With what a service of its own says, or with why not."""
    switchboard = manager.parts.switchboard

    def refuse(host: str, body: Any) -> Any:
        raise Declined("not for you")

    switchboard.services |= {("agent", "time"): lambda host, body: {"for": host}, ("agent", "no"): refuse}
    for topic in ("time", "no", "nothing"):
        switchboard.take([(HOSTS[0], ComponentMessage(str(uuid4()), "agent", topic, {}, 10))])
    answers = [letter.event for _, letter in switchboard.outgoing]
    assert all(isinstance(answer, ComponentAnswer) for answer in answers)
    assert [answer.body for answer in answers] == [{"for": HOSTS[0]}, {}, {}]
    assert [cast(ComponentAnswer, answer).error for answer in answers[1:]] == [
        "not for you",
        "the manager does nothing at 'nothing' for 'agent'",
    ]


async def test_a_host_that_asks_and_asks_has_few_answers_waiting(manager: Manager, hosts: list[str]) -> None:
    """Others are answered meanwhile, and in their turn; a question that gets none is told so by its time."""
    switchboard = manager.parts.switchboard

    def ask(host: str) -> None:
        switchboard.take([(host, ComponentMessage(str(uuid4()), "agent", "nothing", {}, 10))])

    for _ in range(2 * board.MAX_ANSWERS):
        ask(HOSTS[0])
    ask(HOSTS[1])
    assert len(switchboard.outgoing.of(HOSTS[0])) == board.MAX_ANSWERS
    assert [host for host, _ in switchboard.outgoing.take(2)] == HOSTS[:2]


class Delivery:
    """A message at the manager's queue, and what became of it."""

    def __init__(self, host: str, body: bytes, kind: str = "component", user: str | None = None) -> None:
        self.routing_key, self.user_id, self.body = f"host.{host}.{kind}", user or host, body
        self.fate = ""

    async def ack(self) -> None:
        self.fate = "stored"

    async def reject(self, requeue: bool = False) -> None:
        self.fate = "refused"


async def test_a_message_that_cannot_be_read_stops_no_other(manager: Manager, hosts: list[str]) -> None:
    """Garbage, another's name, a host nobody knows, too long: each is refused by itself, and the others of
    the batch are stored."""
    good = msgspec.json.encode(said(n=1))
    deep = json.dumps({**json.loads(good), "body": {"x": json.loads("[" * 17 + "]" * 17)}}).encode()
    batch = [
        Delivery(HOSTS[0], b"garbage"),
        Delivery(HOSTS[0], good, user=HOSTS[1]),
        Delivery(str(uuid4()), good),
        Delivery(HOSTS[0], b"[" * 40_000),
        Delivery(HOSTS[0], deep),
        Delivery(HOSTS[0], good, kind="hello"),
        Delivery(HOSTS[0], good),
    ]
    courier = Courier(manager.register, manager.parts.broker, manager.parts.switchboard)
    await courier._take(cast(Any, batch))
    assert [each.fate for each in batch] == ["refused"] * 6 + ["stored"]
    assert manager.register.hosts[HOSTS[0]].reports_refused == 3


async def test_a_component_under_the_login_of_an_earlier_enrolment_is_refused(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counted at the host."""
    monkeypatch.setattr(manager.parts.broker, "logins", lambda host: (host, f"{host}.2"))
    good = msgspec.json.encode(said())
    batch = [Delivery(HOSTS[0], good), Delivery(HOSTS[0], good, user=f"{HOSTS[0]}.2")]
    await Courier(manager.register, manager.parts.broker, manager.parts.switchboard)._take(cast(Any, batch))
    assert [each.fate for each in batch] == ["refused", "stored"]
    assert manager.register.hosts[HOSTS[0]].reports_refused == 1


async def test_a_mistake_of_the_managers_takes_one_message_with_it(
    manager: Manager, hosts: list[str]
) -> None:
    """Those that came with it are stored."""

    def stumble(host: str, body: Any) -> None:
        raise ZeroDivisionError

    manager.parts.switchboard.listeners["agent", "bad"] = stumble
    batch = [Delivery(HOSTS[0], msgspec.json.encode(said(topic))) for topic in ("users", "bad", "users")]
    await Courier(manager.register, manager.parts.broker, manager.parts.switchboard)._take(cast(Any, batch))
    assert [each.fate for each in batch] == ["stored", "refused", "stored"]
    assert len(manager.parts.store.said("agent", before=2**53, limit=10)) == 2


class Taking:
    """A courier whose queue has these messages, and whose time passes only while it takes them: `spent_s` for
    each. `batches` are what it took, by host."""

    def __init__(self, manager: Manager, monkeypatch: pytest.MonkeyPatch, waiting: list[Delivery]) -> None:
        self.now, self.slept, self.batches = 0.0, list[float](), list[list[str]]()
        self.waiting = waiting
        self.spent_s = 0.1
        self.courier = Courier(manager.register, manager.parts.broker, manager.parts.switchboard)
        monkeypatch.setattr(self.courier, "_take", self.take)
        monkeypatch.setattr("manager_stub.components.courier.asyncio.sleep", self.sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def consume(self, arrived: Callable[[Delivery], Any]) -> None:
        for each in self.waiting:
            await arrived(each)

    async def take(self, batch: list[Delivery]) -> dict[str, float]:
        self.batches.append([each.user_id for each in batch])
        self.now += self.spent_s * len(batch)
        return {each.user_id: self.spent_s * len(batch) for each in batch}

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds + 1000  # everybody is rested
        if sum(map(len, self.batches)) == len(self.waiting) - self.refused:
            raise asyncio.CancelledError

    async def all(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await self.courier._take_all(cast(Any, SimpleNamespace(consume=self.consume)))

    @property
    def refused(self) -> int:
        return sum(each.fate == "refused" for each in self.waiting)


def message(host: str = HOSTS[0]) -> Delivery:
    return Delivery(host, msgspec.json.encode(said()))


async def test_o38_as_long_as_a_batch_takes_the_manager_does_other_things(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits in the queue."""
    taking = Taking(manager, monkeypatch, [message() for _ in range(2 * courier.SHARE + 2)])
    await taking.all()
    assert taking.slept == [0.8, 0.8, 0.2]


async def test_hosts_components_are_heard_in_turn(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has a few messages of each host, and one host's alone are a small one."""
    share = courier.SHARE
    taking = Taking(manager, monkeypatch, [*(message() for _ in range(10 * share)), message(HOSTS[1])])
    await taking.all()
    assert taking.batches == [[*([HOSTS[0]] * share), HOSTS[1]], *([[HOSTS[0]] * share] * 9)]


async def test_of_a_host_that_floods_the_first_are_refused(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above what all its components may say together, and counted at the host; nothing of another's goes, not
    even if it was said first."""
    monkeypatch.setattr(courier, "MOST_WAITING", 10)
    flood = [message() for _ in range(25)]
    taking = Taking(manager, monkeypatch, [message(HOSTS[1]), *flood, message(HOSTS[1])])
    await taking.all()
    assert [each.fate for each in taking.waiting] == ["", *["refused"] * 15, *[""] * 11]
    assert manager.register.hosts[HOSTS[0]].reports_refused == 15
    assert manager.register.hosts[HOSTS[0]].left_out == ("more than 10 messages of its components at once",)


async def test_a_message_that_is_too_long_is_not_held(
    manager: Manager, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused as it comes, before those that wait for their turn."""
    long = Delivery(HOSTS[1], bytes(MAX_MESSAGE + 1))
    taking = Taking(manager, monkeypatch, [message(), long])
    await taking.all()
    assert taking.batches == [[HOSTS[1]], [HOSTS[0]]]


async def test_what_the_manager_acts_on_is_a_step_by_itself(manager: Manager, hosts: list[str]) -> None:
    """What is only kept is one with what comes beside it; who acts costs the host that asked for it."""
    clock = asyncio.get_running_loop().time

    def slow(host: str, body: Any) -> None:
        until = clock() + 0.02
        while clock() < until:
            pass

    board_, steps = manager.parts.switchboard, list[int]()
    board_.listeners["agent", "slow"] = slow
    take = board_.take
    board_.take = lambda events: steps.append(len(events)) or take(events)  # type: ignore[method-assign,func-returns-value]
    topics = ["users", "users", "slow", "slow", "users"]
    batch = [
        Delivery(HOSTS[number // 3], msgspec.json.encode(said(topic))) for number, topic in enumerate(topics)
    ]
    taker = Courier(manager.register, manager.parts.broker, board_)
    spent = await taker._take(cast(Any, batch))
    assert (steps, [each.fate for each in batch]) == ([2, 1, 1, 1], ["stored"] * 5)
    assert min(spent[HOSTS[0]], spent[HOSTS[1]]) >= 0.02


async def test_a_new_switchboard_knows_who_has_spoken(manager: Manager, hosts: list[str]) -> None:
    """So that the bound holds across a restart."""
    manager.parts.switchboard.take([(HOSTS[0], said())])
    assert Switchboard(manager.parts.store)._known == {HOSTS[0]: {"agent"}}
