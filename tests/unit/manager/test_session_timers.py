"""Session timer profiles: by REST, bound to groups, in what hosts are sent."""

from typing import Any

import msgspec
import pytest

from manager_stub.register import Register
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.policy.model import SessionTimers, Vnic
from vsfwd.protocol.messages import Binding, Bindings

PROFILES = f"{INFRA}/firewall-session-timer-profiles"
DEFAULT = f"{PROFILES}/default-session-timer-profile"
GROUPS = f"{DOMAIN}/groups"
HOSTS = [f"33333333-0000-4000-8000-00000000000{number}" for number in (1, 2)]
VMS = {name: f"11111111-0000-4000-8000-00000000000{number}" for number, name in enumerate(("web", "db"), 1)}
VNICS = {
    name: f"22222222-0000-4000-8000-00000000000{number}"
    for number, name in enumerate(("web-blue", "web-red", "db-blue"), 1)
}
NSX = SessionTimers()


def tagged(value: str, member: str = "VirtualMachine") -> dict[str, Any]:
    condition = {"resource_type": "Condition", "member_type": member, "key": "Tag", "operator": "EQUALS"}
    return {"expression": [{**condition, "value": value}]}


def bound(profile: str, **more: int) -> dict[str, Any]:
    path = f"/infra/firewall-session-timer-profiles/{profile}"
    return {"firewall_session_timer_profile_path": path, **more}


def binding(group: str, id: str = "timers") -> str:
    return f"{GROUPS}/{group}/firewall-session-timer-profile-binding-maps/{id}"


def mac(vnic: str) -> str:
    return f"02:00:00:00:00:0{list(VNICS).index(vnic)}"


@pytest.fixture
async def serving(manager: Manager) -> Manager:
    """web has a vNIC on the segments blue and red, db one on blue; web is on one host, db on the other, and a
    rule makes web known there."""
    for segment in ("blue", "red"):
        await manager.call("PUT", f"{INFRA}/segments/{segment}", {"tags": [{"tag": segment}]})
    cards = {"web": ("web-blue", "web-red"), "db": ("db-blue",)}
    for name, vnics in cards.items():
        body = [
            {
                "id": VNICS[vnic],
                "mac": mac(vnic),
                "addresses": [f"10.0.0.{list(VNICS).index(vnic) + 1}"],
                "segment_path": f"/infra/segments/{vnic.rsplit('-')[1]}",
            }
            for vnic in vnics
        ]
        tags = [{"tag": name}]
        await manager.call(
            "PUT", f"{VSFW}/vms/{VMS[name]}", {"display_name": name, "tags": tags, "vnics": body}
        )
        await manager.call("PUT", f"{GROUPS}/{name}", tagged(name))
    await manager.call("PUT", f"{GROUPS}/red", tagged("red", "Segment"))
    rule = {"id": "r", "action": "ALLOW", "source_groups": ["/infra/domains/default/groups/web"]}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    for host, (name, vnics) in zip(HOSTS, cards.items(), strict=True):
        manager.register.add_host(host, name)
        plugged = (Binding(VNICS[vnic], VMS[name], mac(vnic), vnic) for vnic in vnics)
        manager.vnics.bound(host, Bindings(tuple(plugged)))
    return manager


def timers(manager: Manager, host: int = 0) -> dict[str, SessionTimers]:
    """What a host is told of the vNICs it knows."""
    raw = manager.register.hosts[HOSTS[host]].level.wanted.objects["vnics"]
    names = {id: name for name, id in VNICS.items()}
    return {names[id]: msgspec.json.decode(vnic, type=Vnic).timers or NSX for id, vnic in raw.items()}


async def test_the_default_profile_is_there_with_the_values_of_nsx(serving: Manager) -> None:
    """It can be read, and is every vNIC's; it takes no bytes on the way to a host."""
    shown = await serving.call("GET", DEFAULT)
    assert {name: shown[name] for name in NSX.seconds()} == NSX.seconds()
    assert shown["resource_type"] == "PolicyFirewallSessionTimerProfile"
    assert (await serving.call("GET", PROFILES))["result_count"] == 1
    assert timers(serving) == {"web-blue": NSX, "web-red": NSX}
    assert b"timers" not in b"".join(serving.register.hosts[HOSTS[0]].level.wanted.objects["vnics"].values())


async def test_the_default_profile_can_be_changed_for_everybody(serving: Manager) -> None:
    """And neither be deleted nor be something else."""
    await serving.call("PATCH", DEFAULT, {"udp_single": 15})
    expected = SessionTimers(udp_single=15)
    assert timers(serving) == {"web-blue": expected, "web-red": expected}
    answer = await serving.answer("DELETE", DEFAULT)
    assert (answer.status_code, "cannot delete predefined object" in answer.text) == (400, True)


async def test_a_profile_is_put_read_changed_and_deleted(serving: Manager) -> None:
    """PUT, GET, PATCH, DELETE and list, with revisions, as every object of the API."""
    path = f"{PROFILES}/short"
    await serving.call("PUT", path, {"tcp_established": 600})
    shown = await serving.call("GET", path)
    assert (shown["tcp_established"], shown["udp_single"], shown["_revision"]) == (600, 30, 0)
    await serving.call("PUT", path, {**shown, "udp_single": 10})
    await serving.call("PATCH", path, {"tcp_closed": 11})
    shown = await serving.call("GET", path)
    assert (shown["tcp_established"], shown["udp_single"], shown["tcp_closed"]) == (600, 10, 11)
    assert [each["id"] for each in (await serving.call("GET", PROFILES))["results"]] == [
        "default-session-timer-profile",
        "short",
    ]
    await serving.call("DELETE", path)
    assert (await serving.answer("GET", path)).status_code == 404


async def test_a_bound_profile_is_that_of_the_groups_members(serving: Manager) -> None:
    """All vNICs of a VM by its tag; and the host is told of those that are plugged there only."""
    await serving.call("PUT", f"{PROFILES}/short", {"tcp_established": 600})
    before = serving.register.hosts[HOSTS[1]].level.wanted.objects["vnics"]
    await serving.call("PUT", binding("web"), bound("short"))
    short = SessionTimers("short", tcp_established=600)
    assert timers(serving) == {"web-blue": short, "web-red": short}
    assert serving.register.hosts[HOSTS[1]].level.wanted.objects["vnics"] == before
    assert before.keys() == set(VNICS.values())
    await serving.call("DELETE", binding("web"))
    assert timers(serving) == {"web-blue": NSX, "web-red": NSX}


async def test_a_group_of_a_segment_gives_one_vnic_its_profile(serving: Manager) -> None:
    """The vNIC, not its VM, is the member."""
    await serving.call("PUT", f"{PROFILES}/short", {"tcp_established": 600})
    await serving.call("PUT", binding("red"), bound("short"))
    assert timers(serving) == {"web-blue": NSX, "web-red": SessionTimers("short", tcp_established=600)}


async def test_of_two_bindings_the_lower_number_counts(serving: Manager) -> None:
    """As in NSX; of equal numbers the path that is first."""
    for name in ("one", "two"):
        await serving.call("PUT", f"{PROFILES}/{name}", {})
    await serving.call("PUT", binding("web"), bound("one", sequence_number=5))
    await serving.call("PUT", binding("red"), bound("two", sequence_number=4))
    assert {vnic: of.profile for vnic, of in timers(serving).items()} == {"web-blue": "one", "web-red": "two"}
    await serving.call("PATCH", binding("red"), {"sequence_number": 5})
    assert {vnic: of.profile for vnic, of in timers(serving).items()} == {"web-blue": "one", "web-red": "two"}
    await serving.call("PATCH", binding("red"), {"sequence_number": 6})
    assert {vnic: of.profile for vnic, of in timers(serving).items()} == {"web-blue": "one", "web-red": "one"}


async def test_a_change_of_a_profile_or_a_tag_reaches_the_host(serving: Manager) -> None:
    """A changed timer, and a VM that joins the group."""
    await serving.call("PUT", f"{PROFILES}/short", {"tcp_established": 600})
    await serving.call("PUT", binding("db"), bound("short"))
    assert timers(serving)["web-blue"] == NSX
    body = {"external_id": VMS["web"], "tags": [{"tag": "web"}, {"tag": "db"}]}
    await serving.call("POST", "/api/v1/fabric/virtual-machines?action=update_tags", body)
    assert timers(serving)["web-blue"].tcp_established == 600
    await serving.call("PATCH", f"{PROFILES}/short", {"tcp_established": 700})
    assert timers(serving)["web-blue"].tcp_established == 700


async def test_bindings_are_listed_by_group(serving: Manager) -> None:
    """Each group shows its own; a group that is not there is an error."""
    await serving.call("PUT", f"{PROFILES}/short", {})
    await serving.call("PUT", binding("web"), bound("short"))
    found = await serving.call("GET", f"{GROUPS}/web/firewall-session-timer-profile-binding-maps")
    assert [(each["id"], each["parent_path"]) for each in found["results"]] == [
        ("timers", "/infra/domains/default/groups/web")
    ]
    assert (await serving.call("GET", binding("db").removesuffix("/timers")))["results"] == []
    assert (await serving.answer("GET", binding("no").removesuffix("/timers"))).status_code == 404


@pytest.mark.parametrize("path", [f"{PROFILES}/short", f"{GROUPS}/red"])
async def test_what_a_binding_names_cannot_be_deleted(serving: Manager, path: str) -> None:
    """Neither the profile nor the group."""
    await serving.call("PUT", f"{PROFILES}/short", {})
    await serving.call("PUT", binding("red"), bound("short"))
    answer = await serving.answer("DELETE", path)
    assert (answer.status_code, "is used by" in answer.text) == (400, True)


async def test_profiles_and_bindings_are_there_again_after_a_restart(serving: Manager) -> None:
    """With the timers of every vNIC, and nothing to send."""
    await serving.call("PUT", f"{PROFILES}/short", {"udp_single": 10})
    await serving.call("PUT", binding("web"), bound("short"))
    again = Register(serving.parts.store, serving.directory.signing_key())
    assert again.world == serving.register.world
    assert again.hosts[HOSTS[0]].level.wanted == serving.register.hosts[HOSTS[0]].level.wanted
