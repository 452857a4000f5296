"""Tags: which there are, what has them, and one tag to and from many VMs."""

from typing import Any

from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

VMS = [f"11111111-0000-4000-8000-00000000000{number}" for number in (1, 2)]
WEB, OLD = {"scope": "tier", "tag": "web"}, {"scope": "", "tag": "old"}


async def tags_of(manager: Manager, vm: str) -> Any:
    return (await manager.call("GET", f"{VSFW}/vms/{vm}"))["tags"]


async def test_one_tag_goes_to_and_from_many_vms_at_once(manager: Manager) -> None:
    """Added where it was missing, taken where it was; of a VM that is not there nothing happens to any."""
    for vm in VMS:
        await manager.call("PUT", f"{VSFW}/vms/{vm}", {"tags": [OLD]})
    resources = {"resource_type": "VirtualMachine", "resource_ids": VMS}
    done = await manager.call("PUT", f"{INFRA}/tags/tag-operations/t", {"tag": WEB, "apply_to": [resources]})
    assert done["status"] == "Success"
    assert [await tags_of(manager, vm) for vm in VMS] == [[OLD, WEB]] * 2
    body = {"tag": OLD, "remove_from": [resources | {"resource_ids": VMS[:1]}]}
    await manager.call("PUT", f"{INFRA}/tags/tag-operations/t", body)
    assert [await tags_of(manager, vm) for vm in VMS] == [[WEB], [OLD, WEB]]
    missing = resources | {"resource_ids": [VMS[0], VMS[1].replace("2", "3")]}
    refused = await manager.answer(
        "PUT", f"{INFRA}/tags/tag-operations/t", {"tag": OLD, "apply_to": [missing]}
    )
    assert refused.status_code == 404
    assert await tags_of(manager, VMS[0]) == [WEB]


async def test_tags_are_listed_with_what_has_them(manager: Manager) -> None:
    """Of VMs and of policy objects; the scope is part of the tag."""
    await manager.call("PUT", f"{VSFW}/vms/{VMS[0]}", {"display_name": "web1", "tags": [WEB, OLD]})
    await manager.call("PUT", f"{DOMAIN}/groups/g", {"tags": [WEB]})
    found = (await manager.call("GET", f"{INFRA}/tags?scope=tier"))["results"]
    assert found == [{**WEB, "tagged_objects_count": 2}]
    url = f"{INFRA}/tags/effective-resources"
    objects = (await manager.call("GET", f"{url}?scope=tier&tag=web"))["results"]
    assert [(each["target_type"], each["target_display_name"]) for each in objects] == [
        ("Group", "g"),
        ("VirtualMachine", "web1"),
    ]
    assert (await manager.call("GET", f"{url}?tag=web"))["results"] == []


async def test_more_tags_than_a_vm_may_have_are_refused(manager: Manager) -> None:
    """By adding too: 400, and it keeps what it has."""
    tags = [{"scope": "n", "tag": str(number)} for number in range(30)]
    await manager.call("PUT", f"{VSFW}/vms/{VMS[0]}", {"tags": tags})
    body = {"external_id": VMS[0], "tags": [WEB]}
    answer = await manager.answer("POST", "/api/v1/fabric/virtual-machines?action=add_tags", body)
    assert (answer.status_code, await tags_of(manager, VMS[0])) == (400, tags)
