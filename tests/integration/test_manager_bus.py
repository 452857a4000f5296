"""The manager and a host over a real broker: enrolment, snapshot, deltas, what is lost and what is sent
again."""

import asyncio
import dataclasses
import random
import re
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError
from aiormq.exceptions import ChannelAccessRefused

from manager_stub import catalogue
from manager_stub.inquiry import Inquiry
from manager_stub.model import Rule
from tests.harness.installation import Installation
from tests.harness.waiting import eventually
from tests.integration.managed_hosts import DEADLINE_S, MAC, VM, VNIC, Host, Manager, managed
from vsfwd.policy.model import MAX_HOST_VNICS
from vsfwd.protocol import topology
from vsfwd.protocol.messages import (
    EVENTS,
    MAX_SEEN,
    Binding,
    Bindings,
    Hello,
    Reply,
    SeenFlow,
    digest_text,
)

pytestmark = pytest.mark.slow

GROUPS = "/policy/api/v1/infra/domains/default/groups"
SECTIONS = "/policy/api/v1/infra/domains/default/security-policies"
DEFAULT_RULE = f"{SECTIONS}/default-layer3-section/rules/default-layer3-rule"


@pytest.fixture
async def manager(installation: Installation) -> AsyncIterator[Manager]:
    async with managed(installation) as manager:
        yield manager
        for host in list(manager.register.hosts):
            await manager.call("DELETE", f"/api/v1/vsfw/hosts/{host}")


@pytest.fixture
async def host(manager: Manager, installation: Installation, tmp_path: Path) -> Host:
    """Enrolled; the inventory knows the VM that tests plug there."""
    await manager.put_vm("web")
    return await manager.enrol(installation, tmp_path)


async def test_a_host_gets_a_snapshot_and_then_deltas_on_what_it_applied(
    manager: Manager, host: Host
) -> None:
    """Enrolled, connected: snapshot. A tag moves: a delta on it, with the one vNIC that changed. Nothing
    more."""
    await manager.call("PUT", f"{GROUPS}/g-delta", {"expression": [condition("web"), OR, condition("app")]})
    await manager.call("PUT", f"{SECTIONS}/s-delta", {"rules": [rule("r", "g-delta")]})
    async with host.connected(VNIC):
        await manager.in_sync(host)
        await eventually(lambda: VNIC in host.state.vnics, "its own vNIC")
        assert host.headers[0].kind == "snapshot"
        known = len(host.headers)

        await manager.put_vm("db")
        await eventually(lambda: host.state.vnics[VNIC].groups == (), "the tag has moved")
        await manager.in_sync(host)
        await manager.connected(host)
        shown = await manager.shown(host)

    delta = host.headers[known:]
    assert [(header.kind, header.base) for header in delta] == [("delta", host.headers[known - 1].generation)]
    assert shown["in_sync"]
    assert shown["applied"] == {
        "epoch": host.state.epoch,
        "generation": host.state.generation,
        "digest": digest_text(host.state.digest),
    }


async def test_a_message_that_was_not_applied_is_sent_again(manager: Manager, host: Host) -> None:
    """The host loses a delta and says nothing: the same one comes again, and once applied no more."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
        known = len(host.headers)
        host.deaf = True
        await manager.call("PATCH", DEFAULT_RULE, {"logged": not default_rule(manager).logged})
        await eventually(lambda: len(host.headers) > known, "the message came")
        host.deaf = False
        await manager.in_sync(host)
    first, *again = host.headers[known:]
    assert first.kind == "delta"
    assert again
    assert {header.generation for header in again} == {first.generation}


async def test_a_host_that_is_current_is_sent_nothing(manager: Manager, host: Host) -> None:
    """Reconnecting with the digest the manager wants costs no message."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
    before = list(host.headers)
    async with host.connected(VNIC, "no UUID"):
        # Said after the hello, and about a vNIC the inventory does not take: it changes nothing the host
        # needs.
        await eventually(lambda: len(manager.register.hosts[host.id].left_out) == 1, "bindings")
        assert manager.register.hosts[host.id].level.outgoing is None
    assert host.headers == before


async def test_a_restarted_manager_sends_nothing_to_a_current_host_and_the_rest_to_others(
    installation: Installation, tmp_path: Path
) -> None:
    """What was under way when the manager ended is sent by the next one; who has everything is left alone."""
    async with managed(installation) as manager:
        current = await manager.enrol(installation, tmp_path)
        behind = await manager.enrol(installation, tmp_path)
        await manager.put_vm("before")
        async with current.connected(), behind.connected(VNIC):
            await manager.in_sync(current)
            await manager.in_sync(behind)
            behind.deaf = True
            known = len(behind.headers)
            await manager.put_vm("after")
            await manager.call("PUT", f"{GROUPS}/g-after", {"expression": [condition("after")]})
            await manager.call("PUT", f"{SECTIONS}/s-after", {"rules": [rule("r", "g-after")]})
            await eventually(lambda: len(behind.headers) > known, "a message is under way")
    behind.deaf = False
    sent_to_current = list(current.headers)
    async with managed(installation) as manager:
        async with current.connected(), behind.connected(VNIC):
            await manager.in_sync(behind)
            await manager.in_sync(current)
            assert behind.state.vnics[VNIC].groups != ()
        for id in list(manager.register.hosts):
            await manager.call("DELETE", f"/api/v1/vsfw/hosts/{id}")
        await manager.call("DELETE", f"{SECTIONS}/s-after")
        await manager.call("DELETE", f"{GROUPS}/g-after")
    assert current.headers == sent_to_current


async def test_a_host_whose_state_is_not_what_it_was_sent_gets_a_newer_snapshot(
    manager: Manager, host: Host
) -> None:
    """Its disk was lost, or its digest is wrong: a snapshot that is newer than what it says it has."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
    known = len(host.headers)
    wrong = dataclasses.replace(host.state, digest=host.state.digest ^ 1)
    host.state = wrong
    async with host.connected(VNIC):
        await manager.in_sync(host)
    assert host.headers[known].kind == "snapshot"
    assert host.headers[known].generation > wrong.generation


async def test_a_host_that_is_ahead_of_a_restored_manager_gets_a_new_epoch(
    manager: Manager, host: Host
) -> None:
    """A manager with an old copy of its database cannot count on: it starts a newer epoch."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
    ahead = dataclasses.replace(host.state, generation=host.state.generation + 100)
    host.state = ahead
    async with host.connected(VNIC):
        await manager.in_sync(host)
    assert host.state.epoch == ahead.epoch + 1


async def test_a_host_can_speak_only_for_itself(
    manager: Manager, installation: Installation, host: Host, tmp_path: Path
) -> None:
    """Another host's key is refused by the broker."""
    other = await manager.enrol(installation, tmp_path)
    async with host.connected():
        with pytest.raises(ChannelAccessRefused):
            await host.say("vnics", Bindings(()), host=other.id)


async def test_a_host_that_floods_keeps_its_last_good_report(
    manager: Manager, installation: Installation, host: Host
) -> None:
    """Too many vNICs, half a character, nonsense: refused into the dead letters, counted and told; the host
    goes on with what it had, and its next good report counts."""
    many = Bindings(tuple(Binding(f"{n:08x}{VNIC[8:]}", "", MAC, "veth") for n in range(MAX_HOST_VNICS + 1)))
    known = manager.register.hosts
    async with host.connected(VNIC):
        await manager.in_sync(host)
        await host.say("vnics", many)
        await eventually(lambda: known[host.id].reports_refused == 1, "one refused")
        for body in (rb'{"vnics": [{"vnic": "\ud800", "vm": "", "mac": "", "device": ""}]}', b"\xff"):
            before = known[host.id].reports_refused
            await host.events.publish(
                aio_pika.Message(body, user_id=host.id), topology.event_key(host.id, "vnics")
            )
            await eventually(lambda: known[host.id].reports_refused == before + 1, "one more refused")  # noqa: B023
        assert [binding.vnic for binding in known[host.id].bindings] == [VNIC]
        await manager.in_sync(host)
        await host.say("vnics", Bindings(()))
        await eventually(lambda: known[host.id].bindings == () == known[host.id].left_out, "a good one")


async def test_a_vnic_is_one_hosts_until_that_is_away(
    manager: Manager, installation: Installation, host: Host, tmp_path: Path
) -> None:
    """Another host that claims it gets no policy while the first takes its messages, nor when that has been
    away; one that claims it first then gets it, until the first is back and says that it still has it."""
    other, third = [await manager.enrol(installation, tmp_path) for _ in range(2)]
    hosts = manager.register.hosts
    async with other.connected(VNIC):
        await eventually(lambda: len(hosts[other.id].bindings) == 1, "nobody had it")
        await manager.connected(other)
        async with host.connected(VNIC):
            await eventually(lambda: len(hosts[host.id].disputed) == 1, "another has it")
            await manager.connected(host)
            await manager.in_sync(host)
            assert host.state.vnics == {}
    await manager.connected(other, False)
    async with host.connected(VNIC), third.connected(VNIC):
        await eventually(lambda: VNIC in third.state.vnics, "the other is away")
        assert hosts[host.id].bindings == ()
        async with other.connected(VNIC):
            await eventually(lambda: third.state.vnics == {}, "the other is back")


async def test_a_removed_host_is_cut_off_at_once(manager: Manager, host: Host) -> None:
    """DELETE closes its connection and its certificate opens no new one."""
    connection = await host.connect()
    cut_off = asyncio.Event()
    connection.close_callbacks.add(lambda *_: cut_off.set())
    await manager.call("DELETE", f"/api/v1/vsfw/hosts/{host.id}")
    async with asyncio.timeout(DEADLINE_S):
        await cut_off.wait()
    with pytest.raises(AMQPError):
        await host.connect()


async def test_a_broker_that_lost_everything_is_set_up_again(
    manager: Manager, installation: Installation, host: Host
) -> None:
    """Its virtual host is deleted with all that is in it; the host comes back and gets what it misses."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
    with installation.node.client() as client:
        client.delete(f"/api/vhosts/{topology.VHOST}").raise_for_status()
        client.delete(f"/api/users/{host.id}").raise_for_status()
    await manager.put_vm("after-the-loss")
    await eventually(lambda: not manager.publisher.connected_to is not None, "the session has ended")
    await eventually(lambda: manager.publisher.connected_to is not None, "a new one has begun")
    async with host.connected(VNIC):
        await manager.in_sync(host)


async def test_a_host_of_an_earlier_release_may_say_what_this_one_says(
    manager: Manager, installation: Installation, host: Host
) -> None:
    """It was allowed less when it was enrolled; at the start of a session the manager sees to it."""
    rights = {"exchange": topology.EVENTS, "write": f"^(host\\.{host.id}\\.hello)$", "read": "^$"}
    with installation.node.client() as client:
        url = f"/api/topic-permissions/{topology.VHOST}/{host.id}"
        client.put(url, json=rights).raise_for_status()
        await manager.publisher._broker.add_missing_hosts(manager.register.hosts)
        (now,) = client.get(url).json()
        limit = f"/api/user-limits/{host.id}"
        client.delete(f"{limit}/max-connections").raise_for_status()
        await manager.publisher._broker.add_missing_hosts(manager.register.hosts)
        (limits,) = client.get(limit).json()
    assert limits["value"] == {"max-connections": 16, "max-channels": 64}
    assert all(re.fullmatch(now["write"], topology.event_key(host.id, kind)) for kind in EVENTS)
    assert not re.fullmatch(now["write"], topology.event_key(VM, "statistics"))


async def test_a_session_that_the_broker_ends_begins_anew(
    manager: Manager, installation: Installation, host: Host
) -> None:
    """Every connection of the manager is closed by the broker: a new session delivers what is to be sent."""
    async with host.connected(VNIC):
        await manager.in_sync(host)
        with installation.node.client() as client:
            close = lambda: client.delete("/api/connections/username/manager").is_success  # noqa: E731
            await eventually(close, "RabbitMQ has closed them, which may fail at the first try")
        await eventually(lambda: not manager.publisher.connected_to is not None, "the session has ended")
        await manager.call("PATCH", DEFAULT_RULE, {"logged": not default_rule(manager).logged})
        await manager.in_sync(host)


async def test_a_host_answers_with_all_it_may_say_or_with_what_cannot_be_read(
    manager: Manager, host: Host
) -> None:
    """Ten thousand flows between addresses without a pattern fit into one answer, compressed. One that is no
    answer is refused, and so known to whoever waits; neither ends the manager's session."""
    inquiry = Inquiry(manager.register, DEADLINE_S)
    chance = random.Random(1)

    def address() -> str:
        return str(IPv6Address(chance.getrandbits(128)))

    flows = tuple(
        SeenFlow("in", 6, address(), address(), number, number, None, None, number, 1)
        for number in range(MAX_SEEN)
    )
    async with host.connected(VNIC):
        for answer, error in (
            (lambda id: Reply(id, flows={VNIC: flows}), ""),
            (lambda id: Hello(1, 1, "no answer", "test"), "its answer was refused"),
        ):
            asking = asyncio.create_task(inquiry.flows([host.id], 5))
            request = await asyncio.wait_for(host.asked.get(), DEADLINE_S)
            assert (request.method, request.minutes) == ("flows", 5)
            await host.say("reply", answer(request.id))
            told = (await asking)[host.id]
            assert told.error.startswith(error)
            assert told.flows == ({} if error else {VNIC: flows})
        await manager.in_sync(host)


OR = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}


def condition(tag: str) -> dict[str, str]:
    """VMs with this tag in scope "tier"."""
    return {
        "resource_type": "Condition",
        "member_type": "VirtualMachine",
        "key": "Tag",
        "operator": "EQUALS",
        "value": f"tier|{tag}",
    }


def default_rule(manager: Manager) -> Rule:
    return manager.register.world.rules[catalogue.DEFAULT_RULE].body


def rule(id: str, source: str) -> dict[str, Any]:
    return {"id": id, "source_groups": [f"/infra/domains/default/groups/{source}"], "action": "DROP"}
