"""What a policy costs before a packet sees it: compiled, loaded into real maps, and kept.

Rules from group to group, drawn at random, on one of 50 ports; each address is a vNIC's, in one to three
groups drawn at random, so that nearly every address is a class of its own. Each sample is a process that has
done nothing else, with all that the daemon imports (`python -m tests.bench.compiler` is its entry): the
policy comes as a message, is compiled and loaded; then members join groups, one by one; then a policy of the
same size takes its place. Growth is of the compiler alone, since a host holds 16,384 rules."""

import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final
from uuid import UUID

import msgspec

import vsfwd.daemon  # noqa: F401  # what a daemon has in memory
from tests.bench.kernel import private_datapath
from tests.bench.ratios import Target, estimate, ratio
from tests.bench.report import RATIO, Figure
from tests.bench.rounds import Progress
from tests.harness.policies import Objects, message
from vsfwd.datapath import Settings
from vsfwd.image import Image, diff
from vsfwd.memory import give_back, no_collection
from vsfwd.policy.compile import Compiler, compile
from vsfwd.policy.desired import DesiredState, apply
from vsfwd.policy.model import TCP, Action, Group, Match, Rule, Service, Vnic
from vsfwd.protocol.envelope import Header, Kind

Size = tuple[int, int]
"""Groups, addresses."""
RULES: Final = 10_000
SMALL, LARGE = (500, 2500), (5000, 50_000)
GROWTH: Final = (1000, 3000, 10_000, 30_000, 100_000)
PORTS: Final = 50
HERE: Final = 50
"""vNICs on the host; the others are members elsewhere."""
MEMBERS: Final = 21
ROUNDS: Final = 7
ROUND_S: Final = 5.0
PLANNED_S: Final = {SMALL: 7.0, LARGE: 20.0}

COMPILE, LOAD, BOTH = "compile", "load", "compile and load"
MEMBER: Final = "one member, message to map writes"
RESIDENT, SECOND, PEAK = "resident memory", "resident memory, second policy", "resident memory, peak"
CLASSES: Final = "classes of addresses"
UNITS: Final = {RESIDENT: "MB", SECOND: "MB", PEAK: "MB", CLASSES: ""}
TARGETS: Final = {
    (LARGE, BOTH): Target("≤ 2000", 2000, at_least=False),
    (LARGE, RESIDENT): Target("≤ 400", 400, at_least=False),
    (LARGE, SECOND): Target("≤ 400", 400, at_least=False),
    (SMALL, BOTH): Target("≤ 300", 300, at_least=False),
    (SMALL, MEMBER): Target("≤ 2", 2, at_least=False),
    (LARGE, MEMBER): Target("≤ 2", 2, at_least=False),
}
LINEAR: Final = Target("≤ 1", 1, at_least=False)


def planned_s(sizes: Sequence[Size], rounds: int) -> float:
    return min(rounds, ROUNDS) * (ROUND_S + sum(PLANNED_S[size] for size in sizes))


def run(sizes: Sequence[Size], rounds: int, progress: Progress) -> list[Figure]:
    rounds = min(rounds, ROUNDS)
    loaded: dict[Size, list[Mapping[str, float]]] = {size: [] for size in sizes}
    messages = {size: _messages(*size) for size in sizes}
    states = {rules: _state(rules) for rules in GROWTH}
    growth: dict[int, list[float]] = {rules: [] for rules in GROWTH}
    for number in range(rounds):
        for size, samples in loaded.items():
            samples.append(_fresh_process(messages[size]))
        for rules, state in states.items():
            growth[rules].append(_compile_ms(state))
        progress.step(f"compile: round {number + 1} of {rounds}", planned_s(sizes, 1))
    return [
        *(figure for size, samples in loaded.items() for figure in _figures(size, samples)),
        *_growth_figures(growth),
    ]


def _figures(size: Size, samples: list[Mapping[str, float]]) -> list[Figure]:
    groups, addresses = size
    group = f"{RULES:,} rules, {groups:,} groups, {addresses:,} addresses"
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return [
        Figure(
            "compile", group, name, RULES, UNITS.get(name, "ms"), estimate(values), TARGETS.get((size, name))
        )
        for name, values in columns.items()
    ]


def _growth_figures(growth: Mapping[int, list[float]]) -> list[Figure]:
    groups, addresses = SMALL
    group = f"compile only, {groups:,} groups, {addresses:,} addresses"
    shares = {rules: [ms * 1e3 / rules for ms in samples] for rules, samples in growth.items()}
    least, most = GROWTH[0], GROWTH[-1]
    grown = ratio(shares[most], shares[least])
    return [
        *(Figure("compile", group, COMPILE, rules, "ms", estimate(growth[rules])) for rules in GROWTH),
        Figure("compile", group, f"a rule's share, of {most:,} ÷ of {least:,}", most, RATIO, grown, LINEAR),
        *(
            Figure("compile", group, "a rule's share", rules, "µs", estimate(shares[rules]))
            for rules in GROWTH
        ),
    ]


def _compile_ms(state: DesiredState) -> float:
    """As the daemon does it, without Python's collector."""
    slots = {_vnic_id(number): number for number in range(HERE)}
    with no_collection():
        begun = time.perf_counter()
        compile(state, slots)
        return (time.perf_counter() - begun) * 1e3


def _fresh_process(messages: bytes) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.compiler"], input=messages, stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


def _read() -> tuple[Header, bytes]:
    """The next message on standard input."""
    header = msgspec.json.decode(sys.stdin.buffer.readline(), type=Header)
    return header, sys.stdin.buffer.readline()


def _measure() -> dict[str, float]:
    slots = {_vnic_id(number): number for number in range(HERE)}
    with private_datapath(Settings()) as datapath:
        compiler = Compiler()
        with no_collection():
            state = apply(DesiredState(), *_read())
            begun = time.perf_counter()
            image = compiler.update(state, slots)
            compiled = time.perf_counter()
            datapath.install(diff(None, image))
            loaded = time.perf_counter()
        resident = _memory_mb("VmRSS")
        classes = _classes(image)
        members = []
        for number in range(MEMBERS):
            joining = message(state, _joined(state, _vnic_id(HERE + number)))
            with no_collection():
                joins = time.perf_counter()
                state = apply(state, *joining)
                wanted = compiler.update(state, slots)
                datapath.install(diff(image, wanted))
                members.append(time.perf_counter() - joins)
            image = wanted
        with no_collection():
            state = apply(state, *_read())
            wanted = compiler.update(state, slots)
            datapath.install(diff(image, wanted))
        image = wanted
        give_back()
        return {
            CLASSES: classes,
            RESIDENT: resident,
            SECOND: _memory_mb("VmRSS"),
            PEAK: _memory_mb("VmHWM"),
            COMPILE: (compiled - begun) * 1e3,
            LOAD: (loaded - compiled) * 1e3,
            BOTH: (loaded - begun) * 1e3,
            MEMBER: median(members) * 1e3,
        }


def _memory_mb(line: str) -> float:
    """A line of proc(5)'s status."""
    (found,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(line))
    return int(found.split()[1]) / 1024


def _classes(image: Image) -> int:
    entries = (*image.hosts.values(), *image.prefixes.values())
    return len({(entry.source, entry.destination) for entry in entries})


def _joined(state: DesiredState, id: str) -> Objects:
    vnic = state.vnics[id]
    other = next(group for group in state.groups if group not in vnic.groups)
    return {"vnics": {id: msgspec.structs.replace(vnic, groups=(*vnic.groups, other))}}


def _state(rules: int) -> DesiredState:
    """More rules than a host takes are a matter of the compiler, not of a message."""
    objects = _objects(rules, *SMALL)
    numbered = {int(id): rule for id, rule in objects["rules"].items()}
    return DesiredState(rules=numbered, groups=objects["groups"], vnics=objects["vnics"])


def _messages(groups: int, addresses: int) -> bytes:
    """A policy, and one in which every rule is another one: what a process is given."""
    objects = _objects(RULES, groups, addresses)
    swapped = dict(zip(objects["rules"], reversed(objects["rules"].values()), strict=True))
    first = message(DesiredState(), objects, Kind.SNAPSHOT)
    second = message(
        DesiredState(),
        {**objects, "rules": swapped},
        Kind.SNAPSHOT,
        generation=10 * MEMBERS,
        base=10 * MEMBERS,
    )
    return b"\n".join((msgspec.json.encode(first[0]), first[1], msgspec.json.encode(second[0]), second[1]))


def _objects(rules: int, groups: int, addresses: int) -> Objects:
    chance = random.Random(groups)
    names = [f"group-{number}" for number in range(groups)]
    return {
        "rules": {str(number + 1): _rule(number, chance, names) for number in range(rules)},
        "groups": {name: Group(name) for name in names},
        "vnics": {_vnic_id(number): _vnic(number, chance, names) for number in range(addresses)},
    }


def _rule(number: int, chance: random.Random, names: list[str]) -> Rule:
    port = 7000 + chance.randrange(PORTS)
    return Rule(
        name=f"rule {number}",
        section="bench",
        order=(number,),
        action=Action.ALLOW,
        sources=Match(groups=(chance.choice(names),)),
        destinations=Match(groups=(chance.choice(names),)),
        services=(Service(TCP, ((port, port),)),),
    )


def _vnic(number: int, chance: random.Random, names: list[str]) -> Vnic:
    return Vnic(
        vm=_vnic_id(number),
        vm_name=f"vm {number}",
        mac="02:00:00:00:00:01",
        addresses=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",),
        groups=tuple(chance.sample(names, chance.randint(1, 3))),
    )


def _vnic_id(number: int) -> str:
    return str(UUID(int=number + 1))


if __name__ == "__main__":
    print(msgspec.json.encode(_measure()).decode())
