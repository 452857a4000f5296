"""The NSX client of the vendor's own SDK (vcf-nsx, made from the API's specification) drives a running
manager over TLS. Its types are those of NSX: an answer of another shape is an error of the SDK."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.harness.manager import Served, served

with warnings.catch_warnings():  # of what the SDK imports; a mark would come too late
    warnings.filterwarnings("ignore", "read_binary is deprecated")
    from vcf.nsx import model_client as nsx
    from vcf.nsx.api import v1_client as mp
    from vcf.nsx.api.v1 import cluster_client, fabric_client, node_client, trust_management_client
    from vcf.nsx.policy.api.v1 import infra_client, search_client
    from vcf.nsx.policy.api.v1.infra import domains_client, realized_state_client, segments_client
    from vcf.nsx.policy.api.v1.infra.domains import security_policies_client
    from vmware.vapi.bindings.stub import StubConfiguration
    from vmware.vapi.lib.connect import get_requests_connector
    from vmware.vapi.security.user_password import create_user_password_security_context

pytestmark = pytest.mark.slow

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
DOMAIN = "default"


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a segment and a VM on it."""
    with served(tmp_path_factory.mktemp("manager")) as manager:
        manager.rest.put("/policy/api/v1/infra/segments/blue", json={"vlan_ids": ["10"]}).raise_for_status()
        card = {"id": VNIC, "mac": "02:00:00:00:00:01", "segment_path": "/infra/segments/blue"}
        vm = {"display_name": "web1", "tags": [{"scope": "tier", "tag": "web"}], "vnics": [card]}
        manager.rest.put(f"/api/v1/vsfw/vms/{VM}", json=vm).raise_for_status()
        yield manager


@pytest.fixture(scope="module")
def sdk(manager: Served) -> Any:
    session = requests.Session()
    session.trust_env, session.verify = False, manager.ca
    connector = get_requests_connector(session=session, msg_protocol="rest", url=manager.url)
    connector.set_security_context(create_user_password_security_context(manager.user, manager.password))
    return StubConfiguration(connector)


def refused(error: nsx.ApiError) -> dict[str, Any]:
    """What the manager said: the SDK keeps it beside the fields that it knows."""
    return {name: getattr(value, "value", None) for name, value in error.get_error_value().get_fields()}


def test_it_makes_changes_and_deletes_a_group(sdk: Any) -> None:
    """By PATCH, and by PUT of what it read with a change; an old revision is refused, what is gone, too."""
    groups = domains_client.Groups(sdk)
    tag = nsx.Condition(key="Tag", member_type="VirtualMachine", operator="EQUALS", value="tier|web")
    groups.policy_patch_group_for_domain(DOMAIN, "web", nsx.Group(display_name="Web", expression=[tag]))
    old = groups.policy_read_group_for_domain(DOMAIN, "web")
    old.description = "changed"
    assert groups.policy_update_group_for_domain(DOMAIN, "web", old).revision == old.revision + 1
    with pytest.raises(nsx.ApiError) as stale:
        groups.policy_update_group_for_domain(DOMAIN, "web", old)
    assert refused(stale.value)["error_code"] == 604
    groups.policy_delete_group(DOMAIN, "web", fail_if_subtree_exists=False, force=True)
    with pytest.raises(nsx.ApiError) as missing:
        groups.policy_read_group_for_domain(DOMAIN, "web")
    assert refused(missing.value)["httpStatus"] == "NOT_FOUND"


def test_it_pages_through_a_list_in_its_order(sdk: Any) -> None:
    """Page by page, the names backwards, and of each only that."""
    groups = domains_client.Groups(sdk)
    for name in "abc":
        groups.policy_patch_group_for_domain(DOMAIN, f"page-{name}", nsx.Group(display_name=name))
    names, cursor = [], None
    while True:
        page = groups.policy_list_group_for_domain(
            DOMAIN,
            cursor=cursor,
            page_size=2,
            sort_by="display_name",
            sort_ascending=False,
            included_fields="display_name",
        )
        names += [each.display_name for each in page.results]
        assert all(each.id is None for each in page.results)
        if (cursor := page.cursor) is None:
            break
    assert names == ["c", "b", "a"]
    for name in "abc":
        groups.policy_delete_group(DOMAIN, f"page-{name}")


def test_it_makes_a_section_with_a_rule_and_a_service(sdk: Any) -> None:
    """With everything the SDK's rule has a word for; the rule by itself; read, and put back as it was."""
    services, sections = infra_client.Services(sdk), domains_client.SecurityPolicies(sdk)
    entry = nsx.L4PortSetServiceEntry(l4_protocol="TCP", destination_ports=["8443"], description="TLS")
    services.policy_patch_service_for_tenant("own", nsx.Service(service_entries=[entry]))
    rule = nsx.Rule(
        id="in",
        action="ALLOW",
        source_groups=["10.0.0.0/8"],
        destination_groups=["ANY"],
        services=["/infra/services/own"],
        profiles=["ANY"],
        scope=["ANY"],
        direction="IN",
        ip_protocol="IPV4_IPV6",
        tag="",
    )
    section = nsx.SecurityPolicy(category="Application", rules=[rule], stateful=True, tcp_strict=True)
    sections.policy_patch_security_policy_for_domain(DOMAIN, "own", section)
    read = sections.policy_read_security_policy_for_domain(DOMAIN, "own")
    assert [each.id for each in read.rules] == ["in"]
    put = sections.policy_update_security_policy_for_domain(DOMAIN, "own", read)
    assert put.rules[0].services == ["/infra/services/own"]
    rules = security_policies_client.Rules(sdk)
    rules.policy_patch_security_rule(DOMAIN, "own", "in", nsx.Rule(action="DROP"))
    assert rules.policy_read_security_rule(DOMAIN, "own", "in").action == "DROP"
    sections.policy_delete_security_policy_for_domain(DOMAIN, "own")
    services.policy_delete_service_for_tenant("own")


def test_it_tags_a_vm_and_finds_it(sdk: Any) -> None:
    """The fabric's VMs and VIFs, the realized ones, tags by both APIs, search."""
    vms = fabric_client.VirtualMachines(sdk)
    update = nsx.VirtualMachineTagUpdate(external_id=VM, tags=[nsx.Tag(scope="os", tag="linux")])
    vms.add_virtual_machine_tags(update)
    (vm,) = vms.list_virtual_machines(external_id=VM).results
    assert [tag.tag for tag in vm.tags] == ["web", "linux"]
    realized = realized_state_client.VirtualMachines(sdk).policy_lm_list_all_virtual_machines()
    assert [each.external_id for each in realized.results] == [VM]
    assert fabric_client.Vifs(sdk).list_vifs(owner_vm_id=VM).results[0].lport_attachment_id == VNIC
    query = "resource_type:VirtualMachine AND display_name:web*"
    assert search_client.Query(sdk).lm_policy_query_search(query=query).result_count == 1
    tags = infra_client.Tags(sdk).policy_lm_list_all_tags(scope="os").results
    assert [(each.tag, each.tagged_objects_count) for each in tags] == [("linux", 1)]


def test_it_names_the_port_of_a_segment(sdk: Any) -> None:
    """Read, and put back with a name and a tag."""
    (segment,) = infra_client.Segments(sdk).policy_lm_list_all_infra_segments().results
    ports = segments_client.Ports(sdk)
    (port,) = ports.policy_lm_list_infra_segment_ports(segment.id).results
    port.display_name, port.tags = "uplink", [nsx.Tag(scope="zone", tag="dmz")]
    put = ports.policy_lm_create_or_replace_infra_segment_port(segment.id, port.id, port)
    assert (put.display_name, put.attachment.id) == ("uplink", VNIC)


def test_it_asks_whether_something_is_realized(sdk: Any) -> None:
    """The status of an object, and its realized entity."""
    path = "/infra/domains/default/security-policies/default-layer3-section"
    status = realized_state_client.Status(sdk).policy_lm_read_intent_status(intent_path=path)
    assert status.consolidated_status.consolidated_status == "SUCCESS"
    entities = realized_state_client.RealizedEntities(sdk).policy_lm_list_realized_entities(path)
    assert entities.results[0].state == "REALIZED"


def test_it_reads_what_rules_have_counted(sdk: Any) -> None:
    """Of a section, rule by rule, at the one enforcement point."""
    statistics = security_policies_client.Statistics(sdk)
    (point,) = statistics.policy_get_security_policy_statistics(DOMAIN, "default-layer3-section").results
    assert {each.packet_count for each in point.statistics.results} == {0}


def test_it_reads_what_is_around_the_policy(sdk: Any) -> None:
    """Version, cluster, hosts, alarms, certificates, domains; and profiles of layer 7, which are none."""
    assert node_client.Version(sdk).node_read_node_version().node_version.startswith("4.")
    assert cluster_client.Status(sdk).read_cluster_status().mgmt_cluster_status.status == "STABLE"
    assert mp.Cluster(sdk).read_cluster_config().nodes[0].status == "JOINED"
    assert mp.TransportNodes(sdk).list_transport_nodes_with_deployment_info().result_count == 0
    alarms = mp.Alarms(sdk).get_alarms(status="OPEN").results
    assert {each.event_type for each in alarms} <= {"broker_down"}  # there is none, perhaps for a minute
    certificates = trust_management_client.Certificates(sdk).get_certificates(details=True).results
    assert all(each.details[0].not_after for each in certificates)
    assert [each.id for each in infra_client.Domains(sdk).policy_list_domain_for_infra().results] == [DOMAIN]
    assert infra_client.ContextProfiles(sdk).policy_list_policy_context_profiles().results == []
