"""One lab for all end-to-end tests; each of them finds it as it was at the start."""

from collections.abc import Iterator

import pytest

from tests.harness import lab
from tests.harness.lab import World


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    with lab.world() as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """No rules but the default one, no tags, every vsfwd running: before the test, and again after it."""
    yield shared_world
    shared_world.reset()
