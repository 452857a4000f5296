"""What the REST interface keeps, shows and does, in the shape of the NSX Policy API."""

from typing import Any

from manager_stub.register import Register
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
SECTION = f"{DOMAIN}/security-policies/s"
DEFAULT_SECTION = f"{DOMAIN}/security-policies/default-layer3-section"
ADDRESSES = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/8", "fd00::1-fd00::9"]}


def names(section: Any) -> list[str]:
    return [rule["id"] for rule in section["rules"]]


async def test_an_object_that_was_read_can_be_written_back(manager: Manager) -> None:
    """GET, then PUT of exactly that: accepted, and no change, so its revision stays; a change makes it one
    more."""
    await manager.call(
        "PUT", f"{DOMAIN}/groups/g", {"display_name": "Web servers", "expression": [ADDRESSES]}
    )
    rules = [{"id": "r", "display_name": "r", "action": "DROP"}]
    body = {"display_name": "s", "scope": ["/infra/domains/default/groups/g"], "rules": rules}
    for path, first in ((f"{DOMAIN}/groups/g", None), (SECTION, body), (f"{SECTION}/rules/r", None)):
        if first is not None:
            await manager.call("PUT", path, first)
        shown = await manager.call("GET", path)
        assert await manager.call("PUT", path, shown) == shown
        again = await manager.call("PUT", path, shown | {"description": "changed"})
        assert again["_revision"] == shown["_revision"] + 1


async def test_a_new_object_shows_what_nsx_shows(manager: Manager) -> None:
    """Path, parent, unique id and revision 0; its name is its id until it is given one."""
    shown = await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7})
    assert shown["path"] == "/infra/segments/blue"
    assert shown["parent_path"] == "/infra"
    assert (shown["id"], shown["display_name"], shown["_revision"]) == ("blue", "blue", 0)
    assert shown["resource_type"] == "Segment"
    assert (await manager.call("GET", f"{INFRA}/segments"))["results"] == [shown]


async def test_patch_changes_what_it_names_and_put_replaces_all(manager: Manager) -> None:
    """PATCH leaves other fields, PUT does not."""
    path = f"{DOMAIN}/groups/g"
    await manager.call("PATCH", path, {"description": "first", "expression": [ADDRESSES]})
    await manager.call("PATCH", path, {"description": "second"})
    shown = await manager.call("GET", path)
    assert (shown["description"], shown["expression"], shown["_revision"]) == ("second", [ADDRESSES], 1)
    replaced = await manager.call("PUT", path, {"_revision": 1})
    assert (replaced["description"], replaced["expression"]) == ("", [])


async def test_put_of_a_section_replaces_its_rules_and_patch_adds_to_them(manager: Manager) -> None:
    """Rules left out of a PUT are deleted; a PATCH changes those it names; without `rules` they stay."""
    await manager.call(
        "PUT", SECTION, {"rules": [{"id": "a", "action": "DROP"}, {"id": "b", "action": "DROP"}]}
    )
    await manager.call("PUT", SECTION, {"_revision": 0, "rules": [{"id": "b", "action": "ALLOW"}]})
    assert names(await manager.call("GET", SECTION)) == ["b"]
    await manager.call(
        "PATCH", SECTION, {"rules": [{"id": "c", "action": "DROP"}, {"id": "b", "logged": True}]}
    )
    shown = await manager.call("GET", SECTION)
    assert sorted(names(shown)) == ["b", "c"]
    assert {rule["id"]: (rule["action"], rule["logged"]) for rule in shown["rules"]}["b"] == ("ALLOW", True)
    await manager.call("PUT", SECTION, {"_revision": shown["_revision"], "display_name": "renamed"})
    assert sorted(names(await manager.call("GET", SECTION))) == ["b", "c"]
    await manager.call("DELETE", SECTION)
    assert (await manager.answer("GET", f"{SECTION}/rules/b")).status_code == 404


async def test_rules_without_numbers_keep_the_order_of_the_list(manager: Manager) -> None:
    """Also when the list is put again in another order."""
    rules = [{"id": name, "action": "DROP"} for name in "abc"]
    assert names(await manager.call("PUT", SECTION, {"rules": rules})) == ["a", "b", "c"]
    assert names(await manager.call("PUT", SECTION, {"_revision": 0, "rules": rules[::-1]})) == [
        "c",
        "b",
        "a",
    ]


async def test_a_rule_keeps_its_number_and_it_is_never_given_again(manager: Manager) -> None:
    """`rule_id` survives changes; after a delete, and a restart, a new rule gets a new one."""
    await manager.call("PUT", SECTION, {})
    path = f"{SECTION}/rules"
    first = (await manager.call("PUT", f"{path}/a", {"action": "DROP"}))["rule_id"]
    assert (await manager.call("PUT", f"{path}/a", {"action": "ALLOW", "_revision": 0}))["rule_id"] == first
    await manager.call("DELETE", f"{path}/a")
    restarted = Register(manager.parts.store, manager.directory.signing_key())
    rule = manager.register.world.rules[
        "/infra/domains/default/security-policies/default-layer3-section/rules/default-ndp"
    ]
    restarted.write(put={"/infra/domains/default/security-policies/s/rules/b": rule.body})
    assert restarted.world.rules["/infra/domains/default/security-policies/s/rules/b"].number == first + 1


async def test_the_default_section_is_there_and_its_rules_can_be_told_what_to_do(manager: Manager) -> None:
    """As shipped: ND and DHCP first, then allow; the action can be changed, by rule or by section."""
    shown = await manager.call("GET", DEFAULT_SECTION)
    assert names(shown) == ["default-ndp", "default-dhcp", "default-layer3-rule"]
    assert [rule["action"] for rule in shown["rules"]] == ["ALLOW"] * 3
    assert shown["rules"][2]["rule_id"] == 1001
    await manager.call("PATCH", f"{DEFAULT_SECTION}/rules/default-layer3-rule", {"action": "DROP"})
    await manager.call("PATCH", DEFAULT_SECTION, {"rules": [{"id": "default-layer3-rule", "logged": True}]})
    rule = await manager.call("GET", f"{DEFAULT_SECTION}/rules/default-layer3-rule")
    assert (rule["action"], rule["logged"], rule["is_default"]) == ("DROP", True, True)


async def test_update_tags_replaces_the_tags_of_a_vm_and_leaves_the_rest(manager: Manager) -> None:
    """NSX's call, by external id; vNICs and name stay."""
    vnic = {"id": VNIC, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1", "fd00::1"]}
    body = {"display_name": "web", "tags": [{"scope": "tier", "tag": "web"}], "vnics": [vnic]}
    before = await manager.call("PUT", f"{VSFW}/vms/{VM}", body)
    tags = [{"scope": "tier", "tag": "db"}, {"scope": "", "tag": "x"}]
    await manager.call(
        "POST", "/api/v1/fabric/virtual-machines?action=update_tags", {"external_id": VM, "tags": tags}
    )
    after = await manager.call("GET", f"{VSFW}/vms/{VM}")
    assert after["tags"] == tags
    assert (after["vnics"], after["display_name"]) == (before["vnics"], "web")


async def test_any_is_a_word_in_any_case(manager: Manager) -> None:
    """As NSX takes it; it is kept in capitals, and stands alone all the same."""
    fields = ("source_groups", "destination_groups", "services", "scope")
    rule = {"id": "a", "action": "DROP"} | {
        field: [word] for field, word in zip(fields, ("any", "Any", "aNY", "ANY"), strict=True)
    }
    await manager.call("PUT", SECTION, {"scope": ["any"], "rules": [rule]})
    shown = await manager.call("GET", SECTION)
    assert shown["scope"] == ["ANY"]
    assert [shown["rules"][0][field] for field in fields] == [["ANY"]] * 4
    answer = await manager.answer("PUT", f"{SECTION}/rules/b", {"action": "DROP", "scope": ["any", "Any"]})
    assert (answer.status_code, "ANY stands alone" in answer.json()["error_message"]) == (400, True)


async def test_clusters_and_datacenters_are_kept(manager: Manager) -> None:
    """Stored and readable; a cluster that a datacenter names cannot be deleted."""
    await manager.call("PUT", f"{VSFW}/clusters/c", {"hosts": []})
    await manager.call("PUT", f"{VSFW}/datacenters/d", {"clusters": ["c"]})
    assert (await manager.call("GET", f"{VSFW}/datacenters/d"))["clusters"] == ["c"]
    assert (await manager.answer("DELETE", f"{VSFW}/clusters/c")).status_code == 400
    await manager.call("DELETE", f"{VSFW}/datacenters/d")
    await manager.call("DELETE", f"{VSFW}/clusters/c")


async def test_everything_is_there_again_after_a_restart(manager: Manager) -> None:
    """A register on the same database has the same world."""
    await manager.call("PUT", f"{DOMAIN}/groups/g", {"expression": [ADDRESSES]})
    await manager.call(
        "PUT", SECTION, {"rules": [{"id": "a", "action": "DROP", "source_groups": ["10.0.0.1"]}]}
    )
    again = Register(manager.parts.store, manager.directory.signing_key())
    assert again.world == manager.register.world


async def test_the_openapi_document_describes_the_objects(manager: Manager) -> None:
    """It is there, and names the fields of a rule."""
    document = await manager.call("GET", "/openapi.json")
    assert "destinations_excluded" in document["components"]["schemas"]["Rule"]["properties"]
