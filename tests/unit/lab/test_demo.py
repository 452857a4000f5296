"""What `./run demo` and `vagrant up` publish."""

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import permutations
from typing import Any

import pytest

from manager_stub.catalogue import objects
from manager_stub.span import realise
from tests.unit.manager.test_span import VNICS, state, vm, whole, world
from vagrant.lab import demo
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import ICMPV6, Action, Direction


def published() -> Iterator[tuple[str, dict[str, Any]]]:
    """With what every manager has, each rule by itself, and the VMs."""
    for path, entity in objects().items():
        yield path, entity.model_dump(exclude_unset=True)
    for path, body in demo.policy().items():
        rules: Any = body.get("rules", [])
        yield f"/infra/{path}", {key: value for key, value in body.items() if key != "rules"}
        yield from ((f"/infra/{path}/rules/{rule['id']}", rule) for rule in rules)
    for number, name in enumerate(demo.VMS):
        path, body = vm(number, [], [f"fd00::{number + 1}"])
        scope, tag = name.split("#")[1].split("|")
        yield path, {**body, "tags": [{"scope": scope, "tag": tag}]}


@pytest.mark.parametrize("message", [135, 136], ids=["solicitation", "advertisement"])
def test_every_vm_may_find_every_other_over_ipv6(message: int) -> None:
    """Also one that it may have nothing from: "nobody else to db" is about every service, and db has to find
    whom it answers."""
    policy = state(whole(realise(world(*published()))))
    for source, destination in permutations(range(len(demo.VMS)), 2):
        packet = Packet(
            ip_address(f"fd00::{source + 1}"),
            ip_address(f"fd00::{destination + 1}"),
            ICMPV6,
            icmp_type=message,
        )
        for vnic, direction in (VNICS[source], Direction.OUT), (VNICS[destination], Direction.IN):
            assert evaluate(policy, packet, vnic, direction).action is Action.ALLOW, (source, destination)
