"""Bad requests: each is answered with its status, the field is named, and nothing is stored."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

VM = "11111111-0000-4000-8000-000000000001"
OTHER_VM = "11111111-0000-4000-8000-000000000002"
VNIC = "22222222-0000-4000-8000-000000000001"
HOST = "33333333-0000-4000-8000-000000000001"
MAC = "02:00:00:00:00:01"
TIMERS = f"{INFRA}/firewall-session-timer-profiles"
TIMER_BINDING = f"{DOMAIN}/groups/web/firewall-session-timer-profile-binding-maps/new"
GROUP, SERVICE, SECTION = f"{DOMAIN}/groups/new", f"{INFRA}/services/new", f"{DOMAIN}/security-policies/new"
WEB = "/infra/domains/default/groups/web"
EXCLUDE_LIST = f"{INFRA}/settings/firewall/security/exclude-list"
DEFAULT_SECTION = f"{DOMAIN}/security-policies/default-layer3-section"
DEFAULT_L2_SECTION = f"{DOMAIN}/security-policies/default-layer2-section"
DEFAULT_L2_RULE = f"{DEFAULT_L2_SECTION}/rules/default-layer2-rule"
DEFAULT_RULE = f"{DEFAULT_SECTION}/rules/default-layer3-rule"

DEFAULT_TIMERS = {"firewall_session_timer_profile_path": f"{TIMERS[14:]}/default-session-timer-profile"}
CONDITION = {
    "resource_type": "Condition",
    "member_type": "VirtualMachine",
    "key": "Tag",
    "operator": "EQUALS",
    "value": "tier|web",
}
OR = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
AND = {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}
MACS = {"resource_type": "MACAddressExpression", "mac_addresses": ["02:00:00:00:00:09"]}
ADDRESSES = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/8"]}


def group(*expression: Any, **fields: Any) -> dict[str, Any]:
    return {"expression": list(expression), **fields}


def service(**entry: Any) -> dict[str, Any]:
    return {"service_entries": [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", **entry}]}


def nesting(*paths: str) -> dict[str, Any]:
    kind = {"resource_type": "NestedServiceServiceEntry"}
    return {"service_entries": [kind | {"nested_service_path": path} for path in paths] or [kind]}


def alg(**entry: Any) -> dict[str, Any]:
    ftp = {"resource_type": "ALGTypeServiceEntry", "alg": "FTP", "destination_ports": ["2121"]}
    return {"service_entries": [{**ftp, **entry}]}


def icmp(**entry: Any) -> dict[str, Any]:
    return {"service_entries": [{"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4", **entry}]}


def section(**rule: Any) -> dict[str, Any]:
    return {"rules": [{"id": "r", "action": "ALLOW", **rule}]}


def ethernet(**rule: Any) -> dict[str, Any]:
    return {"category": "Ethernet", **section(**rule)}


def ether(ether_type: int) -> dict[str, Any]:
    return {"service_entries": [{"resource_type": "EtherTypeServiceEntry", "ether_type": ether_type}]}


def mixed() -> dict[str, Any]:
    return {"service_entries": [*service()["service_entries"], *ether(0x88CC)["service_entries"]]}


PORT_80 = {"rules": [{"id": "r", **service(destination_ports=["80"])}]}


def vm(**vnic: Any) -> dict[str, Any]:
    return {"display_name": "vm", "vnics": [{"id": VNIC, "mac": MAC, **vnic}]}


REFUSED: list[tuple[str, str, Any, int, str]] = [
    # groups
    ("PUT", GROUP, group(surprise=1), 400, "surprise: unknown field"),
    ("PUT", GROUP, group({**CONDITION, "surprise": 1}), 400, "expression.0.surprise: unknown field"),
    ("PUT", GROUP, group({**CONDITION, "operator": "LIKE"}), 400, "expression.0.operator: "),
    ("PUT", GROUP, group({**CONDITION, "member_type": "VIF"}), 400, "expression.0.member_type: "),
    ("PUT", GROUP, group({**CONDITION, "key": "NodeType"}), 400, "expression.0.key: "),
    ("PUT", GROUP, group({**CONDITION, "value": 7}), 400, "expression.0.value: "),
    ("PUT", GROUP, group({"resource_type": "NestedExpression"}), 400, "expression.0.expressions: "),
    ("PUT", GROUP, group({"resource_type": "PathExpression"}), 400, "expression.0.paths: "),
    ("PUT", GROUP, group({"resource_type": "IdentityGroupExpression"}), 400, "expression.0.resource_type: "),
    ("PUT", GROUP, group({}), 400, "expression.0.resource_type: "),
    ("PUT", GROUP, group(CONDITION, CONDITION), 400, "expression: 1: "),
    ("PUT", GROUP, group(OR), 400, "expression: 0: "),
    ("PUT", GROUP, group(CONDITION, OR), 400, "expression: 1: "),
    (
        "PUT",
        GROUP,
        group(CONDITION, AND, ADDRESSES),
        400,
        "expression: 1: what is listed can only be joined with OR",
    ),
    ("PUT", GROUP, group({**ADDRESSES, "ip_addresses": []}), 400, "expression.0.ip_addresses: "),
    ("PUT", GROUP, group({**ADDRESSES, "ip_addresses": ["10.0.0.1/8"]}), 400, "ip_addresses.0: '10.0.0.1/8'"),
    ("PUT", GROUP, group({**ADDRESSES, "ip_addresses": ["10.0.0.9-10.0.0.1"]}), 400, "ip_addresses.0: "),
    ("PUT", GROUP, group({**ADDRESSES, "ip_addresses": ["::ffff:10.0.0.1"]}), 400, "ip_addresses.0: "),
    ("PUT", GROUP, group({**ADDRESSES, "ip_addresses": ["ok", "10.0.0.1"]}), 400, "ip_addresses.0: 'ok'"),
    ("PUT", GROUP, group(id="other"), 400, "id: 'other' is not the id in the URL"),
    ("PUT", GROUP, group(tags=[{"tag": 1}]), 400, "tags.0.tag: "),
    ("PUT", GROUP, group(display_name="a\nb"), 400, "display_name: "),
    ("PUT", GROUP, group(display_name=""), 400, "display_name: "),
    ("PUT", GROUP, group(_revision=3), 412, "_revision: the object is at revision 0, not 3"),
    ("PUT", GROUP, [], 400, "body: not a JSON object"),
    ("PUT", f"{DOMAIN}/groups/sp ace", group(), 400, "id: "),
    ("PUT", f"{DOMAIN}/groups/web", group(), 412, "_revision: missing; the object exists at revision 0"),
    ("PUT", f"{DOMAIN}/groups/web", group(_revision=5), 412, "_revision: the object is at revision 0, not 5"),
    ("PATCH", f"{DOMAIN}/groups/web", {"expression": [OR]}, 400, "expression: 0: "),
    ("PATCH", f"{DOMAIN}/groups/web", {"surprise": 1}, 400, "surprise: unknown field"),
    ("DELETE", f"{DOMAIN}/groups/web", None, 400, "is used by /infra/domains/default/security-policies/used"),
    ("DELETE", GROUP, None, 404, "/infra/domains/default/groups/new"),
    ("GET", GROUP, None, 404, "/infra/domains/default/groups/new"),
    # services
    ("PUT", SERVICE, {"service_entries": []}, 400, "service_entries: "),
    ("PUT", SERVICE, service(destination_ports=["80-"]), 400, "service_entries.0.destination_ports.0: '80-'"),
    ("PUT", SERVICE, service(destination_ports=["90-80"]), 400, "service_entries.0.destination_ports.0: "),
    ("PUT", SERVICE, service(destination_ports=["65536"]), 400, "service_entries.0.destination_ports.0: "),
    ("PUT", SERVICE, service(destination_ports=[80]), 400, "service_entries.0.destination_ports.0: "),
    ("PUT", SERVICE, service(source_ports=["80-"]), 400, "service_entries.0.source_ports.0: '80-'"),
    (
        "PUT",
        SERVICE,
        service(source_ports=[f"{port}-{port + 1}" for port in range(8)]),
        400,
        "service_entries.0.source_ports: 16 port elements are over the limit of 15; a range counts as two",
    ),
    (
        "PUT",
        SERVICE,
        service(destination_ports=["1"] * 16),
        400,
        "destination_ports: 16 port elements are over",
    ),
    ("PUT", SERVICE, service(l4_protocol="SCTP"), 400, "service_entries.0.l4_protocol: "),
    ("PUT", SERVICE, nesting(), 400, "service_entries.0.nested_service_path: "),
    (
        "PUT",
        SERVICE,
        nesting("/infra/services/no"),
        400,
        "service_entries.0.nested_service_path: there is no",
    ),
    ("PUT", SERVICE, nesting("/infra/services/new"), 400, "service_entries.0.nested_service_path: /infra"),
    (
        "PUT",
        SERVICE,
        nesting("/infra/services/SSH", "/infra/services/ARP"),
        400,
        "service_entries: EtherTypes",
    ),
    ("PUT", SECTION, section(**nesting("/infra/services/ARP")), 400, "service_entries: not for a rule of"),
    (
        "PUT",
        SECTION,
        section(**nesting("/infra/services/no")),
        400,
        "entries.0.nested_service_path: there is",
    ),
    ("PUT", SERVICE, alg(alg="ORACLE_TNS"), 400, "service_entries.0.alg: Input should be 'FTP' or 'TFTP'"),
    ("PUT", SERVICE, alg(destination_ports=[]), 400, "service_entries.0.destination_ports: "),
    ("PUT", SERVICE, alg(destination_ports=["21", "22"]), 400, "service_entries.0.destination_ports: "),
    ("PUT", SERVICE, alg(destination_ports=["21-22"]), 400, "destination_ports.0: '21-22' is not one port"),
    ("PUT", SERVICE, alg(destination_ports=["0"]), 400, "destination_ports.0: '0' is not one port"),
    ("PUT", SECTION, section(**alg(), services=["/infra/services/FTP"]), 400, "a rule has one port for FTP"),
    ("PUT", SECTION, {"stateful": False, **section(**alg())}, 400, "FTP needs a section that is stateful"),
    ("PUT", SERVICE, icmp(icmp_type=256), 400, "service_entries.0.icmp_type: "),
    ("PUT", SERVICE, icmp(icmp_code=1), 400, "service_entries.0: icmp_code needs icmp_type"),
    ("PATCH", f"{INFRA}/services/SSH", {"description": "mine"}, 400, "it is predefined"),
    ("DELETE", f"{INFRA}/services/SSH", None, 400, "cannot delete predefined object /infra/services/SSH"),
    # session timers
    ("PUT", f"{TIMERS}/new", {"surprise": 1}, 400, "surprise: unknown field"),
    (
        "PUT",
        f"{TIMERS}/new",
        {"udp_single": 9},
        400,
        "udp_single: Input should be greater than or equal to 10",
    ),
    (
        "PUT",
        f"{TIMERS}/new",
        {"udp_single": 4320001},
        400,
        "udp_single: Input should be less than or equal to",
    ),
    (
        "PUT",
        f"{TIMERS}/new",
        {"tcp_established": 119},
        400,
        "tcp_established: Input should be greater than or",
    ),
    ("PUT", f"{TIMERS}/new", {"tcp_closed": "20"}, 400, "tcp_closed: "),
    ("PATCH", f"{TIMERS}/default-session-timer-profile", {"tcp_closed": 0}, 400, "tcp_closed: "),
    ("DELETE", f"{TIMERS}/default-session-timer-profile", None, 400, "cannot delete predefined object"),
    ("DELETE", f"{TIMERS}/new", None, 404, "/infra/firewall-session-timer-profiles/new"),
    ("PUT", TIMER_BINDING, {}, 400, "firewall_session_timer_profile_path: "),
    (
        "PUT",
        TIMER_BINDING,
        {"firewall_session_timer_profile_path": WEB},
        400,
        f"firewall_session_timer_profile_path: there is no '{WEB}'",
    ),
    ("PUT", TIMER_BINDING.replace("/web/", "/no/"), DEFAULT_TIMERS, 404, "/domains/default/groups/no"),
    ("PUT", TIMER_BINDING, {**DEFAULT_TIMERS, "sequence_number": -1}, 400, "sequence_number: "),
    # sections and rules
    ("PUT", SECTION, section(surprise=1), 400, "rules.0.surprise: unknown field"),
    ("PUT", SECTION, section(action="PASS"), 400, "rules.0.action: "),
    ("PUT", SECTION, {"rules": [{"id": "r"}]}, 400, "rules.0.action: "),
    ("PUT", SECTION, section(source_groups=["/infra/domains/default/groups/no"]), 400, "source_groups.0: "),
    ("PUT", SECTION, section(source_groups=["/infra/services/SSH"]), 400, "source_groups.0: "),
    ("PUT", SECTION, section(destination_groups=["nowhere"]), 400, "rules.0.destination_groups: 'nowhere'"),
    ("PUT", SECTION, section(source_groups=["ANY", WEB]), 400, "rules.0.source_groups: ANY stands alone"),
    ("PUT", SECTION, section(source_groups=[]), 400, "rules.0.source_groups: "),
    ("PUT", SECTION, section(sources_excluded=True), 400, "rules.0: sources_excluded: "),
    ("PUT", SECTION, section(destinations_excluded=True), 400, "rules.0: destinations_excluded: "),
    ("PUT", SECTION, section(services=["/infra/services/no"]), 400, "services.0: there is no"),
    ("PUT", SECTION, section(services=["tcp/80"]), 400, "rules.0.services: 'tcp/80'"),
    ("PUT", SECTION, section(services=["ANY"], **service()), 400, "rules.0: services: "),
    ("PUT", SECTION, section(**service(source_ports=["-"])), 400, "service_entries.0.source_ports.0: "),
    ("PUT", SECTION, section(scope=["10.0.0.1"]), 400, "rules.0.scope: '10.0.0.1'"),
    ("PUT", SECTION, section(scope=["/infra/domains/default/groups/no"]), 400, "scope.0: there is no"),
    ("PUT", SECTION, section(logged="yes"), 400, "rules.0.logged: "),
    ("PUT", SECTION, section(sequence_number=-1), 400, "rules.0.sequence_number: "),
    ("PUT", SECTION, section(sequence_number=2**31), 400, "rules.0.sequence_number: "),
    ("PUT", SECTION, section(direction="BOTH"), 400, "rules.0.direction: "),
    ("PUT", SECTION, section(ip_protocol="IPX"), 400, "rules.0.ip_protocol: "),
    ("PUT", SECTION, {"category": "Layer2"}, 400, "category: "),
    ("PUT", SECTION, section(action="JUMP_TO_APPLICATION"), 400, "action: JUMP_TO_APPLICATION is for the"),
    ("PUT", SECTION, ethernet(action="JUMP_TO_APPLICATION"), 400, "action: JUMP_TO_APPLICATION is for the"),
    ("PUT", SECTION, ethernet(action="REJECT"), 400, "action: a frame cannot be rejected"),
    ("PUT", SECTION, ethernet(ip_protocol="IPV4"), 400, "ip_protocol: an Ethernet rule"),
    ("PUT", SECTION, ethernet(source_groups=["10.0.0.1"]), 400, "source_groups.0: '10.0.0.1'"),
    (
        "PUT",
        SECTION,
        ethernet(services=["/infra/services/SSH"]),
        400,
        "services.0: not for a rule of Ethernet",
    ),
    ("PUT", SECTION, ethernet(**service()), 400, "service_entries: not for a rule of Ethernet"),
    ("PUT", SECTION, ethernet(vlan_ids=["4095"]), 400, "rules.0.vlan_ids.0: "),
    ("PUT", SECTION, ethernet(vlan_ids=["20-10"]), 400, "rules.0.vlan_ids.0: "),
    ("PUT", SECTION, section(vlan_ids=["10"]), 400, "vlan_ids: only a rule of an Ethernet section"),
    ("PUT", SECTION, section(services=["/infra/services/ARP"]), 400, "services.0: not for a rule of another"),
    ("PUT", SECTION, section(**ether(0x88CC)), 400, "service_entries: not for a rule of another"),
    ("PUT", SERVICE, ether(0x05DC), 400, "service_entries.0.ether_type: "),
    ("PUT", SERVICE, ether(0x8100), 400, "service_entries.0.ether_type: 33024 is that of a VLAN tag"),
    ("PUT", SERVICE, mixed(), 400, "service_entries: EtherTypes and what is within IP"),
    ("PUT", GROUP, group({**MACS, "mac_addresses": ["02:00"]}), 400, "expression.0.mac_addresses.0: "),
    ("PUT", GROUP, group(CONDITION, AND, MACS), 400, "expression: 1: "),
    (
        "PATCH",
        f"{DOMAIN}/security-policies/used",
        {"category": "Ethernet", **PORT_80},
        400,
        "service_entries: ",
    ),
    ("PUT", f"{DEFAULT_L2_SECTION}/rules/r", {"action": "DROP"}, 400, "rules: the default section"),
    ("PATCH", DEFAULT_L2_RULE, {"source_groups": [WEB]}, 400, "source_groups: "),
    ("PATCH", DEFAULT_L2_RULE, {"services": ["/infra/services/SSH"]}, 400, "services.0: not for"),
    ("DELETE", DEFAULT_L2_SECTION, None, 400, "cannot delete default section"),
    ("PUT", SECTION, {"tcp_strict": "yes"}, 400, "tcp_strict: "),
    ("PUT", SECTION, {"stateful": False, "tcp_strict": True}, 400, "tcp_strict: a section that is not"),
    ("PUT", SECTION, {"existing_flows": "DROP"}, 400, "existing_flows: "),
    ("PUT", SECTION, {"stateful": False, "existing_flows": "KEEP"}, 400, "existing_flows: a section that"),
    ("PUT", SECTION, {"scope": ["/infra/domains/default/groups/no"]}, 400, "scope.0: there is no"),
    ("PUT", SECTION, {"rules": [{"id": "r", "action": "DROP"}] * 2}, 400, "rules.1.id: 'r' is there twice"),
    ("PATCH", SECTION, section(source_groups=["/infra/domains/default/groups/no"]), 400, "source_groups.0: "),
    ("PATCH", SECTION, {"rules": 5}, 400, "rules: "),
    ("PATCH", SECTION, {"rules": [5]}, 400, "rules.0: "),
    ("PATCH", SECTION, {"rules": [{"id": ["r"], "action": "DROP"}]}, 400, "rules.0.id: "),
    ("PUT", f"{SECTION}/rules/r", {"action": "DROP"}, 404, "/infra/domains/default/security-policies/new"),
    ("PUT", f"{DEFAULT_SECTION}/rules/r", {"action": "DROP"}, 400, "rules: the default section"),
    ("PUT", DEFAULT_SECTION, {"_revision": 0, "rules": []}, 400, ""),
    ("PATCH", DEFAULT_SECTION, {"sequence_number": 1}, 400, "sequence_number: "),
    ("PATCH", DEFAULT_RULE, {"disabled": True}, 400, "disabled: "),
    ("PATCH", DEFAULT_RULE, {"source_groups": ["10.0.0.1"]}, 400, "source_groups: "),
    ("DELETE", DEFAULT_SECTION, None, 400, "cannot delete default section"),
    ("DELETE", DEFAULT_RULE, None, 400, "cannot delete predefined object"),
    # segments and inventory
    ("PUT", f"{INFRA}/segments/new", {"overlay_id": 2**24}, 400, "overlay_id: "),
    ("PUT", f"{INFRA}/segments/new", {"overlay_id": 5, "vlan_ids": ["5"]}, 400, "vlan_ids: "),
    ("PUT", f"{INFRA}/segments/new", {"vlan_ids": ["4095"]}, 400, "vlan_ids.0: "),
    ("PUT", f"{INFRA}/segments/new", {"overlay_id": 7}, 409, "overlay_id: 7 is /infra/segments/blue's"),
    ("DELETE", f"{INFRA}/segments/blue", None, 400, f"is used by /vsfw/vms/{VM}"),
    ("PUT", f"{VSFW}/vms/web", vm(), 400, "id: 'web' is not a UUID"),
    ("PUT", f"{VSFW}/vms/{OTHER_VM}", vm(), 409, f"vnics.0.id: {VNIC} is a vNIC of /vsfw/vms/{VM}"),
    ("PUT", f"{VSFW}/vms/{VM}", vm(mac="02-00-00-00-00-01"), 400, "vnics.0.mac: "),
    ("PUT", f"{VSFW}/vms/{VM}", vm(addresses=["10.0.0.0/8"]), 400, "vnics.0.addresses.0: "),
    (
        "PUT",
        f"{VSFW}/vms/{VM}",
        vm(addresses=[f"fd00::{n:x}" for n in range(257)]),
        400,
        "vnics.0.addresses: ",
    ),
    ("PUT", f"{VSFW}/vms/{VM}", vm(addresses=["0.0.0.0"]), 400, "vnics.0.addresses.0: "),
    (
        "PUT",
        f"{VSFW}/vms/{VM}",
        vm(segment_path="/infra/segments/no"),
        400,
        "vnics.0.segment_path: there is no",
    ),
    (
        "PUT",
        f"{VSFW}/vms/{VM}",
        {"vnics": [{"id": VNIC, "mac": MAC}] * 2},
        400,
        "vnics: a vNIC is there twice",
    ),
    ("PUT", EXCLUDE_LIST, {"_revision": 0, "members": ["vm"]}, 400, "members.0: "),
    (
        "PUT",
        EXCLUDE_LIST,
        {"_revision": 0, "members": ["/infra/services/SSH"]},
        400,
        "members.0: there is no",
    ),
    ("PUT", EXCLUDE_LIST, {"_revision": 0, "members": [f"/vsfw/vms/{OTHER_VM}"]}, 400, "members.0: there is"),
    ("PUT", EXCLUDE_LIST, {"_revision": 0, "members": [WEB] * 1001}, 400, "members: "),
    ("PUT", EXCLUDE_LIST, {"members": []}, 412, "_revision: missing"),
    ("PATCH", EXCLUDE_LIST, {"member": [WEB]}, 400, "member: unknown field"),
    ("DELETE", EXCLUDE_LIST, None, 405, ""),
    ("PUT", f"{VSFW}/clusters/c", {"hosts": [OTHER_VM]}, 400, "hosts.0: there is no"),
    ("PUT", f"{VSFW}/datacenters/d", {"clusters": ["no"]}, 400, "clusters.0: there is no"),
    ("DELETE", f"{VSFW}/hosts/{HOST}", None, 400, "is used by /vsfw/clusters/used"),
    ("DELETE", f"{VSFW}/hosts/{OTHER_VM}", None, 404, "there is no host"),
    ("POST", f"{VSFW}/hosts", {"display_name": "h"}, 405, ""),
    ("POST", f"{VSFW}/enrolment-tokens", {"lifetime_s": 59}, 400, "lifetime_s: "),
    ("POST", f"{VSFW}/enrolment-tokens", {"lifetime_s": 7 * 86400 + 1}, 400, "lifetime_s: "),
    ("POST", f"{VSFW}/enrolment-tokens", {"host": OTHER_VM}, 400, "host: there is no host"),
    ("POST", f"{VSFW}/enrolment-tokens", {"host": HOST, "display_name": "h"}, 400, "display_name: "),
    ("DELETE", f"{VSFW}/enrolment-tokens/0123456789ab", None, 404, "there is no enrolment token"),
    ("POST", f"{VSFW}/enrol", {"token": "no token", "csr": ""}, 400, "token: "),
    ("POST", f"{VSFW}/enrol", {"token": f"{'0' * 12}.{'x' * 43}"}, 400, "csr: "),
    ("POST", "/api/v1/fabric/virtual-machines", {"external_id": VM, "tags": []}, 400, "action: "),
    (
        "POST",
        "/api/v1/fabric/virtual-machines?action=update_tags",
        {"external_id": OTHER_VM, "tags": []},
        404,
        "external_id: ",
    ),
    ("GET", "/no/such/thing", None, 404, "/no/such/thing"),
]


@pytest.fixture
async def furnished(manager: Manager) -> Manager:
    """With a group in use, a segment in use, a VM, and a host in a cluster."""
    await manager.call("PUT", f"{DOMAIN}/groups/web", group(CONDITION))
    used = {"rules": [{"id": "r", "action": "ALLOW", "source_groups": [WEB]}]}
    await manager.call("PUT", f"{DOMAIN}/security-policies/used", used)
    await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7})
    await manager.call("PUT", f"{VSFW}/vms/{VM}", vm(segment_path="/infra/segments/blue"))
    manager.register.add_host(HOST, "host")
    await manager.call("PUT", f"{VSFW}/clusters/used", {"hosts": [HOST]})
    return manager


async def test_a_bad_request_is_refused_by_name_and_changes_nothing(
    furnished: Manager, subtests: pytest.Subtests
) -> None:
    """Every row of the table: status, the field in the message, NSX's body, and the store as it was."""
    before, world = furnished.stored(), furnished.register.world
    for method, path, body, status, message in REFUSED:
        with subtests.test(method=method, path=path, body=body):
            answer = await furnished.answer(method, path, body)
            assert (answer.status_code, message in answer.json()["error_message"]) == (status, True), (
                answer.text
            )
            assert set(answer.json()) == {"httpStatus", "error_code", "error_message", "module_name"}
            assert furnished.register.world is world
            assert furnished.stored() == before
