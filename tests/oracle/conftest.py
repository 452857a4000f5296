"""A host for the tests of this folder, with room for every flow of a walk, and the seed to replay."""

from collections.abc import Iterator

import pytest

from tests.harness.datapath import UNLIMITED, Host, inside, private_host
from vsfwd.datapath import Settings


@pytest.fixture(scope="session")
def shared_host() -> Iterator[tuple[Host, str]]:
    with private_host("oracle", Settings(log_limit=UNLIMITED, reject_limit=UNLIMITED)) as host:
        yield host


@pytest.fixture
def host(shared_host: tuple[Host, str]) -> Iterator[Host]:
    """Tests of other folders, which run between and after these, are not in its namespace."""
    host, namespace = shared_host
    with inside(namespace):
        yield host


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int | None:
    """Of the one walk to do, if one was asked for."""
    chosen: int | None = request.config.getoption("--seed")
    return chosen
