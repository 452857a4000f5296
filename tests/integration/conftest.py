"""One lab for all end-to-end tests; each of them finds it as it was at the start. Tests of one vsfwd: one
broker for a file of them, a daemon for each."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import lab
from tests.harness.installation import Installation, installed
from tests.harness.lab import World
from tests.integration.daemon_host import BROKER_ADDRESS, DaemonHost, Setting
from tests.integration.private_broker import ManagersEnd, PrivateBroker
from vagrant.lab.processes import tail
from vsfwd.protocol.messages import Hello


@pytest.fixture(scope="session", autouse=True)
def fresh_start() -> None:
    lab.remove_leftovers()


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    with lab.world() as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """No rules but the default one, no tags, no dead letters, every vsfwd running: before the test, and again
    after it."""
    yield shared_world
    shared_world.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What manager and daemons had to say, beside a failure: their logs go with the lab."""
    report = yield
    world = getattr(item, "funcargs", {}).get("shared_world")
    if report.failed and isinstance(world, World):
        report.sections.append(("log of the manager", tail(world.lab.manager.log)))
        for host in world.lab.layout.hosts:
            report.sections.append((f"log of vsfwd on {host.name}", tail(host.log)))
    return report


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as installation:
        yield installation


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PrivateBroker]]:
    """The broker, and a link to it; both outlive every single daemon."""
    directory = tmp_path_factory.mktemp("daemon")
    host = DaemonHost(directory)
    broker = PrivateBroker(directory, address=BROKER_ADDRESS)
    try:
        host.up()
        broker.start()
        broker.declare()
        yield directory, broker
    finally:
        host.down()
        broker.node.kill()


@pytest_asyncio.fixture
async def setting(wires: tuple[Path, PrivateBroker], tmp_path: Path) -> AsyncIterator[Setting]:
    _, broker = wires
    broker.purge()
    host = DaemonHost(tmp_path)
    config = host.configure(broker)
    async with ManagersEnd(broker) as manager:
        try:
            host.start(config)
            await manager.reported(Hello)
            yield Setting(host, broker, manager, config)
        finally:
            host.clear()
