"""From the packet to the number: what hosts count, at the manager, over the real broker."""

from typing import Any

import pytest

from tests.harness.lab import SECTION, World, allow, drop
from vagrant.lab.probe import Seen
from vagrant.lab.rest import INFRA, request
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import ask

pytestmark = pytest.mark.slow

FIELDS = {"packets": "packet_count", "bytes": "byte_count", "sessions": "session_count"}


def statistics(world: World, rule: str) -> dict[str, Any]:
    (found,) = request(world.lab.rest, "GET", f"{INFRA}/{SECTION}/rules/{rule}/statistics")["results"]
    return {**found["statistics"], "unreported": found["unreported_hosts"]}


def counted(world: World, rule: str) -> dict[str, int]:
    """By the hosts themselves."""
    number = request(world.lab.rest, "GET", f"{INFRA}/{SECTION}/rules/{rule}")["rule_id"]
    hosts = [ask(host.socket, lambda vsfwd: vsfwd.Stats())["stats"] for host in world.lab.layout.hosts]
    mine = [each for stats in hosts for each in stats.rules if each.id == number]
    return {shown: sum(getattr(each, field) for each in mine) for field, shown in FIELDS.items()}


def never_hit(world: World) -> set[str]:
    """Of the rules under test."""
    found = request(world.lab.rest, "GET", f"{INFRA}/rule-analysis?kind=NEVER_HIT&unhit_days=0")["results"]
    return {each["display_name"] for each in found if SECTION in each["path"]}


def wait_told(world: World, *rules: str) -> list[dict[str, int]]:
    """Until the manager has what the hosts count; and that."""

    def told() -> bool:
        return all(counted(world, rule).items() <= statistics(world, rule).items() for rule in rules)

    wait_until(told, "the manager to know what was counted", every_s=0.3)
    return [statistics(world, rule) for rule in rules]


def test_traffic_shows_in_the_statistics_of_the_rule_that_decides(world: World) -> None:
    """Allowed, dropped and monitored packets, of both hosts; that takes a rule off those that were never hit,
    and one that nothing matches stays there. A daemon that was killed loses nothing of it, and nothing is
    counted twice."""
    world.enforce(
        allow("b", "d", "tcp/80", monitored=True),
        allow("b", "d", "tcp/80"),
        drop("a", "c", "tcp/81"),
        allow("a", "c", "udp/81"),
    )
    assert never_hit(world) == {"r0", "r1", "r2", "r3"}
    assert world.seen_all(("b", "d", "tcp/80"), ("a", "c", "tcp/81")) == [Seen.ALLOWED, Seen.DROPPED]
    monitored, allowed, dropped, unused = wait_told(world, "r0", "r1", "r2", "r3")
    assert monitored["hit_count"] == monitored["packet_count"] > 0
    assert allowed["hit_count"] == allowed["session_count"] == 4  # out of b and into d, IPv4 and IPv6
    assert allowed["packet_count"] > 4
    assert dropped["packet_count"] >= 2
    assert dropped["last_hit_time"] >= request(world.lab.rest, "GET", f"{INFRA}/{SECTION}")["_create_time"]
    assert unused["hit_count"] == 0
    assert "last_hit_time" not in unused
    assert unused["unreported"] == []
    assert never_hit(world) == {"r3"}

    world.lab.kill_vsfwd("host2")
    assert world.seen("b", "d", "tcp/80") is Seen.ALLOWED
    world.lab.start_vsfwd("host2")
    (after,) = wait_told(world, "r1")
    assert after["session_count"] == allowed["session_count"] + 2
