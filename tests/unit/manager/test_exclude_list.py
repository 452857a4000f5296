"""The exclusion list: VMs and groups by REST, excluded vNICs in what hosts are sent."""

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from manager_stub.register import Register
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.policy.model import Vnic
from vsfwd.protocol.messages import Binding, Bindings

LIST = f"{INFRA}/settings/firewall/security/exclude-list"
HOST = "33333333-0000-4000-8000-000000000001"
VMS = {name: f"11111111-0000-4000-8000-00000000000{number}" for number, name in enumerate(("web", "db"), 1)}
VNICS = {name: f"22222222-0000-4000-8000-00000000000{number}" for number, name in enumerate(("web", "db"), 1)}


def group(condition: dict[str, Any]) -> dict[str, Any]:
    return {"expression": [condition]}


TAGGED = {
    "resource_type": "Condition",
    "member_type": "VirtualMachine",
    "key": "Tag",
    "operator": "EQUALS",
    "value": "appliance",
}
LISTED = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/8"]}


@pytest.fixture
async def serving(manager: Manager) -> Manager:
    """A manager with a host on which web and db are plugged."""
    for number, (name, id) in enumerate(VMS.items(), 1):
        vnic = {"id": VNICS[name], "mac": f"02:00:00:00:00:0{number}", "addresses": [f"10.0.0.{number}"]}
        await manager.call("PUT", f"{VSFW}/vms/{id}", {"display_name": name, "vnics": [vnic]})
    manager.register.add_host(HOST, "host")
    manager.vnics.bound(
        HOST,
        Bindings(
            tuple(
                Binding(VNICS[name], VMS[name], f"02:00:00:00:00:0{n}", name) for n, name in enumerate(VMS, 1)
            )
        ),
    )
    return manager


def excluded(manager: Manager) -> set[str]:
    """The VMs whose vNICs the host is told not to enforce."""
    raw = manager.register.hosts[HOST].level.wanted.objects["vnics"].values()
    return {card.vm_name for card in (msgspec.json.decode(vnic, type=Vnic) for vnic in raw) if card.excluded}


async def test_the_list_is_there_and_empty(serving: Manager) -> None:
    """As NSX shows it; nobody is excluded."""
    shown = await serving.call("GET", LIST)
    assert (shown["resource_type"], shown["members"], shown["id"]) == (
        "PolicyExcludeList",
        [],
        "exclude-list",
    )
    assert excluded(serving) == set()


async def test_a_vm_on_the_list_is_not_enforced(serving: Manager) -> None:
    """X50: the host is told, the VM shows it, and taken off the list it is enforced again."""
    await serving.call("PUT", LIST, {"_revision": 0, "members": [f"/vsfw/vms/{VMS['web']}"]})
    assert excluded(serving) == {"web"}
    assert (await serving.call("GET", f"{VSFW}/vms/{VMS['web']}"))["excluded_vnics"] == [VNICS["web"]]
    assert (await serving.call("GET", f"{VSFW}/vms/{VMS['db']}"))["excluded_vnics"] == []
    listed = (await serving.call("GET", f"{VSFW}/vms"))["results"]
    assert {vm["display_name"]: len(vm["excluded_vnics"]) for vm in listed} == {"web": 1, "db": 0}
    await serving.call("PATCH", LIST, {"members": []})
    assert excluded(serving) == set()


async def test_members_of_a_group_are_excluded_while_they_are_members(serving: Manager) -> None:
    """A tag brings a VM onto the list, and takes it off."""
    await serving.call("PUT", f"{DOMAIN}/groups/appliances", group(TAGGED))
    await serving.call("PATCH", LIST, {"members": ["/infra/domains/default/groups/appliances"]})
    assert excluded(serving) == set()
    for tags, expected in (([{"tag": "appliance"}], {"db"}), ([], set())):
        body = {"external_id": VMS["db"], "tags": tags}
        await serving.call("POST", "/api/v1/fabric/virtual-machines?action=update_tags", body)
        assert excluded(serving) == expected


async def test_an_address_excludes_nobody(serving: Manager) -> None:
    """A group that lists addresses has no members by them: who takes an address does not escape."""
    await serving.call("PUT", f"{DOMAIN}/groups/net", group(LISTED))
    await serving.call("PATCH", LIST, {"members": ["/infra/domains/default/groups/net"]})
    assert excluded(serving) == set()


async def test_what_is_on_the_list_cannot_be_deleted(serving: Manager) -> None:
    """As everything that another object names."""
    await serving.call("PATCH", LIST, {"members": [f"/vsfw/vms/{VMS['web']}"]})
    answer = await serving.answer("DELETE", f"{VSFW}/vms/{VMS['web']}")
    assert (answer.status_code, "is used by" in answer.text) == (400, True)


async def test_the_list_is_there_again_after_a_restart(serving: Manager) -> None:
    """And it is the list that was put, not the empty one."""
    await serving.call("PATCH", LIST, {"members": [f"/vsfw/vms/{VMS['web']}"]})
    again = Register(serving.parts.store, serving.directory.signing_key())
    assert again.world == serving.register.world
    assert again.excluded_vnics(f"/vsfw/vms/{VMS['web']}") == [VNICS["web"]]


async def test_a_vm_that_was_read_can_be_written_back(serving: Manager) -> None:
    """What the manager says of its exclusion is no field of it."""
    path = f"{VSFW}/vms/{VMS['web']}"
    await serving.call("PUT", path, await serving.call("GET", path))


async def test_x50_a_change_of_the_list_is_logged(serving: Manager) -> None:
    """As a warning, with who is excluded from now on; a refused one is not."""
    members = [f"/vsfw/vms/{VMS['web']}"]
    with capture_logs() as logged:
        await serving.call("PUT", LIST, {"_revision": 0, "members": members})
        await serving.answer("PUT", LIST, {"_revision": 0, "members": []})
    changes = [entry for entry in logged if entry["event"] == "exclusion list changed"]
    assert [(entry["log_level"], entry["members"]) for entry in changes] == [("warning", members)]
