"""The requests of Terraform's provider for NSX (github.com/vmware/terraform-provider-nsxt, `nsxt/`), which
cannot run here: each test sends what one of its files sends, in its order, and reads what that file reads."""

import re
from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
RULE = {
    "resource_type": "Rule",
    "display_name": "web in",
    "notes": "",
    "description": "",
    "action": "ALLOW",
    "logged": False,
    "tag": "",
    "disabled": False,
    "sources_excluded": False,
    "destinations_excluded": False,
    "ip_protocol": "IPV4_IPV6",
    "direction": "IN_OUT",
    "source_groups": ["ANY"],
    "destination_groups": ["/infra/domains/default/groups/web"],
    "services": ["/infra/services/HTTP"],
    "scope": ["ANY"],
    "profiles": ["ANY"],
}
"""What `getPolicyRulesFromSchema` says of every rule; a list that was left empty is ANY."""
SECTION = {
    "resource_type": "SecurityPolicy",
    "id": "s",
    "display_name": "Web",
    "description": "",
    "tags": [],
    "category": "Application",
    "comments": "",
    "locked": False,
    "scope": [],
    "sequence_number": 3,
    "stateful": True,
    "tcp_strict": False,
}
"""`parentSecurityPolicySchemaToModel`."""


def child(kind: str, body: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"resource_type": f"Child{kind}", kind: body, **beside}


def rule(id: str, **fields: Any) -> dict[str, Any]:
    """`createPolicyChildRule`."""
    gone = fields.pop("marked_for_delete", False)
    return child("Rule", {**RULE, "id": id, **fields}, id=id, marked_for_delete=gone)


async def patch_section(manager: Manager, section: dict[str, Any]) -> Any:
    """`securityPolicyInfraPatch`: one section, its rules as children, by the hierarchical API."""
    domain = {"resource_type": "ChildResourceReference", "id": "default", "target_type": "Domain"}
    tree = {"resource_type": "Infra", "children": [domain | {"children": [child("SecurityPolicy", section)]}]}
    return await manager.call("PATCH", f"{INFRA}?enforce_revision_check=false", tree)


@pytest.fixture
async def web(manager: Manager) -> Manager:
    """`resource_nsxt_policy_group.go`, create: it must not be there yet, and is patched in."""
    assert (await manager.answer("GET", f"{DOMAIN}/groups/web")).status_code == 404
    tag = {"resource_type": "Condition", "key": "Tag", "member_type": "VirtualMachine", "operator": "EQUALS"}
    group = {
        "display_name": "web",
        "description": "",
        "tags": [],
        "expression": [tag | {"value": "tier|web"}],
    }
    await manager.call("PATCH", f"{DOMAIN}/groups/web", group)
    shown = await manager.call("GET", f"{DOMAIN}/groups/web")
    assert (shown["path"], shown["_revision"]) == ("/infra/domains/default/groups/web", 0)
    return manager


async def test_it_logs_in_and_asks_for_the_version(manager: Manager) -> None:
    """`provider.go`: a session by a form, and from then on its cookie and token beside the password."""
    name, password = manager.admin
    form = {"j_username": name, "j_password": password}
    made = await manager.rest.post("/api/session/create", data=form, auth=None)
    cookie = re.search("JSESSIONID=.*?;", made.headers["Set-Cookie"])
    assert (made.status_code, cookie is not None) == (200, True)
    headers = {"Cookie": cookie[0] if cookie else "", "X-XSRF-TOKEN": made.headers["X-XSRF-TOKEN"]}
    for auth in (manager.admin, None):
        version = await manager.rest.get("/api/v1/node/version", headers=headers, auth=auth)
        assert version.json()["node_version"].startswith("4.1.")


async def test_a_group_is_changed_and_deleted_by_force(web: Manager) -> None:
    """An update is the same PATCH; a delete says `force`, which leaves no rule without its group."""
    changed = {"display_name": "web", "description": "changed", "tags": [], "extended_expression": []}
    await web.call("PATCH", f"{DOMAIN}/groups/web", changed)
    assert (await web.call("GET", f"{DOMAIN}/groups/web"))["description"] == "changed"
    await patch_section(web, SECTION | {"children": [rule("r")]})
    delete = f"{DOMAIN}/groups/web?fail_if_subtree_exists=false&force=true"
    refused = await web.answer("DELETE", delete)
    assert (refused.status_code, refused.json()["error_code"]) == (400, 500030)
    await web.call("DELETE", f"{DOMAIN}/security-policies/s")
    await web.call("DELETE", delete)


async def test_a_service_has_entries_with_descriptions(manager: Manager) -> None:
    """`resource_nsxt_policy_service.go`: each entry has an id, a name and a description, even if empty."""
    entry = {"display_name": "", "description": "web", "source_ports": [], "l4_protocol": "TCP"}
    ports = {"id": "e1", "resource_type": "L4PortSetServiceEntry", "destination_ports": ["80", "8000-8080"]}
    ping = {"id": "e2", "resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4", "description": ""}
    service = {"display_name": "web", "description": "", "tags": [], "service_entries": [entry | ports, ping]}
    await manager.call("PATCH", f"{INFRA}/services/web", service)
    shown = (await manager.call("GET", f"{INFRA}/services/web"))["service_entries"]
    assert [each["description"] for each in shown] == ["web", ""]


async def test_a_section_and_its_rules_are_one_tree(web: Manager) -> None:
    """`resource_nsxt_policy_security_policy.go`: made, changed with a revision nobody compares, with one rule
    more and one gone; a scope that was left out is an empty list, and means ANY."""
    await patch_section(web, SECTION | {"children": [rule("r1"), rule("r2", sequence_number=2)]})
    shown = await web.call("GET", f"{DOMAIN}/security-policies/s")
    assert ([each["id"] for each in shown["rules"]], shown["scope"]) == (["r1", "r2"], ["ANY"])
    children = [rule("r1", marked_for_delete=True), rule("r3", action="DROP")]
    await patch_section(web, SECTION | {"_revision": 0, "description": "changed", "children": children})
    await patch_section(web, SECTION | {"_revision": 0, "description": "again", "children": children[1:]})
    shown = await web.call("GET", f"{DOMAIN}/security-policies/s")
    assert ([each["id"] for each in shown["rules"]], shown["description"]) == (["r3", "r2"], "again")


async def test_a_rule_is_a_resource_of_its_own(web: Manager) -> None:
    """`resource_nsxt_policy_security_policy_rule.go`: below a section that another resource made without
    rules; a change of the section leaves them."""
    await patch_section(web, SECTION)
    url = f"{DOMAIN}/security-policies/s/rules/r"
    assert (await web.answer("GET", url)).status_code == 404
    for action in ("ALLOW", "REJECT"):
        await web.call("PATCH", url, {**RULE, "id": "r", "sequence_number": 5, "action": action})
        assert (await web.call("GET", url))["action"] == action
    await patch_section(web, SECTION | {"_revision": 0, "description": "changed"})
    await web.call("DELETE", url)
    assert (await web.answer("GET", url)).status_code == 404


async def test_a_rule_that_looks_into_layer_7_is_refused_by_that_field(web: Manager) -> None:
    """A context profile restricts the rule: without it, more would be allowed than was meant."""
    body = {**RULE, "profiles": ["/infra/context-profiles/SSL"]}
    refused = await web.answer("PUT", f"{DOMAIN}/security-policies/default-layer3-section/rules/r", body)
    assert refused.status_code == 400
    assert refused.json()["error_message"] == "profiles: has no counterpart here; only ['ANY'] is taken"


async def test_the_default_rule_is_changed_and_reverted(manager: Manager) -> None:
    """`resource_nsxt_policy_predefined_security_policy.go`: what was read of the section is sent back whole,
    without its rules, and the default rule below it."""
    url = f"{DOMAIN}/security-policies/default-layer3-section"
    for action in ("DROP", "ALLOW"):
        section = await manager.call("GET", url)
        (default,) = (each for each in section.pop("rules") if each["id"] == "default-layer3-rule")
        below = [child("Rule", default | {"action": action, "tag": f"{action}ed"}, id=default["id"])]
        await patch_section(manager, section | {"children": below})
        shown = await manager.call("GET", f"{url}/rules/default-layer3-rule")
        assert (shown["action"], shown["tag"]) == (action, f"{action}ed")


@pytest.mark.parametrize("name", ["Web servers", "Web servers (old)", "web:1"])
async def test_a_data_source_finds_an_object_by_its_name(manager: Manager, name: str) -> None:
    """`policy_search.go`: names are escaped, not quoted, and end in a wildcard."""
    await manager.call("PUT", f"{DOMAIN}/groups/g", {"display_name": name})
    await manager.call("PUT", f"{DOMAIN}/groups/h", {"display_name": "Web"})
    escaped = "".join(f"\\{each}" if each in "()[]+-=&|><!{}^~*?:/" else each for each in name)
    wanted = f"resource_type:Group AND display_name:{escaped}* AND marked_for_delete:false AND path:\\/infra*"
    found = await manager.rest.get("/policy/api/v1/search/query", params={"query": wanted})
    assert [each["id"] for each in found.json()["results"]] == ["g"]


async def test_a_vm_is_found_and_tagged(manager: Manager) -> None:
    """`resource_nsxt_policy_vm_tags.go`: all VMs, page by page until they are as many as was said; then its
    tags, all at once."""
    await manager.call("PUT", f"/api/v1/vsfw/vms/{VM}", {"display_name": "web"})
    where = "enforcement_point_path=/infra/sites/default/enforcement-points/default"
    list_all = f"{INFRA}/realized-state/virtual-machines?{where}&include_mark_for_delete_objects=false"
    answer = await manager.call("GET", list_all)
    (vm,) = answer["results"]
    assert (answer["result_count"], vm["external_id"]) == (1, VM)
    assert f"instanceUuid:{VM}" in vm["compute_ids"]
    update = f"{INFRA}/realized-state/enforcement-points/default/virtual-machines?action=update_tags"
    await manager.call("POST", update, {"virtual_machine_id": VM, "tags": [{"scope": "tier", "tag": "web"}]})
    assert (await manager.call("GET", list_all))["results"][0]["tags"] == [{"scope": "tier", "tag": "web"}]


async def test_the_ports_of_a_vm_are_tagged(manager: Manager) -> None:
    """`updateNsxtPolicyVMPortTags`, same file: the VIFs of the VM, the ports of the segment, and the port
    with that attachment put back as it was read, with other tags."""
    await manager.call("PUT", f"{INFRA}/segments/blue", {})
    card = {"id": VNIC, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1"]}
    vm = {"display_name": "web", "vnics": [card | {"segment_path": "/infra/segments/blue"}]}
    await manager.call("PUT", f"/api/v1/vsfw/vms/{VM}", vm)
    vifs = await manager.call("GET", f"{INFRA}/realized-state/enforcement-points/default/vifs")
    attached = [vif["lport_attachment_id"] for vif in vifs["results"] if vif["owner_vm_id"] == VM]
    (port,) = (await manager.call("GET", f"{INFRA}/segments/blue/ports"))["results"]
    assert [port["attachment"]["id"]] == attached
    tags = [{"scope": "zone", "tag": "dmz"}]
    shown = await manager.call("PUT", f"{INFRA}/segments/blue/ports/{port['id']}", port | {"tags": tags})
    assert (shown["tags"], shown["address_bindings"]) == (tags, port["address_bindings"])
    assert (await manager.call("GET", f"/api/v1/vsfw/vms/{VM}"))["vnics"][0]["tags"] == tags
