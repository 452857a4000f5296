"""The policy everything is measured with: rules from group to group.

500 groups, each of five vNICs on hosts that are not here, and the measured VMs: a client, and a server beside
it and one on another host (and two that only a flood is between). Each of the n rules but the last allows one
group, drawn at random, to reach another on one of 50 ports; the last one alone lets the client reach the
servers. The VMs are also members of groups that the other rules name, and the port is one that they name, so
the search finds rules that match in part, as it would in a data centre; but no rule before the last names all
three.
"""

import random
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tests.harness.policies import Objects, after
from vagrant.lab import layout, spec
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import TCP, UDP, Action, Group, Match, Rule, Service, Vnic
from vsfwd.protocol.envelope import Kind

GROUPS: Final = 500
MEMBERS: Final = 5
PORTS: Final = tuple(range(7000, 7050))
"""Ports the rules name."""
USED_PORTS: Final = PORTS[:2]
"""Ports the measured traffic goes to."""

SPEC: Final = spec.parse(
    hosts=2, vms=["client@host1", "near@host1", "far@host2", "flooder@host1", "sink@host1"]
)
LAB: Final = layout.plan("bench", 0, SPEC)
"""The lab that traffic runs in, less the number it gets when it is built; other parts need only its VMs."""
CLIENT, NEAR, FAR, FLOODER, SINK = LAB.vms
SERVERS: Final = (NEAR, FAR)


@dataclass(frozen=True)
class Pair:
    """What a rule but the last allows: from a group to a group, by number, on a port."""

    source: int
    destination: int
    port: int


def pairs(rules: int) -> list[Pair]:
    """All rules but the last: at random, but always the same. None is from group 0 to group 1, of which
    client and servers are members."""
    chance = random.Random(GROUPS)
    drawn: set[Pair] = {Pair(0, 1, port) for port in PORTS}
    found = []
    while len(found) < rules - 1:
        pair = Pair(chance.randrange(GROUPS), chance.randrange(GROUPS), chance.choice(PORTS))
        if pair not in drawn:
            drawn.add(pair)
            found.append(pair)
    return found


def member(group: int, number: int) -> tuple[str, ...]:
    """Addresses of a group's member: IPv4 and IPv6; the last member has IPv4 only."""
    both = f"10.{group >> 8}.{group & 255}.{number + 1}", f"fd01::{group + 1:x}:{number + 1:x}"
    return both[:1] if number == MEMBERS - 1 else both


def member_id(group: int, number: int) -> str:
    """Id of its vNIC."""
    return str(UUID(int=1 << 32 | group << 8 | number))


def objects(rules: int) -> Objects:
    """As a host is sent them."""
    groups = {f"group-{n}": Group(f"group {n}") for n in range(GROUPS)}
    vnics = {
        member_id(group, number): _vnic(f"vm-{group}-{number}", member(group, number), f"group-{group}")
        for group in range(GROUPS)
        for number in range(MEMBERS)
    }
    vnics[CLIENT.vnic] = _vnic("client", (CLIENT.v4, CLIENT.v6), "group-0", "clients")
    vnics |= {vm.vnic: _vnic(vm.name, (vm.v4, vm.v6), "group-1", "servers") for vm in SERVERS}
    vnics[FLOODER.vnic] = _vnic(FLOODER.name, (FLOODER.v4, FLOODER.v6), "clients")
    vnics[SINK.vnic] = _vnic(SINK.name, (SINK.v4, SINK.v6), "servers")
    return {
        "rules": _rules(rules),
        "groups": groups | {"clients": Group("clients"), "servers": Group("servers")},
        "vnics": vnics,
    }


def desired(rules: int) -> DesiredState:
    """As a host has them after a snapshot."""
    return after(DesiredState(), objects(rules), Kind.SNAPSHOT)


def _vnic(name: str, addresses: tuple[str, ...], *groups: str) -> Vnic:
    return Vnic(vm=CLIENT.id, vm_name=name, mac=CLIENT.mac, addresses=addresses, groups=groups)


def _rules(count: int) -> dict[str, Rule]:
    rules = {
        str(n + 1): _rule(n, f"group-{pair.source}", f"group-{pair.destination}", (pair.port, pair.port))
        for n, pair in enumerate(pairs(count))
    }
    return rules | {str(count): _rule(count, "clients", "servers", (PORTS[0], PORTS[-1]))}


def _rule(order: int, source: str, destination: str, ports: tuple[int, int]) -> Rule:
    return Rule(
        name=f"{source} to {destination}",
        section="bench",
        order=(order,),
        action=Action.ALLOW,
        sources=Match(groups=(source,)),
        destinations=Match(groups=(destination,)),
        services=(Service(TCP, (ports,)), Service(UDP, (ports,))),
    )
