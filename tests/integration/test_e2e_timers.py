"""Session timers, from a profile at the manager to how long a connection through a VM's vNIC lives."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.lab import World, allow, group_path
from vagrant.lab.probe import Seen
from vagrant.lab.rest import INFRA, put, request
from vsfwd.ipc.client import ask
from vsfwd.policy.model import SessionTimers

pytestmark = pytest.mark.slow

PROFILE = "firewall-session-timer-profiles/short"
BINDING = f"{group_path('c').removeprefix('/infra/')}/firewall-session-timer-profile-binding-maps/short"


@pytest.fixture
def short(world: World) -> Iterator[None]:
    """The profile at VM c: what was answered lives 100 s in place of 60."""
    put(world.lab.rest, PROFILE, {"udp_multiple": 100})
    put(world.lab.rest, BINDING, {"firewall_session_timer_profile_path": f"/infra/{PROFILE}"})
    world.lab.wait_applied()
    yield
    for path in (BINDING, PROFILE):
        request(world.lab.rest, "DELETE", f"{INFRA}/{path}")
    world.lab.wait_applied()


def rows(world: World, vm: str, method: str) -> list[Any]:
    """What the VM's host answers about its vNIC."""

    async def collect(vsfwd: Any) -> list[Any]:
        stream = getattr(vsfwd, method)(vnic=world.vm(vm).vnic)
        return [row async for reply in stream for row in reply["part"]]

    found: list[Any] = ask(world.lab.host(world.vm(vm).host).socket, collect)
    return found


def lifetime(world: World, vm: str) -> int:
    """Seconds that the newest answered UDP flow of the VM still has."""
    return max((row.expires_s for row in rows(world, vm, "Flows") if row.state == "multiple"), default=0)


@pytest.mark.usefixtures("short")
def test_a_bound_profile_is_how_long_connections_live(world: World) -> None:
    """The same connection, through a VM with the profile and one without: each vNIC has its own time. A
    changed profile is that of the next packet, and a host shows which profile a vNIC has."""
    world.enforce(allow("a", "c", "udp/80"))
    assert world.seen("a", "c", "udp/80") is Seen.ALLOWED
    assert (90 < lifetime(world, "c") <= 100, 50 < lifetime(world, "a") <= 60) == (True, True)
    (shown,) = rows(world, "c", "Timers")
    assert (shown.profile, shown.timers) == ("short", SessionTimers(udp_multiple=100).seconds())
    assert [row.profile for row in rows(world, "a", "Timers")] == ["default"]

    request(world.lab.rest, "PATCH", f"{INFRA}/{PROFILE}", {"udp_multiple": 200})
    world.lab.wait_applied()
    assert rows(world, "c", "Timers")[0].timers["udp_multiple"] == 200
    assert lifetime(world, "c") <= 100
    assert world.seen("a", "c", "udp/80") is Seen.ALLOWED
    assert 190 < lifetime(world, "c") <= 200
