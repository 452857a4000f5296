"""The publisher without a broker: what becomes of what hosts say, and what is sent first."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from aio_pika.exceptions import DeliveryError
from msgspec.structs import replace
from pamqp.commands import Basic

from manager_stub.broker import Unreachable
from manager_stub.publisher import AT_ONCE, SENDING_S, Publisher
from tests.harness.waiting import eventually
from tests.unit.manager.rest import Manager
from vsfwd.amqp import SessionOver
from vsfwd.protocol import topology
from vsfwd.protocol.envelope import REPORT_AFTER
from vsfwd.protocol.messages import (
    Addresses,
    Binding,
    Bindings,
    Claim,
    Hello,
    Request,
    Source,
    digest_text,
)

pytestmark = pytest.mark.slow

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
PLUGGED = Bindings((Binding(VNIC, VM, "02:00:00:00:00:01", "veth"),))


@pytest.fixture
def publisher(manager: Manager) -> Publisher:
    """Of two hosts."""
    for host in (HOST, OTHER_HOST):
        manager.register.add_host(host, host[-1])
    return Publisher(
        manager.register,
        manager.vnics,
        manager.parts.statistics,
        manager.parts.broker,
        ["amqps://nowhere"],
        cast(Any, None),
    )


async def take(publisher: Publisher, kind: str, report: Any, host: str = HOST) -> bool:
    """Whether a message is to be acknowledged."""
    (taken,) = await publisher._take([sent(kind, report, host)])
    return taken


def sent(kind: str, report: Any, host: str = HOST) -> Any:
    return SimpleNamespace(
        routing_key=f"host.{host}.{kind}",
        user_id=host,
        body=msgspec.json.encode(report),
        content_encoding="json",
    )


async def test_what_many_hosts_have_applied_is_stored_at_once(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction, in the order of each host's words; a report between that is none is refused alone."""
    stored: list[int] = []
    original = manager.register._store_hosts
    monkeypatch.setattr(
        manager.register, "_store_hosts", lambda hosts: (stored.append(len(hosts)), original(hosts))
    )
    hello = Hello(0, 0, digest_text(0), "0.1")
    later = Hello(0, 0, digest_text(0), "0.2")
    messages = [
        sent("hello", hello),
        sent("hello", 7),
        sent("hello", hello, OTHER_HOST),
        sent("hello", later),
    ]
    assert await publisher._take(messages) == [True, False, True, True]
    assert stored == [2, 1]
    assert [manager.register.hosts[host].vsfwd for host in (HOST, OTHER_HOST)] == ["0.2", "0.1"]


async def test_a_mistake_of_the_manager_at_one_report_leaves_the_others(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts together is counted by itself where that fails: one host stops no other."""
    original = manager.register.reported

    def failing(said: Any) -> None:
        if OTHER_HOST in said:
            raise RuntimeError("a mistake")
        original(said)

    monkeypatch.setattr(manager.register, "reported", failing)
    hello = Hello(0, 0, digest_text(0), "0.1")
    messages = [sent("hello", hello, OTHER_HOST), sent("hello", hello)]
    assert await publisher._take(messages) == [False, True]
    assert [manager.register.hosts[host].reports_refused for host in (HOST, OTHER_HOST)] == [0, 1]
    assert manager.register.hosts[HOST].vsfwd == "0.1"


async def test_a_report_under_the_login_of_an_earlier_enrolment_is_refused(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the old certificate speaks for the host no more, and it is counted."""
    monkeypatch.setattr(manager.parts.broker, "logins", lambda host: (host, f"{host}.2"))
    old, new = sent("vnics", Bindings(())), sent("vnics", Bindings(()))
    new.user_id = f"{HOST}.2"
    assert await publisher._take([old, new]) == [False, True]
    assert manager.register.hosts[HOST].reports_refused == 1


async def test_an_ipv4_address_in_ipv6_clothes_ends_nothing(manager: Manager, publisher: Publisher) -> None:
    """Said by the guest's tools and as seen, of a vNIC that trusts all it is seen with: it is left out, what
    is said beside it counts."""
    mapped = "::ffff:102:304"
    (binding,) = PLUGGED.vnics
    tools = replace(binding, addresses=(mapped, "10.0.0.1"))
    assert await take(publisher, "vnics", Bindings((tools,)))
    seen = tuple(Claim(address, Source.ND) for address in (mapped, "fd00::1"))
    assert await take(publisher, "addresses", Addresses({VNIC: seen}))
    assert set(manager.register.world.claims[VNIC]) == {"10.0.0.1", "fd00::1"}


@pytest.mark.parametrize(("kind", "entry"), [("addresses", "claimed"), ("vnics", "bound")])
async def test_a_report_at_which_the_manager_fails_is_rejected_and_counted(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, kind: str, entry: str
) -> None:
    """The manager goes on: the host is shown with the reason, and another's report counts."""

    def fails(host: str, report: Any) -> None:
        raise ValueError("nobody thought of that")

    with monkeypatch.context() as patch:
        patch.setattr(manager.vnics, entry, fails)
        assert not await take(publisher, kind, Addresses({}) if kind == "addresses" else PLUGGED)
    host = manager.register.hosts[HOST]
    assert host.reports_refused == 1
    assert "nobody thought of that" in host.left_out[0]
    assert await take(publisher, "vnics", PLUGGED, OTHER_HOST)
    assert manager.register.hosts[OTHER_HOST].bindings == PLUGGED.vnics


async def test_policy_does_not_wait_for_requests(manager: Manager, publisher: Publisher) -> None:
    """However many one host has made necessary: the message for another goes out after a few of them, and
    then the rest does."""
    keys: list[str] = []
    all_sent = asyncio.Event()
    many = 10 * AT_ONCE

    async def publish(message: Any, key: str, **more: Any) -> None:
        keys.append(key)
        if len(keys) == many + 1:
            all_sent.set()

    manager.register.reported({OTHER_HOST: Hello(0, 0, digest_text(0), "0.1")})
    manager.vnics.bound(OTHER_HOST, PLUGGED)
    for number in range(many):
        manager.register.requests.add(HOST, Request(str(number), "report"))
    publishing = asyncio.create_task(publisher._publish(cast(Any, SimpleNamespace(publish=publish))))
    async with asyncio.timeout(10):
        await all_sent.wait()
    publishing.cancel()
    assert keys.index(topology.policy_key(OTHER_HOST)) == AT_ONCE
    assert keys.count(topology.app_key(HOST)) == many


async def test_what_a_host_is_asked_does_not_wait_behind_another_host(
    manager: Manager, publisher: Publisher
) -> None:
    """However much one is to be asked: hosts are asked in turn."""
    keys: list[str] = []

    async def publish(message: Any, key: str, **more: Any) -> None:
        keys.append(key)

    for number in range(10 * AT_ONCE):
        manager.register.requests.add(HOST, Request(str(number), "report"))
    manager.register.requests.add(OTHER_HOST, Request("another", "report"))
    await publisher._send_requests(cast(Any, SimpleNamespace(publish=publish)))
    assert topology.app_key(OTHER_HOST) in keys[:2]
    assert len(keys) == AT_ONCE


async def test_a_request_that_did_not_go_out_is_sent_in_the_next_session(
    manager: Manager, publisher: Publisher
) -> None:
    """The connection ended while it was published."""

    async def publish(message: Any, key: str, **more: Any) -> None:
        raise ConnectionResetError

    manager.register.requests.add(HOST, Request("1", "report"))
    with pytest.raises(ConnectionResetError):
        await publisher._send_requests(cast(Any, SimpleNamespace(publish=publish)))
    assert [(host, each.id) for host, each in manager.register.requests] == [(HOST, "1")]


async def test_o10_what_a_queue_without_a_leader_does_not_keep_is_sent_again(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster it has another leader in a moment: no session ends for it, and no pause becomes longer."""
    monkeypatch.setattr("manager_stub.publisher.PAUSE_S", (0.0, 0.0))
    answers = iter([DeliveryError(None, Basic.Nack()), DeliveryError(None, Basic.Nack()), None])
    taken = asyncio.Event()

    async def publish(message: Any, key: str, **more: Any) -> None:
        if error := next(answers):
            raise error
        taken.set()

    manager.register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    manager.vnics.bound(HOST, PLUGGED)
    publishing = asyncio.create_task(publisher._publish(cast(Any, SimpleNamespace(publish=publish))))
    async with asyncio.timeout(10):
        await taken.wait()
    publishing.cancel()
    assert [each.times for each in publisher._tries.values()] == [1]


async def test_o10_a_new_session_sends_at_once_what_is_not_applied(
    manager: Manager, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the session before had published may be lost with it: its pauses are not waited for."""
    monkeypatch.setattr(manager.parts.broker, "set_up", AsyncMock(side_effect=Unreachable("no broker")))
    manager.register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    manager.vnics.bound(HOST, PLUGGED)
    publisher._waiting()[HOST].due = 10.0**9
    assert publisher._waiting()[HOST].due == 10.0**9
    with pytest.raises(SessionOver):
        await publisher.begin(cast(Any, SimpleNamespace()))
    assert publisher._waiting()[HOST].due == 0.0


async def test_hosts_of_a_herd_are_told_for_how_long_the_manager_still_sends(
    manager: Manager, publisher: Publisher
) -> None:
    """Whoever is sent policy alone reports at once; of many, each when the last is sent its own."""
    herd = [HOST[:-3] + f"{number:03}" for number in range(3, 3 + 2 * AT_ONCE)]
    said: list[int] = []

    async def publish(message: Any, key: str, **more: Any) -> None:
        said.append(message.headers[REPORT_AFTER])

    for host in herd:
        manager.register.add_host(host, host[-3:])
    manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1") for host in herd})
    publishing = asyncio.create_task(publisher._publish(cast(Any, SimpleNamespace(publish=publish))))
    await eventually(lambda: len(said) == len(herd), "all are sent policy", 10)
    publishing.cancel()
    first, second = {*said[:AT_ONCE]}, {*said[AT_ONCE:]}
    assert first == {int((2 * AT_ONCE - 1) * SENDING_S * 1000)}
    assert second == {int((AT_ONCE - 1) * SENDING_S * 1000)}
