"""Parts that die and come back: enforcement goes on, nothing allowed is lost, nothing forbidden passes, and
whatever was changed meanwhile arrives."""

import socket

import pytest

from tests.harness.lab import World, allow
from tests.harness.traffic import Stream
from vagrant.lab.probe import Seen, connect
from vagrant.lab.waiting import wait_until

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


@pytest.mark.slow
def test_enforcement_does_not_need_the_daemon(world: World) -> None:
    """SIGKILL on both hosts under traffic, and a new start: no allowed datagram is lost, no forbidden one
    arrives, an open session goes on, and new connections get the same verdicts while nobody is there."""
    world.enforce(allow("a", "c", "udp/7000", "tcp/80"))
    with (
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "a", "c", 7001, fresh=True) as forbidden,
        connect(world.vm("a").namespace, world.address("c"), 80) as session,
    ):
        for host in ("host1", "host2"):
            world.lab.kill_vsfwd(host)
        allowed.flowing()
        assert echo(session, b"while dead")
        assert world.seen_all(("a", "c", "tcp/80"), ("b", "c", "tcp/80")) == [ALLOWED, DROPPED]
        for host in ("host1", "host2"):
            world.lab.start_vsfwd(host)
        allowed.flowing()
        assert echo(session, b"alive again")
        world.lab.wait_applied()
    assert not allowed.lost
    assert not forbidden.received


@pytest.mark.slow
def test_a_daemon_catches_up_with_what_it_missed(world: World) -> None:
    """The policy changes while a daemon is dead: enforced once it is back, the other host's at once."""
    world.lab.kill_vsfwd("host1")
    world.order(allow("a", "b", "tcp/80"), allow("d", "c", "tcp/80"))
    wait_until(lambda: world.seen("d", "c", "tcp/80") is ALLOWED, "the change on host2")
    assert world.seen("a", "b", "tcp/80") is DROPPED
    world.lab.start_vsfwd("host1")
    world.lab.wait_applied()
    assert world.seen("a", "b", "tcp/80") is ALLOWED


@pytest.mark.slow
def test_a_daemon_starts_without_a_broker(world: World) -> None:
    """The policy on its disk is enforced: it is killed with the broker down, started, killed and started
    again."""
    world.enforce(allow("a", "c", "tcp/80"))
    world.lab.broker.stop()
    try:
        for _ in range(2):
            world.lab.kill_vsfwd("host1")
            world.lab.start_vsfwd("host1")
            assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [ALLOWED, DROPPED]
    finally:
        start_broker(world)
    world.lab.wait_applied()


@pytest.mark.slow
def test_the_broker_stops_and_starts(world: World) -> None:
    """Under traffic. What is changed meanwhile is taken by the manager, waits, and is enforced after."""
    world.enforce(allow("a", "c", "udp/7000"))
    with (
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "a", "c", 7001, fresh=True) as forbidden,
    ):
        world.lab.broker.stop()
        try:
            world.order(allow("a", "c", "udp/7000", "tcp/80"))
            allowed.flowing()
            assert world.seen("a", "c", "tcp/80") is DROPPED
        finally:
            start_broker(world)
        world.lab.wait_applied()
        assert world.seen("a", "c", "tcp/80") is ALLOWED
    assert not allowed.lost
    assert not forbidden.received


@pytest.mark.slow
def test_the_broker_is_killed_and_starts(world: World) -> None:
    """SIGKILL: it wakes with what it had on disk, and the next change goes through."""
    world.lab.broker.kill()
    start_broker(world)
    world.lab.wait_applied()
    world.order(allow("a", "c", "tcp/80"))
    world.lab.wait_applied()
    assert world.seen("a", "c", "tcp/80") is ALLOWED


@pytest.mark.slow
def test_the_manager_is_killed_and_starts(world: World) -> None:
    """Enforcement does not notice; the policy is there again, and the next change goes through."""
    world.enforce(allow("a", "c", "tcp/80"))
    manager = world.lab.manager
    manager.kill()
    try:
        assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [ALLOWED, DROPPED]
    finally:
        manager.start()
        manager.wait_ready(world.lab.rest)
    world.lab.wait_applied()
    world.enforce(allow("a", "c", "tcp/80", "tcp/81"))
    assert world.seen("a", "c", "tcp/81") is ALLOWED


def echo(session: socket.socket, text: bytes) -> bool:
    session.send(text)
    return session.recv(2048) == text


def start_broker(world: World) -> None:
    world.lab.broker.start()
    world.lab.broker.wait_ready()
