"""Two managers beside each other, on one database and one broker: one leads. Whatever becomes of it, hosts
get what is wanted, and no host applies anything twice or goes back (O18)."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.managers import TAKEOVER_S, Manager, Managers, managers
from tests.harness.simulated import SimulatedHost, Took
from vagrant.lab.waiting import wait_until
from vsfwd.applythread import ApplyThread
from vsfwd.protocol.messages import Binding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HOSTS = 3
RULES = "/policy/api/v1/infra/domains/default/security-policies/storm/rules"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managers]:
    with managers(tmp_path_factory.mktemp("managers"), 2) as found:
        yield found


class Fleet:
    """Hosts with a vNIC each. `enforced`: by host, the (epoch, generation) of each state it applied."""

    def __init__(self, found: Managers) -> None:
        self.found = found
        self.enforced: dict[str, list[tuple[int, int]]] = {}
        self._number = 0

    def host(self, number: int, apply_thread: ApplyThread) -> SimulatedHost:
        config = self.found.enrol(f"host{number}-{uuid.uuid4()}")
        binding = Binding(str(uuid.uuid4()), str(uuid.uuid4()), f"02:00:00:00:00:{number:02x}", "veth0")
        self.enforced[config.host_id] = []
        return SimulatedHost(config, [binding], apply_thread, self._took)

    def _took(self, host: SimulatedHost, took: Took) -> None:
        self.enforced[host.id].append((took.state.epoch, took.state.generation))

    async def change(self) -> None:
        """One rule more, at whoever leads."""
        self._number += 1
        body = {"action": "ALLOW", "display_name": str(self._number)}
        await asyncio.to_thread(self.found.call, "PATCH", f"{RULES}/r{self._number}", body)

    async def converges(self, after: str) -> None:
        begun = time.monotonic()
        await eventually(self._in_sync, "all hosts are in sync")
        print(f"all hosts have all of it {time.monotonic() - begun:.1f} s after {after}")
        for positions in self.enforced.values():
            assert positions == sorted(set(positions)), "a host went back, or applied a generation twice"
            assert positions

    def _in_sync(self) -> bool:
        hosts: list[dict[str, Any]] = self.found.call("GET", "/api/v1/vsfw/hosts")["results"]
        newest = {id: positions[-1:] for id, positions in self.enforced.items()}
        return all(
            host["in_sync"]
            and newest[host["id"]] == [(host["wanted"]["epoch"], host["wanted"]["generation"])]
            for host in hosts
            if host["id"] in newest
        )


@pytest.fixture
async def fleet(found: Managers) -> AsyncIterator[Fleet]:
    fleet, apply_thread = Fleet(found), ApplyThread()
    found.call("PATCH", RULES.removesuffix("/rules"), {"category": "Application"})
    async with asyncio.TaskGroup() as tasks:
        hosts = [await asyncio.to_thread(fleet.host, number, apply_thread) for number in range(HOSTS)]
        running = [tasks.create_task(host.run()) for host in hosts]
        await fleet.change()
        await fleet.converges("the beginning")
        yield fleet
        for task in running:
            task.cancel()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, TAKEOVER_S)


async def storm(fleet: Fleet, fault: Callable[[], Awaitable[None]]) -> None:
    """Changes, one after the other, before, during and after the fault."""
    for number in range(6):
        if number == 2:
            await fault()
        await fleet.change()


async def test_o18_a_leader_that_is_killed_is_followed_by_the_other(fleet: Fleet) -> None:
    """In the middle of changes; nothing that was answered is lost. Started again it stands by, and says who
    leads."""
    killed = await asyncio.to_thread(fleet.found.leader)

    async def kill() -> None:
        killed.kill()

    await storm(fleet, kill)
    await fleet.converges("the leader was killed")
    leader = await asyncio.to_thread(fleet.found.leader)
    assert leader is not killed
    killed.start()
    await eventually(killed.stands_by, "the killed one stands by")

    def says_who_leads() -> bool:
        answer = killed.rest.get("/api/v1/vsfw/hosts")
        return f"https://{leader.directory.config.listen} leads" in answer.json()["error_message"]

    await eventually(says_who_leads, "the killed one says who leads")


async def test_o18_a_leader_that_was_stopped_finds_out_before_it_writes_or_publishes(fleet: Fleet) -> None:
    """It stood still with a message to send, and goes on when the other has led for a while: it says nothing
    to hosts or database, and stands by."""
    stopped = await asyncio.to_thread(fleet.found.leader)

    async def stop() -> None:
        await asyncio.to_thread(stopped.pause)

    await storm(fleet, stop)
    await fleet.converges("the leader was stopped")
    other = await asyncio.to_thread(fleet.found.leader)
    assert other is not stopped
    published = len(published_by(stopped))
    stopped.resume()
    await eventually(stopped.stands_by, "the stopped one stands by")
    await fleet.change()
    await fleet.converges("the stopped one went on")
    await eventually(other.leads, "the other leads")
    assert len(published_by(stopped)) == published


async def test_a_leader_without_its_database_says_so_and_leads_again(fleet: Fleet) -> None:
    """Both stand by, and hosts keep what they have; with the database one leads, and nothing is lost."""
    await fleet.change()
    fleet.found.postgres.kill()
    await eventually(lambda: all(each.stands_by() for each in fleet.found.all), "nobody leads")
    fleet.found.postgres.start()
    await fleet.change()
    await fleet.converges("the database was back")


def published_by(manager: Manager) -> list[str]:
    return [line for line in Path(manager.log).read_text().splitlines() if "published" in line]
