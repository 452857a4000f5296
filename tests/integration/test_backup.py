"""O17: a manager that is restored from a backup while its broker and its hosts go on."""

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from manager_stub import backup
from manager_stub.alarms.causes import Causes
from manager_stub.app import Parts
from manager_stub.expiries import Expiries
from manager_stub.model import Group, Rule, SecurityPolicy
from manager_stub.register import Register
from tests.harness.installation import Installation, installed
from tests.harness.simulated import SimulatedHost
from tests.harness.waiting import eventually
from vsfwd.applythread import ApplyThread
from vsfwd.protocol.messages import Binding

pytestmark = pytest.mark.slow

PASSPHRASE = "correct horse battery"
GROUP = "/infra/domains/default/groups/number"
SECTION = "/infra/domains/default/security-policies/s"
MAC = "02:00:00:00:00:01"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as installation:
        yield installation


@pytest.fixture
def apply_thread() -> Iterator[ApplyThread]:
    thread = ApplyThread()
    yield thread
    thread.finish(lambda: None)


def say(register: Register, number: int) -> None:
    """The policy's number is an address in it."""
    addresses = {"resource_type": "IPAddressExpression", "ip_addresses": [f"10.1.0.{number}"]}
    register.write(
        put={
            GROUP: Group.model_validate({"expression": [addresses]}),
            SECTION: SecurityPolicy.model_validate({"category": "Emergency"}),
            f"{SECTION}/rules/r": Rule.model_validate({"source_groups": [GROUP], "action": "ALLOW"}),
        }
    )


async def enforced(host: SimulatedHost, number: int) -> None:
    """Once the manager's answer has come, this is what the host has."""
    state = lambda: host.reconciler.state  # noqa: E731
    wanted = [(f"10.1.0.{number}",)]
    await eventually(
        lambda: [each.addresses for each in state().groups.values()] == wanted and bool(state().vnics),
        f"the host enforces {number}",
    )


@asynccontextmanager
async def running(host: SimulatedHost) -> AsyncIterator[None]:
    task = asyncio.create_task(host.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_hosts_that_stay_connected_take_what_the_restored_manager_wants(
    installation: Installation, apply_thread: ApplyThread, tmp_path: Path
) -> None:
    """One is ahead of the backup, and never loses its connection: it is asked where it stands, says so, and
    has the older policy, in a newer epoch. A vNIC that was plugged since is in it. One that was enrolled
    since is named, until it is no user of the broker any more."""
    vnics = [
        Binding(str(uuid.uuid4()), str(uuid.uuid4()), f"02:00:00:00:00:0{n}", f"veth{n}") for n in (1, 2)
    ]
    file, directory = tmp_path / "file", installation.directory
    async with AsyncExitStack() as stack:
        async with installation.composed() as parts:
            say(parts.register, 1)
            config = await installation.enrol(parts, str(uuid.uuid4()))
            host = SimulatedHost(config, vnics[:1], apply_thread, lambda host, took: None)
            await stack.enter_async_context(running(host))
            await enforced(host, 1)
            await asyncio.to_thread(backup.write, directory, file, PASSPHRASE, lambda *of: None)
            say(parts.register, 2)
            await enforced(host, 2)
            newcomer = await installation.enrol(parts, str(uuid.uuid4()))
            host.vnics = tuple(vnics)
            epoch = host.reconciler.state.epoch
        shutil.move(directory.path, tmp_path / "old")
        backup.restore(directory, file, PASSPHRASE, None, lambda *of: None)
        async with installation.composed() as parts:
            await enforced(host, 1)
            assert host.reconciler.state.epoch == epoch + 1
            await eventually(lambda: vnics[1].vnic in host.reconciler.state.vnics, "the later vNIC")
            say(parts.register, 3)
            await enforced(host, 3)
            assert await unknown(parts, installation) == [newcomer.host_id]
            with installation.node.client() as client:
                client.delete(f"/api/users/{newcomer.host_id}").raise_for_status()
            assert await unknown(parts, installation) == []


async def unknown(parts: Parts, installation: Installation) -> list[str]:
    expiries = Expiries(installation.directory.path, parts.credentials)
    alarms = Causes(parts.register, parts.presence, parts.broker, expiries, parts.publisher).all(look=True)
    return [each.entity.id for each in (await alarms).alarms if each.event == "transport_node_unknown"]
