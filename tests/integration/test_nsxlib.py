"""OpenStack's client library, vmware-nsxlib, drives a running manager over TLS as it drives an NSX."""

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness.manager import Served, served

with warnings.catch_warnings():  # of what the library imports; a mark would come too late
    for said in (r"\s*Eventlet is", "eventletutils module", "The 'oslo_service.eventlet_backdoor'"):
        warnings.filterwarnings("ignore", f"{said}.* deprecated")
    from vmware_nsxlib.v3 import config, exceptions, policy
    from vmware_nsxlib.v3.policy import transaction

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated:DeprecationWarning"),
]

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
DOMAIN = "default"


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("manager")) as manager, pytest.MonkeyPatch.context() as patch:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they would go before ca_file
            patch.delenv(name, raising=False)
        yield manager


def library(manager: Served, password: str | None = None) -> Any:
    return policy.NsxPolicyLib(
        config.NsxLibConfig(
            nsx_api_managers=[manager.url],
            username=manager.user,
            password=password or manager.password,
            insecure=False,
            ca_file=manager.ca,
            allow_passthrough=True,
            max_attempts=2,
            realization_max_attempts=3,
            realization_wait_sec=0.1,
        )
    )


@pytest.fixture(scope="module")
def nsx(manager: Served) -> Any:
    return library(manager)


@pytest.fixture(scope="module")
def vm(manager: Served) -> str:
    vnic = {"id": VNIC, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1", "fd00::1"]}
    body = {"display_name": "web1", "tags": [{"scope": "tier", "tag": "web"}], "vnics": [vnic]}
    manager.rest.put(f"/api/v1/vsfw/vms/{VM}", json=body).raise_for_status()
    return VM


def test_it_finds_a_release_it_knows(nsx: Any) -> None:
    """The version of the node, by which the library chooses what it sends, and the limits of tags."""
    assert nsx.get_version().startswith("4.")
    assert (nsx.nsx_api.tag_limits.scope_length, nsx.nsx_api.tag_limits.max_tags) == (128, 30)


def test_it_finds_vms_by_name_and_their_vnics_by_vm(nsx: Any, vm: str) -> None:
    """The fabric's lists, with tags and addresses; a name nobody has finds nothing."""
    (found,) = nsx.nsx_api.virtual_machine.get_by_display_name("web1")["results"]
    assert (found["external_id"], found["tags"]) == (vm, [{"scope": "tier", "tag": "web"}])
    assert nsx.nsx_api.virtual_machine.get_by_display_name("web2")["result_count"] == 0
    (vif,) = nsx.nsx_api.vif.get_by_owner_vm_id(vm)["results"]
    assert (vif["mac_address"], vif["lport_attachment_id"]) == ("02:00:00:00:00:01", VNIC)
    assert vif["ip_address_info"][0]["ip_addresses"] == ["10.0.0.1", "fd00::1"]


def test_it_adds_replaces_and_takes_tags(nsx: Any, vm: str) -> None:
    """The three actions on a VM's tags."""
    client, url = nsx.nsx_api.client, "fabric/virtual-machines?action="
    blue, web = {"scope": "os", "tag": "blue"}, {"scope": "tier", "tag": "web"}
    for action, tags, after in (
        ("add_tags", [blue, web], [web, blue]),
        ("remove_tags", [web], [blue]),
        ("update_tags", [web], [web]),
    ):
        client.create(f"{url}{action}", {"external_id": vm, "tags": tags}, expected_results=[204])
        assert nsx.nsx_api.virtual_machine.get_by_display_name("web1")["results"][0]["tags"] == after


def test_it_makes_changes_and_deletes_a_group(nsx: Any) -> None:
    """With conditions on tags and names, with addresses, by PATCH and by PUT with the revision it read."""
    group = nsx.group
    tag = group.build_condition(cond_val="tier|web", cond_member_type="VirtualMachine")
    name = group.build_condition(
        cond_val="web", cond_key="Name", cond_op="STARTSWITH", cond_member_type="VirtualMachine"
    )
    conditions = group.build_union_condition(operator="OR", conditions=[tag, name])
    group.create_or_overwrite_with_conditions("Web", DOMAIN, group_id="g-web", conditions=conditions)
    assert len(group.get(DOMAIN, "g-web")["expression"]) == 3
    addresses = group.build_ip_address_expression(["10.0.0.0/8", "fd00::/16"])
    group.update_with_conditions(DOMAIN, "g-web", name="Nets", conditions=[addresses])
    shown = group.get_by_name(DOMAIN, "Nets")
    assert (shown["id"], shown["expression"]) == ("g-web", [addresses.get_obj_dict()])
    group.update(DOMAIN, "g-web", description="by PATCH", tags=[{"scope": "os", "tag": "t"}])
    shown = group.get(DOMAIN, "g-web")
    assert (shown["description"], shown["expression"]) == ("by PATCH", [addresses.get_obj_dict()])
    group.delete(DOMAIN, "g-web")
    with pytest.raises(exceptions.ResourceNotFound):
        group.get(DOMAIN, "g-web", silent=True)


def test_it_makes_changes_and_deletes_services(nsx: Any) -> None:
    """Of ports, of ICMP, of a protocol; the entry of a service by itself."""
    nsx.service.create_or_overwrite("tcp", "s-tcp", protocol="TCP", dest_ports=["80", "443"])
    nsx.service.update("s-tcp", dest_ports=["8080-8090"], description="changed")
    shown = nsx.service.get("s-tcp")
    assert (shown["description"], shown["service_entries"][0]["destination_ports"]) == (
        "changed",
        ["8080-8090"],
    )
    nsx.icmp_service.create_or_overwrite("ping", "s-ping", version=4, icmp_type=8, icmp_code=0)
    nsx.ip_protocol_service.create_or_overwrite("gre", "s-gre", protocol_number=47)
    assert {"s-tcp", "s-ping", "s-gre", "HTTP"} <= {each["id"] for each in nsx.service.list()}
    for service in ("s-tcp", "s-ping", "s-gre"):
        nsx.service.delete(service)


def test_it_makes_changes_and_deletes_sections_and_rules(nsx: Any) -> None:
    """A section with a rule, more rules, one changed, all replaced, logging of all of them."""
    sections = nsx.comm_map
    nsx.group.create_or_overwrite("a", DOMAIN, "g-a")
    sections.create_or_overwrite(
        "first",
        DOMAIN,
        "m-1",
        action="DROP",
        source_groups=["g-a"],
        dest_groups=["g-a"],
        service_ids=["HTTP"],
    )
    sections.create_entry("second", DOMAIN, "m-1", "r-2", service_ids=["SSH"], source_groups=["g-a"])
    shown = sections.get(DOMAIN, "m-1")
    assert [(rule["display_name"], rule["action"]) for rule in shown["rules"]] == [
        ("first", "DROP"),
        ("second", "ALLOW"),
    ]
    sections.update_entry(DOMAIN, "m-1", "r-2", action="REJECT", dest_groups=None)
    rule = sections.get_entry(DOMAIN, "m-1", "r-2")
    assert (rule["action"], rule["destination_groups"]) == ("REJECT", ["ANY"])
    sections.update_entries_logged(DOMAIN, "m-1", True)
    assert all(rule["logged"] for rule in sections.get(DOMAIN, "m-1")["rules"])
    entries = [sections.build_entry(f"r{n}", DOMAIN, "m-1", f"r{n}", sequence_number=n) for n in (1, 2)]
    sections.update_with_entries(DOMAIN, "m-1", entries, description="replaced")
    shown = sections.get(DOMAIN, "m-1")
    assert ([rule["id"] for rule in shown["rules"]], shown["description"]) == (["r1", "r2"], "replaced")
    sections.delete_entry(DOMAIN, "m-1", "r1")
    sections.delete(DOMAIN, "m-1")
    nsx.group.delete(DOMAIN, "g-a")
    assert "m-1" not in {each["id"] for each in sections.list(DOMAIN)}


def test_a_transaction_is_one_change(nsx: Any) -> None:
    """The hierarchical PATCH: group, service, section and rules at once; nothing of it when one is wrong."""
    with transaction.NsxPolicyTransaction():
        nsx.group.create_or_overwrite("t", DOMAIN, "g-t")
        nsx.service.create_or_overwrite("t", "s-t", protocol="UDP", dest_ports=["53"])
        entries = [
            nsx.comm_map.build_entry("t", DOMAIN, "m-t", "r-t", service_ids=["s-t"], source_groups=["g-t"])
        ]
        nsx.comm_map.create_with_entries("t", DOMAIN, "m-t", entries=entries)
    assert nsx.comm_map.get_entry(DOMAIN, "m-t", "r-t")["services"] == ["/infra/services/s-t"]
    with pytest.raises(exceptions.ManagerError):
        half_wrong(nsx)
    with pytest.raises(exceptions.ResourceNotFound):
        nsx.group.get(DOMAIN, "g-u", silent=True)
    with transaction.NsxPolicyTransaction():
        nsx.comm_map.delete(DOMAIN, "m-t")
        nsx.service.delete("s-t")
        nsx.group.delete(DOMAIN, "g-t")
    assert nsx.group.get_by_name(DOMAIN, "t") is None


def half_wrong(nsx: Any) -> None:
    with transaction.NsxPolicyTransaction():
        nsx.group.create_or_overwrite("u", DOMAIN, "g-u")
        nsx.service.create_or_overwrite("u", "s-u", protocol="UDP", dest_ports=["65536"])


def test_it_pages_through_long_lists(nsx: Any) -> None:
    """More groups than a page holds: the cursor leads to all of them, and the count is that of all."""
    for number in range(5):
        nsx.group.create_or_overwrite(f"p{number}", DOMAIN, f"p-{number}")
    answer = nsx.client.list(f"infra/domains/{DOMAIN}/groups?page_size=2")
    ids = [each["id"] for each in answer["results"]]
    assert [f"p-{number}" for number in range(5)] == [id for id in ids if id.startswith("p-")]
    assert answer["result_count"] == len(ids) == len(set(ids))
    for number in range(5):
        nsx.group.delete(DOMAIN, f"p-{number}")


def test_it_searches_by_tags_and_attributes(nsx: Any, vm: str) -> None:
    """The queries the library writes, to the last page."""
    for number in range(3):
        tags = [{"scope": "os-project", "tag": f"a/b-{number}"}]
        nsx.group.create_or_overwrite(f"q{number}", DOMAIN, f"q-{number}", tags=tags)
    found = nsx.search_all_by_tags([{"scope": "os\\-project"}], resource_type="Group")
    assert [each["id"] for each in found] == ["q-0", "q-1", "q-2"]
    assert nsx.get_id_by_resource_and_tag("Group", "os-project", "a/b-1") == "q-1"
    (named,) = nsx.search_all_resource_by_attributes("VirtualMachine", display_name="web1")
    assert named["external_id"] == vm
    some = nsx.search_all_resource_by_attribute_values("Group", "id", ["q\\-0", "q\\-2"])
    assert [each["id"] for each in some] == ["q-0", "q-2"]
    with pytest.raises(exceptions.ManagerError):
        nsx.client.url_get("search/query?query=(resource_type:Group")
    for number in range(3):
        nsx.group.delete(DOMAIN, f"q-{number}")


def test_it_waits_until_something_is_realized(nsx: Any) -> None:
    """By realized entity and by consolidated status; of what is not there it hears so."""
    nsx.group.create_or_overwrite("real", DOMAIN, "g-real")
    assert nsx.group.wait_until_realized(DOMAIN, "g-real")["entity_type"] == "RealizedGroup"
    nsx.comm_map.create_or_overwrite("real", DOMAIN, "m-real")
    nsx.comm_map.wait_until_state_sucessful(DOMAIN, "m-real", with_refresh=True)
    assert nsx.group.get_realized_state(DOMAIN, "no-such-group") is None
    nsx.comm_map.delete(DOMAIN, "m-real")
    nsx.group.delete(DOMAIN, "g-real")


def test_it_hears_of_a_revision_that_is_old(nsx: Any) -> None:
    """A PUT with the revision before: the library's own error for it, and nothing changed."""
    nsx.group.create_or_overwrite("old", DOMAIN, "g-old")
    old = nsx.group.get(DOMAIN, "g-old")
    nsx.group.update(DOMAIN, "g-old", description="newer")
    with pytest.raises(exceptions.StaleRevision):
        nsx.client.update(f"infra/domains/{DOMAIN}/groups/g-old", {**old, "description": "older"})
    assert nsx.group.get(DOMAIN, "g-old")["description"] == "newer"
    nsx.group.delete(DOMAIN, "g-old")


def test_it_hears_what_is_wrong_in_its_own_errors(nsx: Any) -> None:
    """In use, not there, not valid: each as the library knows it from an NSX."""
    nsx.group.create_or_overwrite("used", DOMAIN, "g-used")
    nsx.comm_map.create_or_overwrite("uses", DOMAIN, "m-uses", source_groups=["g-used"])
    with pytest.raises(exceptions.ResourceInUse):
        nsx.group.delete(DOMAIN, "g-used")
    with pytest.raises(exceptions.ManagerError, match=r"service_entries\.0\.destination_ports"):
        nsx.service.create_or_overwrite("bad", "s-bad", protocol="TCP", dest_ports=["http"])
    nsx.comm_map.delete(DOMAIN, "m-uses")
    nsx.group.delete(DOMAIN, "g-used")


def test_a_wrong_password_is_the_librarys_invalid_credentials(manager: Served) -> None:
    """HTTP 403 with code 403, as from an NSX."""
    answer = httpx.get(f"{manager.url}/api/v1/node", auth=(manager.user, "wrong"), verify=manager.tls)
    assert (answer.status_code, answer.json()["error_code"]) == (403, 403)


def test_a_session_stands_for_the_password(manager: Served) -> None:
    """Cookie and token: both are needed, and after logging out neither helps."""
    form = {"j_username": manager.user, "j_password": manager.password}
    with httpx.Client(base_url=manager.url, verify=manager.tls) as client:
        made = client.post("/api/session/create", data=form)
        assert made.status_code == 200
        assert "Secure" in made.headers["Set-Cookie"]
        assert client.get("/api/v1/node").json()["error_code"] == 98
        client.headers["X-XSRF-TOKEN"] = made.headers["X-XSRF-TOKEN"]
        assert client.get("/api/v1/node").status_code == 200
        assert client.post("/api/session/destroy").status_code == 200
        assert client.get("/api/v1/node").status_code == 403
        assert client.post("/api/session/create", data=form | {"j_password": "wrong"}).status_code == 403
