"""How long the pure middle takes: `python -m tests.bench.compiler [RULES]`.

500 groups, 2,500 vNICs with an address each, rules from group to group on ports of their own, every tenth
with a scope. Compiled whole seven times; then 200 times a vNIC elsewhere joins one more group, as a message,
and is compiled and compared."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec

from vsfwd.image import InPlace, diff
from vsfwd.policy.compile import Compiler, compile
from vsfwd.policy.desired import DesiredState, apply
from vsfwd.policy.model import TCP, Action, Group, Match, Object, Rule, Service, Vnic
from vsfwd.protocol.envelope import Header, Kind
from vsfwd.protocol.messages import KINDS, digest_text, object_digest

GROUPS, VNICS, CHANGES, HERE = 500, 2500, 200, 50
HOST = str(UUID(int=1))
Result = TypeVar("Result")
Raws = Mapping[str, bytes]
Messages = Iterator[tuple[Header, bytes]]


def main() -> None:
    sent = _messages(_objects(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
    slots = {_vnic_id(number): number for number in range(HERE)}
    state, applied = _timed(lambda: apply(DesiredState(), *next(sent)))
    full = [_timed(lambda: compile(state, slots))[1] for _ in range(7)]
    compiler = Compiler()
    image = compiler.update(state, slots)
    sizes = f"{len(image.rules)} rules, {GROUPS} groups, {len(image.hosts)} addresses"
    print(f"{sizes}: {len(image.rows)} rows")
    compiled = f"{statistics.median(full):.0f} ms (max {max(full):.0f})"
    print(f"whole policy: apply {applied:.0f} ms, compile {compiled}")

    times: dict[str, list[float]] = {"apply": [], "compile": [], "diff": [], "compile and diff": []}
    in_place = 0
    for message in sent:
        state, took_apply = _timed(lambda state=state, message=message: apply(state, *message))
        wanted, took_compile = _timed(lambda state=state: compiler.update(state, slots))
        plan, took_diff = _timed(lambda image=image, wanted=wanted: diff(image, wanted))
        took = (took_apply, took_compile, took_diff, took_compile + took_diff)
        for values, value in zip(times.values(), took, strict=True):
            values.append(value)
        in_place += isinstance(plan, InPlace)
        image = wanted
    print(f"one address joins a group, {CHANGES} times, {in_place} of them in place:")
    for name, values in times.items():
        print(f"  {name:16} {_summary(values)}")


def _objects(rules: int) -> dict[str, dict[str, Object]]:
    return {
        "rules": {str(number + 1): _rule(number) for number in range(rules)},
        "groups": {f"group-{number}": Group(f"group {number}") for number in range(GROUPS)},
        "vnics": {
            _vnic_id(number): Vnic(
                vm=HOST,
                vm_name=f"vm {number}",
                mac="02:00:00:00:00:01",
                addresses=(f"10.{number >> 8}.{number & 255}.1",),
                groups=tuple(f"group-{number * step % GROUPS}" for step in (1, 7, 31)),
            )
            for number in range(VNICS)
        },
    }


def _rule(number: int) -> Rule:
    return Rule(
        name=f"rule {number}",
        section="bench",
        order=(number,),
        action=Action.ALLOW,
        sources=Match(groups=(f"group-{number % GROUPS}",)),
        destinations=Match(groups=(f"group-{number * 7 % GROUPS}", f"group-{(number + 3) % GROUPS}")),
        services=(Service(TCP, ((number, number + 5),)),),
        scope=(f"group-{number % GROUPS}",) if number % 10 == 0 else None,
    )


def _vnic_id(number: int) -> str:
    return str(UUID(int=number + 1))


def _messages(objects: dict[str, dict[str, Object]]) -> Messages:
    """The snapshot, then the changes: one vNIC after the other joins one more group."""
    raw = {kind: {id: msgspec.json.encode(item) for id, item in objects[kind].items()} for kind in KINDS}
    digest = sum(object_digest(kind, id, data) for kind in KINDS for id, data in raw[kind].items())
    yield _message(1, Kind.SNAPSHOT, digest, raw)
    for number in range(CHANGES):
        id = _vnic_id(HERE + number)
        vnic = objects["vnics"][id]
        assert isinstance(vnic, Vnic)
        joined = msgspec.structs.replace(vnic, groups=(*vnic.groups, f"group-{number + 100}"))
        new = msgspec.json.encode(joined)
        digest += object_digest("vnics", id, new) - object_digest("vnics", id, raw["vnics"][id])
        yield _message(number + 2, Kind.DELTA, digest, {"vnics": {id: new}})


def _message(
    generation: int, kind: Kind, digest: int, raw: dict[str, dict[str, bytes]]
) -> tuple[Header, bytes]:
    base = generation - (kind is Kind.DELTA)
    json = msgspec.json.encode({name: {id: msgspec.Raw(d) for id, d in raw[name].items()} for name in raw})
    return Header(HOST, 1, generation, base, kind, digest_text(digest), body=""), json


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1e3


def _summary(values: Sequence[float]) -> str:
    quantiles = statistics.quantiles(values, n=100)
    return f"median {quantiles[49]:.2f}  p99 {quantiles[98]:.2f}  max {max(values):.2f} ms"


if __name__ == "__main__":
    main()
