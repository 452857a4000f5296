"""What somebody says of an alarm: that they know, or do not want to see it for a while."""

from typing import Any

import pytest

from manager_stub.alarms.alarm import Alarm
from manager_stub.alarms.alarms import HOUR_S, Alarms
from manager_stub.alarms.causes import Causes
from manager_stub.broker import Unreachable
from manager_stub.enrolment.credentials import Credentials
from manager_stub.expiries import Expiries
from manager_stub.presence import Presence
from tests.unit.manager.rest import Manager

HOST = "33333333-0000-4000-8000-000000000001"
AWAY = f"management_channel_to_transport_node_down.{HOST}"
ALARMS = "/api/v1/alarms"


class Broker:
    """Says who is connected."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    def connect(self, host: str) -> None:
        self._presence.came(host, "tag")

    def disconnect(self, host: str) -> None:
        self._presence.went(host, "tag")


@pytest.fixture
def broker(manager: Manager) -> Broker:
    """Nobody is connected, and there is one host."""
    manager.register.add_host(HOST, "host1")
    manager.parts.presence.begin(())
    broker = Broker(manager.parts.presence)
    broker.disconnect(HOST)
    return broker


async def say(manager: Manager, query: str) -> Any:
    return await manager.call("POST", f"{ALARMS}/{AWAY}?action=set_status&{query}")


async def test_an_alarm_is_acknowledged_and_open_again(manager: Manager, broker: Broker) -> None:
    """By who may operate; the list shows it, and can leave it out; the audit log says who did it."""
    assert (await manager.call("GET", f"{ALARMS}/{AWAY}"))["status"] == "OPEN"
    assert (await say(manager, "new_status=ACKNOWLEDGED"))["status"] == "ACKNOWLEDGED"
    assert (await manager.call("GET", f"{ALARMS}?status=OPEN"))["results"] == []
    both = await manager.call("GET", f"/policy{ALARMS}?status=OPEN,ACKNOWLEDGED&severity=CRITICAL")
    assert [each["id"] for each in both["results"]] == [AWAY]
    (line,) = (await manager.call("GET", f"/api/v1/vsfw/audit-log?path=/alarms/{AWAY}"))["results"]
    assert (line["user"], line["after"]["status"]) == ("admin", "ACKNOWLEDGED")
    assert (await say(manager, "new_status=OPEN"))["status"] == "OPEN"


async def test_what_was_acknowledged_is_gone_with_its_cause(manager: Manager, broker: Broker) -> None:
    """When it comes back it is a new alarm, which nobody has seen."""
    await say(manager, "new_status=ACKNOWLEDGED")
    broker.connect(HOST)
    assert (await manager.call("GET", ALARMS))["results"] == []
    broker.disconnect(HOST)
    assert (await manager.call("GET", f"{ALARMS}/{AWAY}"))["status"] == "OPEN"


async def test_what_nobody_can_ask_for_is_not_gone(
    manager: Manager, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is no broker nobody knows whether the host is there, nor of dead letters. What somebody has
    said of either holds when the broker is back."""

    async def letters() -> int:
        if away:
            raise Unreachable("count dead letters: timed out")
        return 3

    async def none(_: Any) -> list[Any]:
        return []

    away = False
    monkeypatch.setattr(manager.parts.broker, "dead_letters", letters)
    monkeypatch.setattr(manager.parts.broker, "oldest_dead_letters", none)
    monkeypatch.setattr(manager.parts.broker, "strangers", none)
    ids = [each["id"] for each in (await manager.call("GET", ALARMS))["results"]]
    assert len(ids) == 2
    for id in ids:
        await manager.call("POST", f"{ALARMS}/{id}?action=set_status&new_status=ACKNOWLEDGED")
    away = True
    manager.parts.presence.end()
    assert (await manager.call("GET", ALARMS))["results"] == []
    away = False
    manager.parts.presence.begin(())
    broker.disconnect(HOST)
    assert len((await manager.call("GET", f"{ALARMS}?status=ACKNOWLEDGED"))["results"]) == 2


async def test_a_suppressed_alarm_says_who_does_not_want_to_see_it(manager: Manager, broker: Broker) -> None:
    """And for how long."""
    alarm = await say(manager, "new_status=SUPPRESSED&suppress_duration=2")
    assert (alarm["status"], alarm["suppressed_by"], alarm["suppress_duration"]) == ("SUPPRESSED", "admin", 2)


async def test_an_alarm_is_suppressed_for_so_many_hours(manager: Manager, broker: Broker) -> None:
    """And open after them."""
    now = 1_000_000.0
    expiries = Expiries(manager.directory.path, Credentials(manager.parts.store))
    parts = manager.parts
    causes = Causes(manager.register, parts.presence, parts.broker, expiries, parts.publisher)
    alarms = Alarms(causes, parts.store, lambda: now)

    async def found() -> Alarm:
        alarm = await alarms.find(AWAY)
        assert alarm is not None
        return alarm

    alarms.say(await found(), "SUPPRESSED", 2)
    now += 2 * HOUR_S - 1
    assert (await found()).status == "SUPPRESSED"
    now += 1
    assert (await found()).status == "OPEN"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("new_status=RESOLVED", "new_status"),
        ("new_status=SUPPRESSED", "suppress_duration"),
        ("new_status=SUPPRESSED&suppress_duration=0", "suppress_duration"),
        ("new_status=GONE", "new_status"),
    ],
)
async def test_nobody_resolves_what_is_still_wrong(
    manager: Manager, broker: Broker, query: str, why: str
) -> None:
    """Nor hides it for ever: 400, and the alarm stays open."""
    answer = await manager.answer("POST", f"{ALARMS}/{AWAY}?action=set_status&{query}")
    assert (answer.status_code, answer.json()["error_message"].startswith(why)) == (400, True)
    assert (await manager.call("GET", f"{ALARMS}/{AWAY}"))["status"] == "OPEN"


async def test_there_is_no_alarm_without_a_cause(manager: Manager, broker: Broker) -> None:
    """404, to read and to change."""
    for method, query in (("GET", ""), ("POST", "?action=set_status&new_status=ACKNOWLEDGED")):
        answer = await manager.answer(method, f"{ALARMS}/{AWAY.replace('0001', '0002')}{query}")
        assert answer.status_code == 404
