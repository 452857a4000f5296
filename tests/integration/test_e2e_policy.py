"""Published at the manager, enforced by the kernel: verdicts seen by real traffic, over IPv4 and IPv6, on one
host (a, b) and across two (a, c)."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.harness.lab import ANY, SECTION, Rule, World, allow, drop, group_path, reject, section
from vagrant.lab.probe import PATIENCE_S, Seen, inside
from vagrant.lab.rest import INFRA, put

ALLOWED, DROPPED, REJECTED = Seen.ALLOWED, Seen.DROPPED, Seen.REJECTED
SERVICES = ("tcp/80", "udp/80", "icmp")


def test_the_default_rule_decides_where_no_other_does(world: World) -> None:
    """No rules: the lab's default rule drops everything, between all VMs."""
    attempts = [("a", to, service) for to in ("b", "c") for service in SERVICES]
    assert world.seen_all(*attempts) == [DROPPED] * len(attempts)


@pytest.mark.parametrize("to", ["b", "c"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_rule_lets_its_service_pass_and_nothing_else(world: World, to: str, service: str) -> None:
    """Not the neighbouring port, not another protocol, not the way back, not to another VM."""
    world.enforce(allow("a", to, service))
    others = [("a", to, other) for other in (*SERVICES, "tcp/81", "udp/81") if other != service]
    guards = [*others, (to, "a", service), ("a", "d", service), ("d", to, service)]
    assert world.seen_all(("a", to, service), *guards) == [ALLOWED] + [DROPPED] * len(guards)


@pytest.mark.parametrize("to", ["b", "c"])
def test_reject_answers_at_once(world: World, to: str) -> None:
    """TCP by RST, UDP and ICMP by "administratively prohibited"; what is not rejected stays silent."""
    world.enforce(reject("a", to, "tcp/80", "udp/80", "icmp"))
    attempts = [("a", to, service) for service in SERVICES]
    assert world.seen_all(*attempts, ("a", to, "tcp/81")) == [REJECTED] * 3 + [DROPPED]


def test_the_first_match_decides(world: World) -> None:
    """Order is that of the rules, not of their actions."""
    world.enforce(drop("a", "c", "tcp/80"), allow(ANY, "c", "tcp/80", "tcp/81"), drop(ANY, ANY, "tcp/81"))
    assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80"), ("b", "c", "tcp/81")) == [
        DROPPED,
        ALLOWED,
        ALLOWED,
    ]


def test_a_rule_binds_only_what_it_is_applied_to(world: World) -> None:
    """Applied to the receiver alone, it does not let the sender's side pass; applied to both, it does."""
    world.enforce(allow("a", "c", "tcp/80", scope=[group_path("c")]))
    assert world.seen("a", "c", "tcp/80") is DROPPED
    world.enforce(allow("a", "c", "tcp/80", scope=[group_path("c"), group_path("a")]))
    assert world.seen("a", "c", "tcp/80") is ALLOWED


def test_everyone_but(world: World) -> None:
    """A negated source."""
    world.enforce(allow("a", "c", "tcp/80", sources_excluded=True))
    assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80"), ("d", "c", "tcp/80")) == [
        DROPPED,
        ALLOWED,
        ALLOWED,
    ]


def test_a_disabled_rule_is_not_there(world: World) -> None:
    """It stands in the section and decides nothing."""
    world.enforce(drop(ANY, ANY, disabled=True), allow("a", "c", "tcp/80"))
    assert world.seen("a", "c", "tcp/80") is ALLOWED


def test_a_monitored_rule_stops_nothing(world: World) -> None:
    """Not on the first host, not on the second: the next rule decides, and what it would have dropped is
    counted."""
    world.enforce(
        drop("a", "c", "tcp/80", monitored=True), allow("a", "c", "tcp/80"), allow("a", "c", monitored=True)
    )
    assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [ALLOWED, DROPPED]


def test_a_jump_leaves_out_the_rest_of_the_environment(world: World) -> None:
    """What it matches is decided by the application's rules, everything else by the environment's. The rules
    are about TCP: neighbour discovery, which comes after the environment's, has to find c over IPv6."""
    jump = {**drop("a", "c", "tcp/80"), "action": "JUMP_TO_APPLICATION"}
    rules = [jump, drop("a", ANY, "tcp/80", "tcp/81")]
    environment = f"{INFRA}/domains/default/security-policies/environment"
    body = {**section(rules), "category": "Environment"}
    world.lab.rest.put(environment, json=body).raise_for_status()
    try:
        world.enforce(allow("a", "c", "tcp/80", "tcp/81"), allow("b", "c", "tcp/81"))
        attempts = [("a", "c", "tcp/80"), ("a", "c", "tcp/81"), ("b", "c", "tcp/81")]
        assert world.seen_all(*attempts) == [ALLOWED, DROPPED, ALLOWED]
    finally:
        world.lab.rest.delete(environment).raise_for_status()


def test_a_section_is_enforced_when_its_schedule_says(world: World) -> None:
    """In the years it names, and in no others."""
    scheduler = f"{INFRA}/firewall-schedulers/years"
    world.lab.rest.patch(scheduler, json={"end_date": "12/31/2000"}).raise_for_status()
    scheduled = {"scheduler_path": "/infra/firewall-schedulers/years"}
    put(world.lab.rest, SECTION, {**section([allow("a", "c", "tcp/80")]), **scheduled})
    world.lab.wait_applied()
    assert world.seen("a", "c", "tcp/80") is DROPPED
    world.lab.rest.patch(scheduler, json={"end_date": "12/31/2999"}).raise_for_status()
    world.lab.wait_applied()
    assert world.seen("a", "c", "tcp/80") is ALLOWED
    world.enforce()
    world.lab.rest.delete(scheduler).raise_for_status()


def test_a_rule_for_one_family(world: World) -> None:
    """IPv6 only: IPv4 does not pass."""
    world.enforce(allow("a", "c", "tcp/80", ip_protocol="IPV6"))
    assert world.seen("a", "c", "tcp/80", family=6) is ALLOWED
    assert world.seen("a", "c", "tcp/80", family=4) is DROPPED


def test_a_group_by_tag_follows_its_vms(world: World) -> None:
    """A VM gets the tag, loses it, and another one has it then."""
    world.enforce(allow("red", "c", "tcp/80"))
    assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80")) == [DROPPED, DROPPED]
    world.lab.set_tags("a", "red")
    assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80")) == [ALLOWED, DROPPED]
    world.lab.set_tags("a")
    world.lab.set_tags("b", "red", "blue")
    assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80")) == [DROPPED, ALLOWED]


def test_a_forged_source_joins_no_group(world: World) -> None:
    """b sends with the address of a, who is allowed: c sees only what a sends."""
    world.enforce(allow("a", "c", "udp/7000"))
    a, b, c = world.vm("a"), world.vm("b"), world.vm("c")
    with inside(c.namespace):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind(("", 7000))
        for sender, payload in ((b, b"forged"), (a, b"own")):
            frame = Ether(src=sender.mac, dst=c.mac) / IP(src=a.v4, dst=c.v4) / UDP(dport=7000) / payload
            send_frames(sender.namespace, [bytes(frame)] * 3)
        assert received(receiver, 3) == [b"own"] * 3


def send_frames(namespace: str, frames: Sequence[bytes]) -> None:
    with inside(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("eth0", 0))
        for frame in frames:
            wire.send(frame)


def received(receiver: socket.socket, expected: int) -> list[bytes]:
    """As many, if they come in time; and what else comes until silence."""
    found: list[bytes] = []
    with suppress(TimeoutError):
        while True:
            receiver.settimeout(0.5 if len(found) >= expected else PATIENCE_S)
            found.append(receiver.recv(2048))
    return found


RULE = allow("a", "c", "tcp/80")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"action": "PERMIT"}, "action"),
        ({"actoin": "ALLOW"}, "actoin"),
        ({"source_groups": ["/infra/domains/default/groups/nobody"]}, "source_groups"),
        ({"source_groups": ["10.0.0.0/33"]}, "source_groups"),
        ({"source_groups": ["10.0.0.1/24"]}, "source_groups"),
        ({"source_groups": "ANY"}, "source_groups"),
        ({"destination_groups": ["10.0.0.9-10.0.0.1"]}, "destination_groups"),
        ({"service_entries": [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP",
                               "destination_ports": ["65536"]}]}, "destination_ports"),
        ({"sequence_number": "first"}, "sequence_number"),
        ({"scope": ["/infra/domains/default/groups/nobody"]}, "scope"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_refused(world: World, wrong: dict[str, Any], named: str) -> None:
    """400 with the field named, and no host is sent anything."""
    before = positions(world)
    answer = replace_section(world, {**RULE, **wrong})
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error_message"]
    assert positions(world) == before


def test_a_refused_request_changes_nothing(world: World) -> None:
    """One of its rules is bad: the good one beside it is not enforced, and what was enforced still is."""
    world.enforce(RULE)
    before = positions(world)
    answer = replace_section(world, allow("a", "b", "tcp/80"), {**RULE, "action": "PERMIT"})
    assert answer.status_code == 400, answer.text
    assert positions(world) == before
    assert world.seen_all(("a", "c", "tcp/80"), ("a", "b", "tcp/80")) == [ALLOWED, DROPPED]


def replace_section(world: World, *rules: Rule) -> httpx.Response:
    path = f"{INFRA}/{SECTION}"
    revision = world.lab.rest.get(path).json()["_revision"]
    return world.lab.rest.put(path, json={**section(rules), "_revision": revision})


def test_nobody_is_let_in_without_a_password(world: World) -> None:
    """Wrong credentials: 403, as in NSX, also for reading."""
    path = f"{INFRA}/{SECTION}"
    for auth in (("admin", "wrong"), ("nobody", world.lab.access.password)):
        assert world.lab.rest.get(path, auth=auth).status_code == 403
        assert world.lab.rest.put(path, json=section([]), auth=auth).status_code == 403


def positions(world: World) -> list[tuple[object, object]]:
    hosts = world.lab.rest.get("/api/v1/vsfw/hosts").raise_for_status().json()["results"]
    return [(host["wanted"], host["applied"]) for host in hosts]
