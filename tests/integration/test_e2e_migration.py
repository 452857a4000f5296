"""A VM moves between hosts that have a firewall: what its policy forbids never passes, before, while and
after; what it allows passes again, and its connections go on. Rows O30 to O35 of the fault catalogue."""

import functools
import json
import socket
from collections.abc import Iterator

import pytest

from tests.harness.documents import commands
from tests.harness.lab import World, allow
from tests.harness.prober import DROP, STREAM, Prober
from tests.harness.traffic import Stream
from tests.integration.test_e2e_spoofguard import typed
from vagrant.lab import host as hosts
from vagrant.lab.probe import Seen, connect
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


@pytest.fixture
def at_home(world: World) -> Iterator[World]:
    """Every VM is on its host again afterwards."""
    homes = {vm.name: vm.host for vm in world.lab.layout.vms}
    yield world
    for vm in world.lab.layout.vms:
        if vm.host != homes[vm.name]:
            world.lab.migrate(vm.name, homes[vm.name])


@pytest.mark.slow
def test_a_vm_that_moves_keeps_its_policy(at_home: World) -> None:
    """There and back under traffic that begins a new flow with each datagram: of what is forbidden nothing
    arrives, what is allowed arrives again, from the old host and from the new one, and the manager knows
    where the VM is."""
    world = at_home
    world.enforce(allow("a", "c", "udp/7000", "tcp/80"), allow("c", "d", "tcp/80"))
    with (
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "d", "c", 7001, fresh=True) as forbidden,
    ):
        for host in ("host1", "host2"):
            world.lab.migrate("c", host)
            before = len(allowed.received)
            wait_until(lambda before=before: len(allowed.received) > before, "datagrams")  # type: ignore[misc]
            forbidden.flowing()
            assert world.seen_all(("a", "c", "tcp/80"), ("c", "d", "tcp/80")) == [ALLOWED, ALLOWED]
            assert world.seen_all(("b", "c", "tcp/80"), ("c", "d", "tcp/81")) == [DROPPED, DROPPED]
            assert host_at_manager(world, "c") == world.lab.host(host).id
    assert not forbidden.received


@pytest.mark.slow
def test_the_old_host_forgets_a_vm_that_has_moved(at_home: World) -> None:
    """Nothing of its vNIC is left there: no port, and with it no flow."""
    world = at_home
    world.enforce(allow("a", "c", "tcp/80"))
    with connect(world.vm("a").namespace, world.address("c"), 80):
        world.lab.migrate("c", "host1")
        old, vnic = world.lab.host("host2"), world.vm("c").vnic
        wait_until(lambda: not hosts.are_open(old, {vnic}), "the old host to let go")
        ask = functools.partial(hosts.status, old)
        wait_until(lambda: vnic not in {each.vnic for each in ask().vnics}, "the vNIC to go")


@pytest.mark.slow
def test_o34_numbered_streams_survive_a_ping_pong(at_home: World) -> None:
    """Four moves, one right after the other, under constant traffic in both families, SpoofGuard on: every
    number of the TCP streams arrives, strict as their section is, and nothing that is forbidden ever does. At
    a rate that a sender's buffer holds while nothing is acknowledged."""
    world = at_home
    world.enforce(allow("a", "c", "udp/7000", "udp/7002", "tcp/7003"))
    with (
        typed(world, world.vm("c"), spoofguard="MANUAL"),
        Prober(
            world.vm("a").namespace, world.vm("c").namespace, (world.vm("c").v4, world.vm("c").v6), rate=50
        ) as prober,
    ):
        for host in ("host1", "host2", "host1", "host2"):
            prober.note(f"to {host}")
            world.lab.migrate("c", host)
        prober.flowing(25)
    wrong = [
        str(tally) for tally in prober.tallies if tally.delivered or (tally.kind == STREAM and tally.missing)
    ]
    assert wrong == []
    assert all(tally.sent > 50 for tally in prober.tallies if tally.kind in (DROP, STREAM))


@pytest.mark.slow
def test_o32_a_connection_of_a_strict_section_needs_its_state(at_home: World) -> None:
    """Nobody lets TCP begin in the middle: with its state it goes on, also when that is asked for
    afterwards, since nobody had said that the VM would move."""
    world = at_home
    world.enforce(allow("a", "c", "tcp/80"))
    with connect(world.vm("a").namespace, world.address("c"), 80) as session:
        record = world.lab.migrate("c", "host1")
        assert echo(session, b"with its state")
        assert (record["state"], record["flows"] >= 1, record["bytes"] > 0) == ("active", True, True)
        world.lab.migrate("c", "host2", announced=False)
        assert echo(session, b"asked for")
    assert world.seen("a", "c", "tcp/80") is ALLOWED


@pytest.mark.slow
def test_o35_a_move_that_is_called_off(at_home: World) -> None:
    """Prepared, and then aborted at the manager: the VM goes on where it is, and can move later."""
    world = at_home
    world.enforce(allow("a", "c", "tcp/80"))
    path = "/api/v1/vsfw/migrations"
    with connect(world.vm("a").namespace, world.address("c"), 80) as session:
        (begin,) = commands("manager_stub/api/README.md", "Migrations")
        begin = begin.replace("VM", world.vm("c").id).replace("HOST", world.lab.host("host1").id)
        move = json.loads(world.by_hand(begin))
        assert move["state"] == "prepared"
        assert world.lab.rest.delete(f"{path}/{move['id']}").json()["state"] == "aborted"
        assert echo(session, b"goes on")
        world.lab.migrate("c", "host1")
        assert echo(session, b"and again")


@pytest.mark.slow
def test_o31_a_host_without_vsfwd_is_no_target(at_home: World) -> None:
    """Refused before anything happens; the VM stays where it is, and nothing is lost."""
    world = at_home
    world.enforce(allow("a", "c", "udp/7000"))
    with Stream(world, "a", "c", 7000) as stream:
        world.lab.kill_vsfwd("host1")
        with pytest.raises(LabError, match="the vsfwd of host1 is not running"):
            world.lab.migrate("c", "host1")
        stream.flowing()
    assert not stream.lost


def echo(session: socket.socket, text: bytes) -> bool:
    try:
        session.sendall(text)
        return session.recv(64) == text
    except TimeoutError:
        return False


def host_at_manager(world: World, vm: str) -> str:
    """Where the manager has a VM's vNIC."""
    answer = world.lab.rest.get("/api/v1/fabric/vifs", params={"owner_vm_id": world.vm(vm).id})
    (vif,) = answer.raise_for_status().json()["results"]
    return str(vif["host_id"])
