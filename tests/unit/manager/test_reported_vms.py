"""VMs that hosts report: nobody types what a host knows."""

from typing import Any

import msgspec
import pytest

from tests.unit.manager.expressions import condition, named, vm
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.protocol.messages import Binding, Bindings, Guest, Hello, PowerState, digest_text

pytestmark = pytest.mark.slow

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, OTHER_VM = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
VNIC, OTHER_VNIC = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
MAC = "02:00:00:00:00:01"
WEB = Guest("web-01", "Debian 12", "web01.example.net", PowerState.RUNNING)


@pytest.fixture
async def hosts(manager: Manager) -> Manager:
    """Two, that have nothing; a segment, and groups that ask for what is reported."""
    for host in (HOST, OTHER_HOST):
        manager.register.add_host(host, host[-1])
        manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1")})
    await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7})
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Name", "STARTSWITH", "web")]})
    return manager


def plug(manager: Manager, *bindings: Binding, host: str = HOST) -> None:
    manager.vnics.bound(host, Bindings(bindings))


async def read(manager: Manager, id: str = VM) -> Any:
    return await manager.call("GET", f"{VSFW}/vms/{id}")


def groups_of(manager: Manager, vnic: str = VNIC, host: str = HOST) -> list[str]:
    """As the host is told."""
    world = manager.register.world
    names = {stored.unique_id: path.rpartition("/")[2] for path, stored in world.groups.items()}
    sent = msgspec.json.decode(manager.register.hosts[host].level.wanted.objects["vnics"][vnic])
    return [names[group] for group in sent.get("groups", ())]


async def test_a_vm_that_is_plugged_is_in_the_inventory(hosts: Manager) -> None:
    """With all that the host says, and its host gets the policy for it."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB, "blue"))
    shown = await read(hosts)
    assert (shown["display_name"], shown["os_name"]) == ("web-01", "Debian 12")
    assert (shown["computer_name"], shown["power_state"]) == ("web01.example.net", "VM_RUNNING")
    (card,) = shown["vnics"]
    assert (card["id"], card["mac"], card["segment_path"]) == (VNIC, MAC, "/infra/segments/blue")
    wanted = hosts.register.hosts[HOST].level.wanted.objects
    assert (set(wanted["rules"]), set(wanted["vnics"])) == ({"1001", "1002", "1003"}, {VNIC})


async def test_a_report_is_in_the_audit_log(hosts: Manager) -> None:
    """With the host that made it, what was and what is; what nobody reported anew is not there."""
    for name in ("web-01", "web-02", "web-02"):
        plug(hosts, Binding(VNIC, VM, MAC, "veth0", Guest(name)))
    rows = (await hosts.call("GET", f"{VSFW}/audit-log"))["results"]
    said = [row for row in rows if row["path"] == f"/vsfw/vms/{VM}"]
    assert {row["user"] for row in said} == {f"host {HOST}"}
    assert sorted(row["after"]["display_name"] for row in said) == ["web-01", "web-02"]


async def test_a_vm_of_which_nothing_is_known_has_its_id_for_a_name(hosts: Manager) -> None:
    """A host that only knows ids says enough."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0"))
    shown = await read(hosts)
    assert (shown["display_name"], shown["power_state"]) == (VM, "UNKNOWN")
    assert "os_name" not in shown


async def test_what_only_the_manager_knows_stays(hosts: Manager) -> None:
    """Tags, typed addresses and SpoofGuard survive a report; so does what the report does not say."""
    card = {"id": VNIC, "mac": MAC, "addresses": ["10.0.0.1"], "spoofguard": "TOFU"}
    body = {"display_name": "typed", "os_name": "Plan 9", "tags": [{"tag": "a"}], "vnics": [card]}
    await hosts.call("PUT", f"{VSFW}/vms/{VM}", body)
    plug(hosts, Binding(VNIC, VM, "02:00:00:00:00:09", "veth0", Guest(computer_name="c"), "blue"))
    shown = await read(hosts)
    assert (shown["display_name"], shown["os_name"], shown["computer_name"]) == ("typed", "Plan 9", "c")
    assert shown["tags"] == [{"scope": "", "tag": "a"}]
    (after,) = shown["vnics"]
    assert {
        **card,
        "mac": "02:00:00:00:00:09",
        "segment_path": "/infra/segments/blue",
    }.items() <= after.items()


async def test_a_vm_that_is_replaced_keeps_what_was_reported(hosts: Manager) -> None:
    """Unless the body says otherwise: nothing has to be typed again to change a tag."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB))
    body = {"display_name": "web-01", "vnics": [{"id": VNIC, "mac": MAC}], "os_name": "typed"}
    shown = await hosts.call("PUT", f"{VSFW}/vms/{VM}", body)
    assert (shown["os_name"], shown["computer_name"]) == ("typed", "web01.example.net")
    assert shown["power_state"] == "VM_RUNNING"


async def test_the_same_report_again_changes_nothing(hosts: Manager) -> None:
    """No revision, no message to the host."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB))
    before, level = hosts.stored(), hosts.register.hosts[HOST].level
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB))
    assert (hosts.stored(), hosts.register.hosts[HOST].level) == (before, level)


async def test_a_vm_that_is_renamed_changes_its_groups(hosts: Manager) -> None:
    """In, and out again, as the host is told; its memberships by other things stay."""
    rule = {"source_groups": [named("web")], "action": "ALLOW"}
    await hosts.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [{"id": "r", **rule}]})
    for name, expected in (("db-01", []), ("web-02", ["web"]), ("db-02", [])):
        plug(hosts, Binding(VNIC, VM, MAC, "veth0", Guest(name)))
        assert groups_of(hosts) == expected


async def test_a_vnic_that_moves_to_another_cluster_changes_its_groups(hosts: Manager) -> None:
    """For a group by cluster, and by the datacenter of that cluster: once its old host has withdrawn it."""
    for number, host in enumerate((HOST, OTHER_HOST), 1):
        await hosts.call("PUT", f"{VSFW}/clusters/c{number}", {"hosts": [host]})
    await hosts.call("PUT", f"{VSFW}/datacenters/dc", {"clusters": ["c2"]})
    for group, asked in (
        ("first", condition("Cluster", "Name", "EQUALS", "c1")),
        ("second", condition("Datacenter", "Name", "EQUALS", "dc")),
    ):
        await hosts.call("PUT", f"{DOMAIN}/groups/{group}", {"expression": [asked]})
    rule = {"source_groups": [named("first"), named("second")], "action": "ALLOW"}
    await hosts.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [{"id": "r", **rule}]})
    here = Binding(VNIC, VM, MAC, "veth0")
    plug(hosts, here)
    assert groups_of(hosts) == ["first"]
    plug(hosts, here, host=OTHER_HOST)
    assert groups_of(hosts) == ["first"]
    plug(hosts)
    assert groups_of(hosts, host=OTHER_HOST) == ["second"]


@pytest.mark.parametrize(
    "bad",
    [
        Binding(OTHER_VNIC, "not-a-uuid/../x", MAC, "veth1"),
        Binding("no uuid", OTHER_VM, MAC, "veth1"),
        Binding(OTHER_VNIC, OTHER_VM, "02-00", "veth1"),
        Binding(OTHER_VNIC, OTHER_VM, MAC, "veth1", Guest("a\nb")),
        Binding(OTHER_VNIC, OTHER_VM, MAC, "veth1", Guest("x" * 256)),
        Binding(OTHER_VNIC, "", MAC, "veth1"),
        Binding(OTHER_VNIC, OTHER_VM, "00:00:00:00:00:00", "veth1"),
        Binding(VNIC, OTHER_VM, MAC, "veth1", Guest("thief")),
    ],
)
async def test_a_bad_report_stops_no_good_one(hosts: Manager, bad: Binding) -> None:
    """Ids that are none, names that cannot be, a vNIC of another VM: left out; the VM beside it is taken."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB))
    plug(hosts, bad, Binding(VNIC, VM, MAC, "veth0", Guest("web-09")))
    assert (await read(hosts))["display_name"] == "web-09"
    assert len(hosts.register.world.vms) == 1


async def test_a_new_vnic_said_to_be_of_two_vms_is_of_the_first(hosts: Manager) -> None:
    """In one report."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB), Binding(VNIC, OTHER_VM, MAC, "veth1", WEB))
    assert [path[-36:] for path in hosts.register.world.vms] == [VM]


async def test_a_mac_address_is_one_vnics_of_a_segment(hosts: Manager) -> None:
    """Who has it keeps it, also in one report; the other is left out with the reason, and what is beside it
    counts. On another segment, and on none, it is another's matter."""
    await hosts.call("PUT", f"{INFRA}/segments/red", {"overlay_id": 8})
    first = Binding(VNIC, VM, MAC, "veth0", segment="blue")
    plug(hosts, first)
    thief = Binding(OTHER_VNIC, OTHER_VM, MAC, "veth1", segment="blue")
    more = [
        Binding(VNIC[:-1] + number, VM[:-1] + number, mac, "veth", segment=segment)
        for number, mac, segment in (
            ("3", MAC, "red"),
            ("4", MAC, ""),
            ("5", "02:00:00:00:00:05", "blue"),
            ("6", "02:00:00:00:00:05", "blue"),
        )
    ]
    plug(hosts, thief, *more, host=OTHER_HOST)
    assert {path[-1] for path in hosts.register.world.vms} == {"1", "3", "4", "5"}
    reasons = hosts.register.hosts[OTHER_HOST].left_out
    assert [reason.rpartition(": ")[0][-1] for reason in reasons] == ["2", "6"]
    assert f"{MAC} is that of vNIC {VNIC} in /infra/segments/blue" in reasons[0]
    assert hosts.register.world.vnics[VNIC].path == f"/vsfw/vms/{VM}"


async def test_two_vnics_can_change_their_mac_addresses(hosts: Manager) -> None:
    """Said in one report; and who has left a segment's address to another is not asked again."""
    other_mac = "02:00:00:00:00:02"
    plug(
        hosts,
        *(
            Binding(*ids, segment="blue")
            for ids in ((VNIC, VM, MAC, "a"), (OTHER_VNIC, OTHER_VM, other_mac, "b"))
        ),
    )
    plug(
        hosts,
        *(
            Binding(*ids, segment="blue")
            for ids in ((VNIC, VM, other_mac, "a"), (OTHER_VNIC, OTHER_VM, MAC, "b"))
        ),
    )
    assert [(await read(hosts, vm))["vnics"][0]["mac"] for vm in (VM, OTHER_VM)] == [other_mac, MAC]


async def test_a_vm_made_anew_has_its_mac_address(hosts: Manager) -> None:
    """Its old self is in the inventory until it is deleted, and in nobody's way: it is plugged nowhere."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", segment="blue"))
    plug(hosts)
    plug(hosts, Binding(OTHER_VNIC, OTHER_VM, MAC, "veth0", segment="blue"))
    assert (await read(hosts, OTHER_VM))["vnics"][0]["mac"] == MAC
    assert hosts.register.hosts[HOST].left_out == ()


async def test_a_mac_address_that_is_typed_twice_is_refused(hosts: Manager) -> None:
    """By the name of the field and of who has it; a change of what had it before is not."""
    card = {"mac": MAC, "segment_path": "/infra/segments/blue"}
    await hosts.call("PUT", f"{VSFW}/vms/{VM}", {"vnics": [{"id": VNIC, **card}]})
    answer = await hosts.answer("PUT", f"{VSFW}/vms/{OTHER_VM}", {"vnics": [{"id": OTHER_VNIC, **card}]})
    assert answer.status_code == 409
    assert f"vnics.0.mac: {MAC} is that of vNIC {VNIC}" in answer.text
    body = {"vnics": [{"id": VNIC, **card}, {"id": OTHER_VNIC, **card}]}
    assert (await hosts.answer("PUT", f"{VSFW}/vms/{VM}", body)).status_code == 409
    await hosts.call("PUT", f"{VSFW}/vms/{VM}", {"tags": [{"tag": "a"}], "vnics": [{"id": VNIC, **card}]})


async def test_a_segment_nobody_made_is_not_taken(hosts: Manager) -> None:
    """The vNIC is on none, rather than on one that does not exist; the rest of the report counts."""
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", WEB, "../../groups/web"))
    shown = await read(hosts)
    assert (shown["display_name"], "segment_path" in shown["vnics"][0]) == ("web-01", False)


async def test_addresses_that_tools_report_come_and_go(hosts: Manager) -> None:
    """They are claims like others, with their source, and are sent while they are said."""

    async def seen() -> list[tuple[str, str, str]]:
        shown = (await hosts.call("GET", f"{VSFW}/addresses"))["results"]
        return [(each["address"], each["source"], each["state"]) for each in shown]

    plug(hosts, Binding(VNIC, VM, MAC, "veth0", addresses=("10.0.0.1", "fd00::1")))
    assert await seen() == [("10.0.0.1", "TOOLS", "TRUSTED"), ("fd00::1", "TOOLS", "TRUSTED")]
    sent = msgspec.json.decode(hosts.register.hosts[HOST].level.wanted.objects["vnics"][VNIC])
    assert sent["addresses"] == ["10.0.0.1", "fd00::1"]
    plug(hosts, Binding(VNIC, VM, MAC, "veth0", addresses=("fd00::1",)))
    assert await seen() == [("fd00::1", "TOOLS", "TRUSTED")]


async def test_a_vm_that_was_deleted_is_back_with_the_next_report(hosts: Manager) -> None:
    """It is still plugged; a VM that was unplugged stays until it is deleted."""
    binding = Binding(VNIC, VM, MAC, "veth0", WEB)
    plug(hosts, binding)
    await hosts.call("DELETE", f"{VSFW}/vms/{VM}")
    plug(hosts, binding)
    assert (await read(hosts))["display_name"] == "web-01"
    plug(hosts)
    assert (await read(hosts))["display_name"] == "web-01"
