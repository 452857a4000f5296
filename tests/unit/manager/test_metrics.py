"""What Prometheus is told of an installation: what the manager's other calls say, and nothing that no page
names."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from manager_stub.api import metrics as call
from manager_stub.dead_letters import DeadLetter, letter
from manager_stub.metrics import METRICS
from tests.harness.manager import served
from tests.unit.manager.moving import OTHER, SOURCE, TARGET, applies
from tests.unit.manager.rest import VSFW, Manager
from tests.unit.test_metrics import Found, parsed
from vsfwd.protocol.components import ComponentMessage
from vsfwd.protocol.messages import Hello, digest_text

NAME = 'a "host"\\'
PATH = f"{VSFW}/metrics"


@pytest.fixture
def fleet(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Three hosts: one has everything, one was sent it, one is away; on that a component has spoken, and is
    to hear something. The broker holds two dead letters."""

    async def two() -> int:
        return 2

    async def none(_: Any) -> list[Any]:
        return []

    broker, presence, switchboard = manager.parts.broker, manager.parts.presence, manager.parts.switchboard
    monkeypatch.setattr(broker, "dead_letters", two)
    monkeypatch.setattr(broker, "oldest_dead_letters", none)
    monkeypatch.setattr(broker, "strangers", none)
    for host, name in ((SOURCE, NAME), (TARGET, "host2"), (OTHER, "host3")):
        manager.register.add_host(host, name)
    manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1.0") for host in (SOURCE, TARGET)})
    applies(manager, SOURCE)
    presence.begin([SOURCE, TARGET])
    presence.went(OTHER, "tag")
    switchboard.take([(OTHER, ComponentMessage(str(uuid4()), "agent", "users", {}))])
    switchboard.post([OTHER], "agent", "users", {}, 60)
    return manager


async def told(manager: Manager) -> Found:
    answer = await manager.answer("GET", PATH)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.content)


async def test_it_says_of_each_host_where_it_stands_and_of_all_how_many(fleet: Manager) -> None:
    """As /api/v1/vsfw/hosts does; names survive, whatever is in them."""
    found, hosts = await told(fleet), (await fleet.call("GET", f"{VSFW}/hosts"))["results"]
    labels = {host["id"]: {"host": host["id"], "name": host["display_name"]} for host in hosts}
    assert labels[SOURCE]["name"] == NAME
    for name, said in (
        ("host_in_sync", lambda host: host["in_sync"]),
        ("host_generation_wanted", lambda host: host["wanted"]["generation"]),
        ("host_generation_applied", lambda host: host["applied"]["generation"]),
        ("host_up", lambda host: host["connected"]),
    ):
        assert found[f"vsfw_manager_{name}"] == [(labels[host["id"]], said(host)) for host in hosts], name
    assert [n for _, n in found["vsfw_manager_host_in_sync"]] == [1, 0, 0]
    assert [n for _, n in found["vsfw_manager_host_up"]] == [1, 1, 0]
    states = [({"state": "up"}, 2), ({"state": "down"}, 1), ({"state": "unknown"}, 0)]
    assert found["vsfw_manager_hosts"] == states
    assert found["vsfw_manager_messages_unconfirmed"] == [({}, 1)]
    assert found["vsfw_manager_components"] == [({"component": "agent"}, 1)]
    assert found["vsfw_manager_component_messages_waiting"] == [({}, 1)]
    assert found["vsfw_manager_dead_letters"] == [({}, 2)]


async def test_of_a_host_that_may_be_up_or_down_it_says_neither(fleet: Manager) -> None:
    """The broker tells nothing: no alert goes off by a 0 that nobody knows."""
    fleet.parts.presence.end()
    found = await told(fleet)
    assert "vsfw_manager_host_up" not in found
    assert found["vsfw_manager_hosts"][2] == ({"state": "unknown"}, 3)


async def test_alarms_count_while_they_are_open(fleet: Manager) -> None:
    """By severity; one that somebody knows of does not."""

    async def counted() -> dict[str, float]:
        return {labels["severity"]: n for labels, n in (await told(fleet))["vsfw_manager_alarms"]}

    assert await counted() == {"CRITICAL": 1, "HIGH": 0, "MEDIUM": 1, "LOW": 0}
    alarm = f"/api/v1/alarms/management_channel_to_transport_node_down.{OTHER}"
    await fleet.call("POST", f"{alarm}?action=set_status&new_status=ACKNOWLEDGED")
    assert await counted() == {"CRITICAL": 0, "HIGH": 0, "MEDIUM": 1, "LOW": 0}


async def test_who_asks_every_few_seconds_looks_at_no_letter(
    fleet: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker counts each look. Whoever has looked closer and knows of them need not be told of them."""

    async def letters(_: int) -> list[DeadLetter]:
        nonlocal looks
        looks += 1
        return [letter({"properties": []})]

    async def medium() -> float:
        return {labels["severity"]: n for labels, n in (await told(fleet))["vsfw_manager_alarms"]}["MEDIUM"]

    looks = 0
    monkeypatch.setattr(fleet.parts.broker, "oldest_dead_letters", letters)
    assert await medium() == 1
    assert looks == 0
    (alarm,) = (await fleet.call("GET", "/api/v1/alarms?event_type=dead_letters"))["results"]
    assert alarm["description"].endswith("Of the oldest 1: 1 of nobody known, for no known reason.")
    await fleet.call("POST", f"/api/v1/alarms/{alarm['id']}?action=set_status&new_status=ACKNOWLEDGED")
    assert await medium() == 0


async def test_every_figure_that_the_page_names_is_there_with_its_labels(fleet: Manager) -> None:
    """And with the type that its page says."""
    answer = await fleet.answer("GET", PATH)
    found = parsed(answer.content)
    assert {name: set(samples[0][0]) for name, samples in found.items()} == {
        each.name: set(each.labels) for each in METRICS
    }
    for each in METRICS:
        assert f"# TYPE {each.name} {each.type}\n" in answer.text


async def test_a_broker_that_does_not_answer_takes_only_what_it_knows_along(
    fleet: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus does not wait for it: of hosts, and what is wrong with them, it hears what the manager
    knows."""

    async def hangs() -> int:
        return await asyncio.sleep(5, 2)

    monkeypatch.setattr(fleet.parts.broker, "dead_letters", hangs)
    monkeypatch.setattr(call, "BROKER_S", 0.01)
    found = await told(fleet)
    assert {each.name for each in METRICS} - found.keys() == {"vsfw_manager_dead_letters"}
    assert [n for _, n in found["vsfw_manager_alarms"]] == [1, 0, 0, 0]


async def test_the_broker_is_asked_for_each_number_once(
    fleet: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of dead letters is a figure, and an alarm."""

    async def two() -> int:
        nonlocal asked
        asked += 1
        return 2

    asked = 0
    monkeypatch.setattr(fleet.parts.broker, "dead_letters", two)
    assert (await told(fleet))["vsfw_manager_dead_letters"] == [({}, 2)]
    assert asked == 1


@pytest.mark.slow
def test_a_manager_without_a_broker_says_so(tmp_path: Path) -> None:
    """A real one, over TLS, asked as Prometheus asks; nobody without a password is told."""
    with served(tmp_path) as manager:
        assert httpx.get(f"{manager.url}{PATH}", verify=manager.tls, trust_env=False).status_code == 401
        found = parsed(manager.rest.get(PATH).content)
    assert found["vsfw_manager_broker_connected"] == [({}, 0)]
    assert found["vsfw_manager_hosts"][0] == ({"state": "up"}, 0)
    assert "vsfw_manager_dead_letters" not in found
