"""The requests of Ansible's modules for NSX (github.com/vmware/ansible-for-nsxt, `plugins/`), which cannot
run here: each test sends what one of its files sends, in its order, and reads what that file reads."""

from typing import Any

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

VM = "11111111-0000-4000-8000-000000000001"
RULE = {
    "action": "ALLOW",
    "description": "example-rule",
    "sequence_number": 1,
    "display_name": "test-example-rule",
    "id": "test-example-rule",
    "source_groups": ["/infra/domains/default/groups/db"],
    "destination_groups": ["/infra/domains/default/groups/app"],
    "services": ["/infra/services/HTTP", "/infra/services/HTTPS"],
    "tag": "my-tag",
    "tags": [{"scope": "scope-1", "tag": "tag-1"}],
    "logged": True,
    "notes": "dummy-notes",
    "ip_protocol": "IPV4_IPV6",
    "scope": ["ANY"],
    "profiles": ["ANY"],
}
"""The example of `modules/nsxt_policy_security_policy.py`."""


async def present(manager: Manager, url: str, spec: dict[str, Any]) -> bool:
    """`module_utils/nsxt_base_resource.py`: whether the resource was changed to be as in `spec`. What is
    missing in it is filled with what is there, read-only fields too; a revision that moved is a change."""
    before = await manager.answer("GET", url)
    if before.status_code == 404:
        await manager.call("PATCH", url, spec)
        return True
    existing = before.json()
    await manager.call("PATCH", url, existing | spec | {"_revision": existing["_revision"]})
    return bool((await manager.call("GET", url))["_revision"] != existing["_revision"])


async def test_a_playbook_that_runs_again_changes_nothing(manager: Manager) -> None:
    """Groups and a section with a rule: made by the first run, found as they are by the second, changed by a
    third, which says something else."""
    address = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/8"]}
    section = {"display_name": "sec", "category": "Application", "locked": True, "rules": [RULE]}
    for expected in (True, False):
        for group in ("db", "app"):
            spec = {"display_name": group, "expression": [address]}
            assert await present(manager, f"{DOMAIN}/groups/{group}", spec) is expected
        assert await present(manager, f"{DOMAIN}/security-policies/sec", section) is expected
    assert await present(manager, f"{DOMAIN}/groups/db", {"description": "of the shop"})
    (rule,) = (await manager.call("GET", f"{DOMAIN}/security-policies/sec"))["rules"]
    assert {field: rule.get(field, ["ANY"]) for field in RULE} == RULE


async def test_what_is_absent_is_waited_for_until_it_is_gone(manager: Manager) -> None:
    """Deleted, and asked for until it is 404; by its name where the playbook has no id."""
    await manager.call("PATCH", f"{DOMAIN}/groups/g", {"display_name": "by name"})
    every = (await manager.call("GET", f"{DOMAIN}/groups"))["results"]
    (id,) = (each["id"] for each in every if each["display_name"] == "by name")
    await manager.call("DELETE", f"{DOMAIN}/groups/{id}")
    assert (await manager.answer("GET", f"{DOMAIN}/groups/{id}")).status_code == 404


async def test_tags_of_a_vm_are_replaced(manager: Manager) -> None:
    """`modules/nsxt_vm_tags.py`: the VM by its name among all, then all its tags, as they are to be."""
    await manager.call(
        "PUT", f"/api/v1/vsfw/vms/{VM}", {"display_name": "App-VM-1", "tags": [{"tag": "old"}]}
    )
    every = (await manager.call("GET", "/api/v1/fabric/virtual-machines"))["results"]
    (vm,) = (each for each in every if each["display_name"] == "App-VM-1")
    tags = [*vm["tags"], {"scope": "my-scope", "tag": "my-tag"}]
    body = {"virtual_machine_id": vm["external_id"], "tags": tags}
    await manager.call("POST", "/api/v1/fabric/virtual-machines?action=update_tags", body)
    shown = await manager.call("GET", f"{INFRA}/realized-state/enforcement-points/default/virtual-machines")
    assert shown["results"][0]["tags"] == tags
