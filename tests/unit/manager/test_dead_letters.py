"""O16: messages that nobody took: whose they are, and why. A component's are no trouble of its host."""

import json
from typing import Any
from uuid import uuid4

import pytest
import structlog

from manager_stub.broker import Broker
from manager_stub.components.courier import Courier
from manager_stub.dead_letters import DeadLetter, letter, summary
from tests.unit.manager.rest import VSFW, Manager

HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


def dead(queue: str, reason: str, **properties: Any) -> DeadLetter:
    """As the management API of RabbitMQ 3.10 shows a message."""
    death = {"count": 1, "reason": reason, "queue": queue, "time": 1764000000, "exchange": "vsfw.evt"}
    headers = {"headers": {"x-death": [death]}, "delivery_mode": 2}
    return letter({"routing_key": "k", "payload_bytes": 7, "properties": headers | properties})


class Message:
    def __init__(self, **said: Any) -> None:
        self.body = json.dumps({"id": str(uuid4())} | said).encode()
        self.user_id, self.routing_key = HOST, f"host.{HOST}.component"
        self.rejected = False

    async def reject(self) -> None:
        self.rejected = True


@pytest.fixture(autouse=True)
def _hosts(manager: Manager) -> None:
    for host in (HOST, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")


async def test_the_alarm_names_hosts_and_reasons(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the manager refused with its word for it, what a host did not take, what nobody can place; so does
    the list."""
    manager.register.disbelieved(HOST, "hello: no JSON")
    letters = [
        *[dead("vsfw.mgr.state", "rejected", user_id=f"{HOST}.2")] * 2,
        dead(f"vsfw.host.{OTHER}", "delivery_limit"),
        dead(f"vsfw.host.{OTHER}.app", "maxlen", user_id="manager"),
        letter({"properties": []}),
    ]

    async def count(self: Broker) -> int:
        return 40

    async def oldest(self: Broker, count: int) -> list[DeadLetter]:
        return letters

    monkeypatch.setattr(Broker, "dead_letters", count)
    monkeypatch.setattr(Broker, "oldest_dead_letters", oldest)
    alarms = (await manager.call("GET", "/api/v1/alarms"))["results"]
    (told,) = [each["description"] for each in alarms if each["event_type"] == "dead_letters"]
    assert told.endswith(
        "Of the oldest 5: 2 of host host1, refused: hello: no JSON; 1 to host host2, given back too often; "
        "1 to host host2, dropped from a full queue; 1 of nobody known, for no known reason."
    )
    first, *_ = (await manager.call("GET", f"{VSFW}/dead-letters"))["results"]
    assert first == {
        "host": {"id": HOST, "display_name": "host1"},
        "queue": "vsfw.mgr.state",
        "routing_key": "k",
        "reason": "refused",
        "description": "of host host1, refused: hello: no JSON",
        "time": 1764000000000,
        "bytes": 7,
    }


def test_what_a_publisher_writes_into_a_letter_is_no_fault_of_ours() -> None:
    """Its properties are its own."""
    for headers in ({"x-death": "x"}, {"x-death": ["x"]}, {"x-death": [{"time": "x"}]}, None):
        found = letter({"properties": {"headers": headers, "user_id": HOST}})
        assert (found.host, found.time_ms) == (HOST, 0)
    assert summary([], {}) == ""


async def test_a_components_garbage_is_a_warning_and_no_alarm_of_its_host(manager: Manager) -> None:
    """With component and host; the alarm of dead letters quotes it."""
    parts = manager.parts
    courier: Any = Courier(manager.register, parts.broker, parts.switchboard)
    message: Any = Message(component="context-agent", topic="vm", body={"vm": 1})
    with structlog.testing.capture_logs() as lines:
        await courier._take([message])
    assert message.rejected
    (line,) = lines
    assert (line["log_level"], line["host"], line["component"]) == ("warning", HOST, "context-agent")
    host = manager.register.hosts[HOST]
    assert (host.left_out, host.reports_refused) == ((), 0)
    assert host.refused_because == line["reason"]
    assert "Expected `str`, got `int`" in line["reason"]
