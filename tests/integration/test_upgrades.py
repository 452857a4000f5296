"""Another version takes over while traffic passes: one with other structs, and back again.

The other version is a copy of this checkout with a patch in bpf/. Traffic of three kinds goes both ways
through one vNIC (harness/prober.py); what is lost or delivered is counted by number."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.harness.lone import CHECKOUT, LoneHost, lone_host, other_version, refused_version
from tests.harness.pieces import pieces
from tests.harness.prober import Prober, figures
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow
FLOW = "struct flow {\n\tu64 expires;"
VNIC = "/* Why nothing passes a vNIC while"
SESSIONS = "\tu64 sessions;   /* flows created */"
SUPPRESSED = "\tu64 suppressed; /* events beyond the rate */"
PATCHES = {
    # Flows are copied, field by field.
    "a flow has a field more": (FLOW, "struct flow {\n\tu64 first_seen;\n\tu64 expires;"),
    # Their tables are those of both.
    "a struct that nobody uses": (VNIC, f"struct unused {{\n\tu64 number;\n}};\n\n{VNIC}"),
    # Counters are copied.
    "counters in another order": (f"{SESSIONS}\n{SUPPRESSED}", f"{SUPPRESSED}\n{SESSIONS}"),
}


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneHost]:
    with lone_host(tmp_path_factory.mktemp("upgrades"), flows_per_vnic=1024) as host:
        yield host


@pytest.fixture
def host(plugged: LoneHost) -> LoneHost:
    """With a daemon of this version that enforces."""
    if plugged.daemon.process is None:
        plugged.daemon.start()
    return plugged


def assert_unnoticed(probers: tuple[Prober, ...]) -> None:
    assert [line for prober in probers for line in prober.violations()] == []


def schema(host: LoneHost) -> str:
    """What is pinned: one."""
    (only,) = host.pins.iterdir()
    return only.name


def counted(host: LoneHost) -> dict[int, int]:
    """Packets of each rule, as vsfwctl tells them."""
    command = [sys.executable, "-m", "vsfwd.ctl", "--socket", str(host.daemon.directory / "vsfwd.sock")]
    done = subprocess.run([*command, "stats", "--json"], capture_output=True, text=True, check=True)
    return {rule["id"]: rule["packets"] for rule in json.loads(done.stdout)["rules"]}


@pytest.mark.parametrize("upgrades", [pytest.param(range(2), id="few"), *pieces(68, 34)])
@pytest.mark.parametrize("change", PATCHES)
def test_o3_flows_live_on_under_other_structs(
    host: LoneHost,
    tmp_path: Path,
    change: str,
    upgrades: range,
    record_property: Callable[[str, str], None],
) -> None:
    """Upgrade and downgrade under traffic: nothing is lost, nothing is let by, counters go on; and what the
    version before had pinned is gone."""
    other = other_version(tmp_path / "other", *PATCHES[change])
    schemas, counters = [schema(host)], [counted(host)]
    with host.probed() as probers:
        for number in upgrades:
            for prober in probers:
                prober.note(f"upgrade {number}")
            host.daemon.kill()
            host.daemon.start(CHECKOUT if number % 2 else other)
            probers[0].flowing()
            wait_until(lambda: len(list(host.pins.iterdir())) == 1, "older pins removed", timeout_s=60)
            schemas.append(schema(host))
            counters.append(counted(host))
    probes = figures(prober.counted() for prober in probers)
    record_property("figure", f"{len(upgrades)} upgrades and downgrades, {change}: {probes}")
    assert_unnoticed(probers)
    assert schemas[0] == schemas[2] != schemas[1]
    for before, after in pairwise(counters):
        assert all(after[rule] >= before[rule] for rule in before)


def test_o40_programs_that_the_kernel_refuses_change_nothing(host: LoneHost, tmp_path: Path) -> None:
    """A version whose programs do not verify here ends with a line and status 1; the programs of before go on
    on the devices that have them, and the version before starts again, with nothing to compile."""
    other = refused_version(tmp_path / "other")
    attached, pinned = host.attached(), host.pinned()
    host.daemon.kill()
    with host.probed() as probers:
        assert host.daemon.launch(other).wait(timeout=90) == 1
        assert host.daemon.log.read_text().splitlines()[-1].startswith("vsfwd: load program jiffies: ")
        assert (host.attached(), host.pinned()) == (attached, pinned)
        host.daemon.start()
    assert_unnoticed(probers)
    assert host.attached() == attached
