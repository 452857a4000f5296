"""The dry run's verdicts, quick as they are found, against asking for every flow what each host is sent."""

import random
from datetime import datetime
from typing import Any

import pytest

from manager_stub.dryrun import Flow, Policy, compare, flows_of
from tests.harness.policies import after
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.policy.ahead import Wire
from vsfwd.policy.decision import decide
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import Action, Direction
from vsfwd.policy.schedule import Now
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import SeenFlow

VNICS = [f"22222222-0000-4000-8000-00000000000{number}" for number in range(4)]
PLUGGED = {"first": frozenset(VNICS[:2]), "second": frozenset(VNICS[2:])}
NOW = Now(datetime(2026, 11, 22, 12), datetime(2026, 11, 22, 12))
OUTSIDE = ("192.0.2.1", "2001:db8::1")
MINUTE = 60


def addresses(number: int) -> list[str]:
    return [f"10.0.0.{number + 1}", f"fd00::{number + 1}"]


async def furnish(manager: Manager, chance: random.Random) -> None:
    """Four VMs, two groups of them and one of addresses, and a section of random rules."""
    for number, vnic in enumerate(VNICS):
        card = {"id": vnic, "mac": f"02:00:00:00:00:0{number}", "addresses": addresses(number)}
        tags = [{"tag": chance.choice(("web", "db"))}]
        vm = vnic.replace("2222", "1111")
        await manager.call(
            "PUT", f"{VSFW}/vms/{vm}", {"display_name": f"vm{number}", "tags": tags, "vnics": [card]}
        )
    for tag in ("web", "db"):
        asked = {"member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS", "value": tag}
        expression = [{"resource_type": "Condition", **asked}]
        await manager.call("PUT", f"{DOMAIN}/groups/{tag}", {"expression": expression})
    listed = {
        "resource_type": "IPAddressExpression",
        "ip_addresses": ["10.0.0.0/31", "fd00::2", "192.0.2.0/24"],
    }
    await manager.call("PUT", f"{DOMAIN}/groups/listed", {"expression": [listed]})
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": rules(chance)})


def rules(chance: random.Random) -> list[dict[str, Any]]:
    groups = [f"/infra/domains/default/groups/{name}" for name in ("web", "db", "listed")]
    ends = [["ANY"], ["10.0.0.0/30"], *([group] for group in groups)]
    services = [
        [],
        [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["80"]}],
    ]
    return [
        {
            "id": f"r{number}",
            "action": chance.choice(("ALLOW", "DROP", "REJECT")),
            "direction": chance.choice(("IN", "OUT", "IN_OUT")),
            "source_groups": chance.choice(ends),
            "destination_groups": chance.choice(ends),
            "service_entries": chance.choice(services),
            "scope": chance.choice([["ANY"], [groups[0]], [groups[2]]]),
        }
        for number in range(6)
    ]


def every_flow() -> list[tuple[str, SeenFlow]]:
    """Between all VMs, and with somebody outside, as either end sees it."""
    found = []
    for number, vnic in enumerate(VNICS):
        for family, own in enumerate(addresses(number)):
            others = [addresses(other)[family] for other in range(4) if other != number]
            for other in (*others, OUTSIDE[family]):
                for protocol, port in ((6, 80), (6, 81), (17, 80)):
                    tail = (port, 1000, None, None, 1, len(found) % MINUTE)
                    found.append((vnic, SeenFlow("out", protocol, own, other, *tail)))
                    found.append((vnic, SeenFlow("in", protocol, other, own, *tail)))
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_a_dry_run_says_what_every_host_would_say(manager: Manager, seed: int) -> None:
    """Random rules before and after: the flows that change are those for which somebody who reads everything
    a host is sent, rule by rule, finds another end."""
    chance = random.Random(seed)
    await furnish(manager, chance)
    before = manager.register.realised
    await manager.call("PATCH", f"{DOMAIN}/security-policies/s", {"rules": rules(chance)})
    changed = manager.register.realised
    flows, malformed = flows_of(before, every_flow())
    assert malformed == 0
    assert len(flows) == 2 * 3 * (4 * 3 + 4 * 2)  # families, services, between VMs, with somebody outside
    old, new = (Policy(realised, PLUGGED, NOW, {}) for realised in (before, changed))
    outcome = compare(old, new, flows, lambda: True)
    naive = [flow for flow in flows if ends(before, flow) is not ends(changed, flow)]
    assert [flow for flow, _, _ in outcome.changed] == naive
    assert 0 < len(naive) < len(flows)
    assert outcome.unchanged == len(flows) - len(naive)
    for flow, was, becomes in outcome.changed:
        assert (was[-1].action, becomes[-1].action) == (ends(before, flow), ends(changed, flow))


def ends(realised: Any, flow: Flow) -> Action:
    """Out of one vNIC and into the other, by all that their hosts are sent."""
    action = Action.ALLOW
    for vnic, direction in ((flow.source, Direction.OUT), (flow.destination, Direction.IN)):
        if vnic is not None and action is Action.ALLOW:
            here = next(vnics for vnics in PLUGGED.values() if vnic in vnics)
            objects = {kind: dict(each) for kind, each in realised.needs(here).items()}
            state = after(DesiredState(), objects, Kind.SNAPSHOT)
            action = decide(state, flow.packet, vnic, direction, Wire()).verdict.action
    return action
