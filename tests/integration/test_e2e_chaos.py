"""O1, O10, O30 and O34 at once: a VM moves between hosts, announced or not, whose daemons are killed, while
rules and tags change and the broker hangs or hangs up, under traffic that never stops. From REST to packet.

Every schedule is made from one integer. `pytest tests/integration/test_e2e_chaos.py --seed N` is that one."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import pytest

from tests.harness.chaos import IN_A_LAB, Step, schedule
from tests.harness.history import History
from tests.harness.lab import World, allow, group_path
from tests.harness.pieces import pieces
from tests.harness.prober import CHANGING, DROP, ESTABLISHED, PASS, PORTS, STREAM, Prober, figures
from vagrant.lab import rest
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow
HOSTS = ("host1", "host2")
HOME = "host2"
RATE = 50
FEW = (5, 8)
"""In which everything happens."""
MUST_PASS = (f"udp/{PORTS[PASS]}", f"udp/{PORTS[ESTABLISHED]}", f"tcp/{PORTS[STREAM]}")
BACK_S = 20.0
"""For connections after a move: a host waits up to eight seconds between two attempts to reach its broker."""


@pytest.fixture
def at_home(world: World) -> Iterator[World]:
    """The VM is on its host again afterwards."""
    yield world
    run_all(world)
    world.lab.wait_applied()
    if world.vm("c").host != HOME:
        world.lab.migrate("c", HOME)


def run_all(world: World) -> None:
    for host in HOSTS:
        if world.lab.vsfwd(host) is None:
            world.lab.start_vsfwd(host)


class Trial:
    """VMs `a` and `c` speak to each other, and `c` moves. Whether one kind of traffic reaches `c` depends on
    a tag of `a`. What must not pass only the vNIC of `c` forbids: that of `a` lets it."""

    def __init__(self, world: World) -> None:
        self._world, self._lab = world, world.lab
        self._red, self._rules = False, 0
        self._hang: threading.Timer | None = None
        self.history = History()

    def begin(self) -> None:
        self._order()
        self._tag()
        self.settle()

    def do(self, step: Step, probers: Sequence[Prober]) -> None:
        for prober in probers:
            prober.note(str(step))
        match step.what:
            case "move" | "move unannounced":
                self._move(probers, announced=step.what == "move")
            case "kill":
                self._lab.kill_vsfwd(HOSTS[step.amount < 0.5])
            case "rules":
                self._rules += 1
                self._order()
            case "tags":
                self._red = not self._red
                self._tag()
                if step.amount < 0.5:
                    self.settle()
            case "broker hangs":
                self._hang_broker(step.amount)
            case "broker hangs up":
                self._hang_up()
        probers[0].flowing(1 + int(step.pause_s * RATE))

    def settle(self) -> None:
        """Every host runs, and has confirmed the last policy."""
        self._resume_broker()
        run_all(self._world)
        self._lab.wait_applied()
        self.history.confirm(self._told, time.monotonic())

    def _move(self, probers: Sequence[Prober], *, announced: bool) -> None:
        """While it moves packets may be lost. Whether it moves or is refused, connections go on."""
        run_all(self._world)
        towards, away = probers
        with towards.excused("lost"), away.excused("lost"):
            other = HOSTS[self._world.vm("c").host == HOSTS[0]]
            try:
                self._lab.migrate("c", other, announced=announced)
            except LabError as refused:
                print(f"  {refused}")
            tallies = [tally for each in probers for tally in each.tallies if tally.kind in (PASS, STREAM)]
            before = [tally.arrived for tally in tallies]
            wait_until(
                lambda: all(t.arrived > b for t, b in zip(tallies, before, strict=True)), "all flows", BACK_S
            )
            towards.flowing(5)

    def _hang_broker(self, for_s: float) -> None:
        self._resume_broker()
        self._lab.broker.processes()["node"].signal(signal.SIGSTOP)
        self._hang = threading.Timer(for_s, self._lab.broker.processes()["node"].signal, [signal.SIGCONT])
        self._hang.start()

    def _resume_broker(self) -> None:
        if self._hang:
            self._hang.join()

    def _hang_up(self) -> None:
        """On everybody."""
        self._resume_broker()
        with self._lab.broker.client() as client:
            for connection in client.get("/api/connections").raise_for_status().json():
                client.delete(f"/api/connections/{quote(connection['name'], safe='')}")

    def _tag(self) -> None:
        self._told = self.history.tell(self._red, time.monotonic())
        rest.set_tags(self._lab.rest, self._lab.vm("a"), [{"scope": "", "tag": "red"}] if self._red else [])

    def _order(self) -> None:
        """With one rule more or less, that nothing of the traffic falls under."""
        more = [allow("d", "c", f"tcp/{8000 + self._rules}")][: self._rules % 2]
        beyond = [f"udp/{PORTS[kind]}" for kind in (DROP, CHANGING)]
        self._world.order(
            *more,
            allow("red", "c", f"udp/{PORTS[CHANGING]}"),
            allow("a", "c", *MUST_PASS),
            allow("c", "a", *MUST_PASS),
            allow("a", "c", *beyond, scope=[group_path("a")]),
            allow("c", "a", *beyond, scope=[group_path("a")]),
        )


def suffer(world: World, seed: int) -> Counter[str]:
    """One schedule, and what must hold after it; what was counted."""
    steps = schedule(seed, IN_A_LAB)
    print(f"./run test tests/integration/test_e2e_chaos.py --seed {seed}", *steps, sep="\n  ")
    trial = Trial(world)
    trial.begin()
    a, c = world.vm("a"), world.vm("c")
    with (
        Prober(a.namespace, c.namespace, (c.v4, c.v6), rate=RATE, history=trial.history) as towards,
        Prober(c.namespace, a.namespace, (a.v4, a.v6), rate=RATE) as away,
    ):
        for step in steps:
            trial.do(step, (towards, away))
        trial.settle()
        for prober in (towards, away):
            prober.note("settled")
            prober.flowing()
    violations = [line for prober in (towards, away) for line in prober.violations()]
    assert not violations, "\n".join([f"seed {seed}:", *violations])
    return towards.counted() + away.counted()


@pytest.mark.parametrize("seeds", [pytest.param(FEW, id="few"), *pieces(100, 25)])
def test_a_vm_that_moves_between_hosts_that_die_keeps_policy_and_connections(
    at_home: World,
    seeds: Sequence[int],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, str], None],
) -> None:
    """While it moves packets may be lost, of streams not a number; what must not pass never does, and what
    depends on the tag is judged as it was when every host had confirmed it last, or later."""
    chosen: int | None = pytestconfig.getoption("--seed")
    seeds = seeds if chosen is None else [chosen]
    counts = [suffer(at_home, seed) for seed in seeds]
    record_property("figure", f"{len(seeds)} schedules of chaos in a lab: {figures(counts)}")
