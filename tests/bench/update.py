"""How long a change of policy takes on a host, by the daemon's own path: 10,000 rules on 500 groups.

`Reconciler.apply_message` goes from the bytes of a message to what the kernel enforces, signature and
decompression included, and says itself how long that took; saving it on disk follows and is not in it.
Compile and map writes are measured once more by themselves. What broker and network add is not in here.

    whole policy     a snapshot in which every rule is another one
    address joins    a vNIC with one address becomes a member of one more group
    vNIC joins       the same for a vNIC with an IPv4 and an IPv6 address: two entries, so a bank flips
"""

import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.bench.kernel import device, private_datapath
from tests.bench.policy import GROUPS, MEMBERS, NEAR, member_id, objects
from tests.bench.ratios import Target, estimate
from tests.bench.report import Figure
from tests.bench.rounds import Progress
from tests.harness.policies import HOST, Objects, after, message
from vsfwd.datapath import Datapath, Settings
from vsfwd.image import diff
from vsfwd.policy.compile import Compiler
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import Rule, Vnic
from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import Kind
from vsfwd.reconciler import Disposition, Port, Reconciler
from vsfwd.statefile import StateFile

RULES: Final = 10_000
ROUND_S: Final = 2.0
WHOLE: Final = "whole policy, message in to enforced"
ADDRESS: Final = "address joins a group, message in to enforced"
ADDRESS_WRITES: Final = "address joins a group, compile and map writes"
VNIC: Final = "vNIC with two addresses joins a group, message in to enforced"
TARGETS: Final = {
    WHOLE: Target("≤ 1000", 1000, at_least=False),
    ADDRESS: Target("≤ 20", 20, at_least=False),
    ADDRESS_WRITES: Target("≤ 2", 2, at_least=False),
    VNIC: None,
}


class Host:
    """A host without a broker: a reconciler with a real datapath and one vNIC."""

    def __init__(self, datapath: Datapath, ifindex: int, directory: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._reconciler = Reconciler(HOST, self._key.public_key(), datapath, StateFile(directory), "bench")
        self._reconciler.vnics_changed({NEAR.vnic: Port(NEAR.vnic, NEAR.device, ifindex, NEAR.mac)})

    @property
    def state(self) -> DesiredState:
        return self._reconciler.state

    def receive(self, changes: Objects, kind: Kind) -> float:
        """ms from message in to enforced."""
        header, json = message(self.state, changes, kind)
        fields = {
            name: getattr(header, name) for name in ("host", "epoch", "generation", "base", "kind", "digest")
        }
        sealed = envelope.seal(self._key, json=json, **fields)
        outcome = self._reconciler.apply_message(sealed, time.monotonic_ns())
        if outcome.disposition is not Disposition.DONE or outcome.report.refusals:
            raise RuntimeError(f"the host did not take generation {header.generation}: {outcome}")
        return outcome.report.duration_us / 1000


def planned_s(rounds: int) -> float:
    return rounds * ROUND_S


def run(rounds: int, progress: Progress) -> list[Figure]:
    # The reconciler logs a line for each message; what goes wrong raises here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    samples: dict[str, list[float]] = {name: [] for name in TARGETS}
    policies = [objects(RULES), _renumbered(objects(RULES))]
    with (
        device("update") as ifindex,
        private_datapath(Settings()) as datapath,
        TemporaryDirectory() as directory,
    ):
        host = Host(datapath, ifindex, Path(directory))
        host.receive(policies[-1], Kind.SNAPSHOT)
        for number in range(rounds):
            samples[WHOLE].append(host.receive(policies[number % 2], Kind.SNAPSHOT))
            samples[ADDRESS].append(host.receive(_joined(number, MEMBERS - 1), Kind.DELTA))
            samples[VNIC].append(host.receive(_joined(number, 0), Kind.DELTA))
            progress.step(f"update: round {number + 1} of {rounds}", ROUND_S)
        samples[ADDRESS_WRITES] = _writes(datapath, host.state, rounds)
    return [
        Figure(
            "update",
            "10,000 rules on 500 groups",
            name,
            RULES,
            "ms",
            estimate(values),
            TARGETS[name],
            {name: values},
        )
        for name, values in samples.items()
    ]


def _renumbered(policy: Objects) -> Objects:
    """Every rule another one, in what it says and in its place."""
    rules: dict[str, Rule] = dict(policy["rules"])
    swapped = dict(zip(rules, reversed(rules.values()), strict=True))
    return {**policy, "rules": swapped}


def _joined(group: int, number: int) -> Objects:
    """A member of a group in one more group."""
    id = member_id(group, number)
    vnic: Vnic = objects(0)["vnics"][id]
    return {
        "vnics": {id: msgspec.structs.replace(vnic, groups=(*vnic.groups, f"group-{(group + 100) % GROUPS}"))}
    }


def _writes(datapath: Datapath, state: DesiredState, rounds: int) -> list[float]:
    """ms from one desired state to the kernel's having the next, an address further."""
    compiler = Compiler()
    image = compiler.update(state, datapath.slots)
    datapath.install(diff(None, image))
    samples = []
    for number in range(rounds):
        state = after(state, _joined(GROUPS // 2 + number, MEMBERS - 1))
        begun = time.perf_counter()
        wanted = compiler.update(state, datapath.slots)
        datapath.install(diff(image, wanted))
        samples.append((time.perf_counter() - begun) * 1000)
        image = wanted
    return samples
