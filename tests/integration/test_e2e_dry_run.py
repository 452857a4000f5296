"""Dry runs in the lab: real flows, over the real broker, under a draft that nobody publishes."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.lab import SECTION, Rule, World, allow, drop, section
from vagrant.lab.probe import Seen
from vagrant.lab.rest import INFRA, checked, request
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import ask

pytestmark = pytest.mark.slow

DRAFT = f"{INFRA}/drafts/dry"
ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


@pytest.fixture
def drafting(world: World) -> Iterator[World]:
    yield world
    request(world.lab.rest, "DELETE", DRAFT)


def draft(world: World, *rules: Rule) -> None:
    """These rules in place of those under test, some day."""
    body = section(rules)
    children = [{"resource_type": "ChildRule", "Rule": rule} for rule in body.pop("rules")]
    kept = {"resource_type": "ChildSecurityPolicy", "SecurityPolicy": {"id": "under-test", **body}}
    kept["SecurityPolicy"]["children"] = children
    domain = {"resource_type": "ChildResourceReference", "target_type": "Domain", "id": "default"}
    tree = {"children": [{**domain, "children": [kept]}]}
    request(world.lab.rest, "PUT", DRAFT, {"user_area": tree})


def dry_run(world: World) -> Any:
    return checked(world.lab.rest.get(f"{DRAFT}/dry-run?minutes=60", timeout=60))


def ends(found: Any, source: str, destination: str, port: int) -> dict[str, tuple[str, str]]:
    """How flows between two VMs end before and after, by the family of their addresses."""
    return {
        "IPv6" if ":" in flow["source"] else "IPv4": (flow["before"]["action"], flow["after"]["action"])
        for flow in found["results"]
        if flow["source_vm"]
        and flow["destination_vm"]
        and flow["source_vm"]["display_name"] == source
        and flow["destination_vm"]["display_name"] == destination
        and flow["destination_port"] == port
    }


def generations(world: World) -> list[int]:
    return [
        ask(host.socket, lambda vsfwd: vsfwd.Status())["status"].generation for host in world.lab.layout.hosts
    ]


def test_a_dry_run_names_the_flows_that_would_be_dropped_and_drops_none(drafting: World) -> None:
    """Two services of c are in use; the draft forbids one. Its flows are named, over IPv4 and IPv6, with the
    rule; the others are counted; every host enforces what it did."""
    world = drafting
    world.enforce(allow("a", "c", "tcp/80"), allow("a", "c", "tcp/81"))
    used = (("a", "c", "tcp/80"), ("a", "c", "tcp/81"))
    assert world.seen_all(*used) == [ALLOWED, ALLOWED]
    before = generations(world)
    draft(world, drop("a", "c", "tcp/80"), allow("a", "c", "tcp/81"))
    found = dry_run(world)
    assert [host["answered"] for host in found["hosts"]] == [True, True]
    assert ends(found, "a", "c", 80) == dict.fromkeys(("IPv4", "IPv6"), ("ALLOW", "DROP"))
    assert ends(found, "a", "c", 81) == {}
    assert found["unchanged"] >= 2
    flow = next(flow for flow in found["results"] if flow["destination_port"] == 80)
    assert flow["after"]["decided_by"][-1]["rule_path"] == f"/infra/{SECTION}/rules/r0"
    assert flow["packets"] > 0
    assert generations(world) == before
    assert world.seen_all(*used) == [ALLOWED, ALLOWED]


def test_what_is_dropped_and_logged_is_seen_too(drafting: World) -> None:
    """The draft would let it pass."""
    world = drafting
    world.enforce(drop("b", "d", "tcp/81", logged=True))
    assert world.seen_all(("b", "d", "tcp/81")) == [DROPPED]
    draft(world, allow("b", "d", "tcp/81"))
    both = dict.fromkeys(("IPv4", "IPv6"), ("DROP", "ALLOW"))
    wait_until(lambda: ends(dry_run(world), "b", "d", 81) == both, "vsfwd has read what was logged")


def test_a_host_that_is_down_is_named_and_stops_no_other(drafting: World) -> None:
    """vsfwd of host2 is killed: what host1 saw is there, and host2 is said to be missing."""
    world = drafting
    world.enforce(allow("a", "c", "udp/80"))
    assert world.seen_all(("a", "c", "udp/80")) == [ALLOWED]
    draft(world, drop("a", "c", "udp/80"))
    world.lab.kill_vsfwd("host2")
    found = dry_run(world)
    assert {host["display_name"]: host["answered"] for host in found["hosts"]} == {
        "host1": True,
        "host2": False,
    }
    assert "no answer" in next(host["reason"] for host in found["hosts"] if not host["answered"])
    assert ends(found, "a", "c", 80) == dict.fromkeys(("IPv4", "IPv6"), ("ALLOW", "DROP"))
