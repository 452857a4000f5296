"""One Datapath for all tests of this folder (to compile it takes seconds); each test plugs its own vNICs."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.datapath import UNLIMITED, Host, inside, private_host
from tests.harness.journey import Journey
from tests.harness.moving import Pair, Site
from tests.harness.packets import IPV4, IPV6, Net
from tests.harness.wired import Wired
from tests.harness.wired import wired as wired_host
from vsfwd.datapath import Settings


@pytest.fixture(scope="session")
def shared_host() -> Iterator[tuple[Host, str]]:
    settings = Settings(flows_per_vnic=1024, log_limit=UNLIMITED, reject_limit=UNLIMITED)
    with private_host("datapath", settings) as host:
        yield host


@pytest.fixture(scope="session")
def wired() -> Iterator[Wired]:
    """Two workloads that speak to each other through the programs."""
    with wired_host() as both:
        yield both


@pytest.fixture
def host(shared_host: tuple[Host, str]) -> Iterator[Host]:
    """A host without vNICs and without policy that the test can see."""
    host, namespace = shared_host
    with inside(namespace):
        yield host
        host.unplug()


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Net:
    """The same test in both families."""
    family: Net = request.param
    return family


@pytest.fixture(params=[True, False], ids=["in", "out"])
def journey(host: Host, net: Net, request: pytest.FixtureRequest) -> Journey:
    """The same test in both families and both directions; the policy allows everything."""
    journey = Journey(host, host.port("here"), net, request.param)
    journey.install("allow")
    return journey


@pytest.fixture(scope="session")
def shared_target() -> Iterator[tuple[Host, str]]:
    settings = Settings(flows_per_vnic=512, log_limit=UNLIMITED, reject_limit=UNLIMITED)
    with private_host("target", settings) as host:
        yield host


@pytest.fixture
def target(shared_target: tuple[Host, str]) -> Iterator[tuple[Host, str]]:
    """Another host, to which VMs move: with secrets, slots and tables of its own. A test enters its
    namespace."""
    yield shared_target
    host, namespace = shared_target
    with inside(namespace):
        host.unplug()


@pytest.fixture
def sites(shared_host: tuple[Host, str], shared_target: tuple[Host, str], tmp_path: Path) -> Iterator[Pair]:
    """The VM is on the first, with a policy; the second has that policy."""
    with ExitStack() as cleanup:
        found = []
        for name, (host, namespace) in (("a", shared_host), ("b", shared_target)):
            found.append(Site(name, host, namespace, tmp_path))
            cleanup.callback(found[-1].unplug)
        a, b = found
        a.plug()
        for site in found:
            site.install()
        yield a, b
