"""One lab for all end-to-end tests; each of them finds it as it was at the start."""

from collections.abc import Generator, Iterator

import pytest

from tests.harness import lab
from tests.harness.lab import World
from vagrant.lab.processes import tail


@pytest.fixture(scope="session", autouse=True)
def fresh_start() -> None:
    lab.remove_leftovers()


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    with lab.world() as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """No rules but the default one, no tags, every vsfwd running: before the test, and again after it."""
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
