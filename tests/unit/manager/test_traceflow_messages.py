"""Traceflows of what is no unicast of IP: ARP, neighbour discovery, DHCP, DNS, and frames of other kinds."""

from typing import Any

import pytest

from manager_stub import traceflow
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

pytestmark = pytest.mark.slow

SECTION = f"{DOMAIN}/security-policies"
VMS = {"web": 1, "db": 2, "dhcp": 3, "far": 4}
"""Names, and the last digit of whatever they have; `far` is on another segment."""
ALLOWED, DROPPED = "ForwardedLogical", "DroppedLogical"


def vnic(name: str) -> str:
    return f"22222222-0000-4000-8000-00000000000{VMS[name]}"


def mac(name: str) -> str:
    return f"02:00:00:00:00:0{VMS[name]}"


async def put_vm(manager: Manager, name: str, **more: Any) -> None:
    number = VMS[name]
    url = f"{VSFW}/vms/11111111-0000-4000-8000-00000000000{number}"
    segment = "red" if name == "far" else "blue"
    card = {"id": vnic(name), "mac": mac(name), "segment_path": f"/infra/segments/{segment}"}
    card |= {"addresses": [f"10.0.0.{number}", f"fd00::{number}"], **more}
    before = await manager.answer("GET", url)
    revision = {"_revision": before.json()["_revision"]} if before.is_success else {}
    await manager.call("PUT", url, {"display_name": name, "vnics": [card], **revision})


@pytest.fixture
async def link(manager: Manager) -> Manager:
    """Three VMs on one segment, the third marked as DHCP server, one elsewhere; the default rule drops."""
    for number, segment in enumerate(("blue", "red"), 1):
        await manager.call("PUT", f"{INFRA}/segments/{segment}", {"overlay_id": number})
    for name in VMS:
        await put_vm(manager, name, dhcp_server=name == "dhcp")
    default = f"{SECTION}/default-layer3-section/rules/default-layer3-rule"
    await manager.call("PATCH", default, {"action": "DROP"})
    return manager


async def seen(manager: Manager, packet: dict[str, Any], source: str = "web") -> dict[str, str]:
    """What the firewall does at each vNIC, by the name of its VM."""
    body = {"lport_id": vnic(source), "packet": packet}
    made = await manager.call("POST", "/api/v1/traceflows", body)
    found = await manager.call("GET", f"/api/v1/traceflows/{made['id']}/observations")
    decisive = [each for each in found["results"] if "why" in each]
    return {
        each["lport_name"]: each["resource_type"].removeprefix("TraceflowObservation")
        + (f" {each['reason']}" if "reason" in each else "")
        for each in decisive
    }


def arp(target: str, **more: Any) -> dict[str, Any]:
    return {"arp_header": {"dst_ip": f"10.0.0.{VMS[target]}", **more}}


def ndp(target: str, kind: str = "SOLICITATION") -> dict[str, Any]:
    header = {"dst_ip": f"fd00::{VMS[target]}", "msg_type": f"NEIGHBOR_{kind}"}
    return {"transport_header": {"ndp_header": header}}


async def test_an_arp_request_gets_to_everybody_of_the_segment(link: Manager) -> None:
    """Whose address it asks for first; no rule for packets is asked. A reply gets to one only."""
    found = await seen(link, arp("db", src_ip="10.0.0.1"))
    assert list(found.items()) == [("web", ALLOWED), ("db", ALLOWED), ("dhcp", ALLOWED)]
    found = await seen(link, arp("db", src_ip="10.0.0.1", op_code="ARP_REPLY"))
    assert found == {"web": ALLOWED, "db": ALLOWED}
    assert await seen(link, arp("far", op_code="ARP_REPLY")) == {"web": ALLOWED}


async def test_who_lies_in_arp_is_caught_by_spoofguard(link: Manager) -> None:
    """About its address; a probe claims none."""
    await put_vm(link, "web", spoofguard="MANUAL")
    assert await seen(link, arp("db", src_ip="10.0.0.9")) == {"web": f"{DROPPED} SPOOFGUARD"}
    assert (await seen(link, arp("db", src_ip="10.0.0.1")))["web"] == ALLOWED
    assert (await seen(link, arp("db")))["web"] == ALLOWED


async def test_an_ethernet_rule_decides_about_arp(link: Manager) -> None:
    """At whom it applies to, with its number as that of a layer 2 rule, and of an allowed frame, too."""
    rule = {"id": "r", "action": "DROP", "services": ["/infra/services/ARP"], "direction": "IN"}
    url = f"{SECTION}/frames"
    await link.call("PUT", url, {"category": "Ethernet", "rules": [rule]})
    assert await seen(link, arp("db", op_code="ARP_REPLY")) == {"web": ALLOWED, "db": f"{DROPPED} FW_RULE"}
    await link.call("PATCH", f"{url}/rules/r", {"action": "ALLOW"})
    body = {"source_id": vnic("web"), "packet": arp("db", op_code="ARP_REPLY")}
    await link.call("PUT", f"{INFRA}/traceflows/t", body)
    found = (await link.call("GET", f"{INFRA}/traceflows/t/observations"))["results"]
    (last,) = [
        each for each in found if each.get("why", {}).get("direction") == "IN" and "l2_rule_id" in each
    ]
    assert last["why"]["rule"]["path"].endswith("frames/rules/r")


async def test_neighbour_discovery_is_asked_of_the_rules(link: Manager) -> None:
    """The predefined rule lets it pass, one above it drops it; a solicitation gets to all of the segment, an
    advertisement to whom it is sent."""
    assert await seen(link, ndp("db")) == {"web": ALLOWED, "db": ALLOWED, "dhcp": ALLOWED}
    one = ndp("web", "ADVERTISEMENT") | {"ipv6_header": {"dst_ip": "fd00::2", "src_ip": "fd00::1"}}
    assert await seen(link, one) == {"web": ALLOWED, "db": ALLOWED}
    entry = {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv6", "icmp_type": 135}
    no = {"id": "no", "action": "DROP", "service_entries": [entry]}
    await link.call("PUT", f"{SECTION}/s", {"category": "Emergency", "rules": [no]})
    assert await seen(link, ndp("db")) == {"web": f"{DROPPED} FW_RULE"}
    assert (await seen(link, one))["web"] == ALLOWED


async def test_who_advertises_anothers_address_is_caught_by_spoofguard(link: Manager) -> None:
    """Its own it may; and the link-local one that its MAC address makes."""
    await put_vm(link, "web", spoofguard="MANUAL")
    header = {"ipv6_header": {"dst_ip": "ff02::1", "src_ip": "fd00::1"}}
    assert await seen(link, ndp("db", "ADVERTISEMENT") | header) == {"web": f"{DROPPED} SPOOFGUARD"}
    assert (await seen(link, ndp("web", "ADVERTISEMENT") | header))["web"] == ALLOWED
    assert (await seen(link, ndp("db")))["web"] == ALLOWED


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        ({"dhcp_header": {"op_code": "BOOTREQUEST"}}, {"dhcp_header": {"op_code": "BOOTREPLY"}}),
        ({"dhcpv6_header": {"msg_type": "SOLICIT"}}, {"dhcpv6_header": {"msg_type": "ADVERTISE"}}),
    ],
    ids=["IPv4", "IPv6"],
)
async def test_only_a_marked_port_hears_and_answers_dhcp(
    link: Manager, ask: dict[str, Any], answer: dict[str, Any]
) -> None:
    """The request gets to the marked one and is dropped at others; an answer of anybody else is dropped where
    it leaves."""
    found = await seen(link, {"transport_header": ask})
    assert found == {"web": ALLOWED, "db": f"{DROPPED} DHCP", "dhcp": ALLOWED}
    assert await seen(link, {"transport_header": answer}) == {"web": f"{DROPPED} DHCP"}
    assert (await seen(link, {"transport_header": answer}, "dhcp"))["web"] == ALLOWED


async def test_dns_is_udp_of_its_port(link: Manager) -> None:
    """Question and answer."""
    entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "UDP", "destination_ports": ["53"]}
    rule = {"id": "r", "action": "ALLOW", "service_entries": [entry]}
    await link.call("PUT", f"{SECTION}/s", {"rules": [rule]})
    to = {"ip_header": {"dst_ip": "10.0.0.2"}}
    header = {"address": "example.org"}
    assert await seen(link, to | {"transport_header": {"dns_header": header}}) == {
        "web": ALLOWED,
        "db": ALLOWED,
    }
    response = {"dns_header": header | {"message_type": "RESPONSE"}}
    assert await seen(link, to | {"transport_header": response}) == {"web": f"{DROPPED} FW_RULE"}


async def test_a_frame_of_another_kind_needs_a_rule(link: Manager) -> None:
    """LLDP to its group gets to nobody without one; and with one to all of the segment."""
    lldp = {"eth_header": {"eth_type": 0x88CC, "dst_mac": "01:80:c2:00:00:0e"}}
    assert await seen(link, lldp) == {"web": f"{DROPPED} FW_RULE"}
    entry = {"resource_type": "EtherTypeServiceEntry", "ether_type": 0x88CC}
    rule = {"id": "r", "action": "ALLOW", "service_entries": [entry]}
    await link.call("PUT", f"{SECTION}/frames", {"category": "Ethernet", "rules": [rule]})
    assert await seen(link, lldp) == {"web": ALLOWED, "db": ALLOWED, "dhcp": ALLOWED}
    to_db = {"eth_header": {"eth_type": 0x88CC, "dst_mac": mac("db")}}
    assert await seen(link, to_db) == {"web": ALLOWED, "db": ALLOWED}
    assert await seen(link, {"eth_header": {"eth_type": 0x88CC, "dst_mac": mac("far")}}) == {"web": ALLOWED}


async def test_of_many_receivers_some_are_judged(link: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is asked for first; how many more there are is said."""
    monkeypatch.setattr(traceflow, "MAX_RECEIVERS", 1)
    assert await seen(link, arp("dhcp")) == {"web": ALLOWED, "dhcp": ALLOWED}
    made = await link.call("POST", "/api/v1/traceflows", {"lport_id": vnic("web"), "packet": arp("dhcp")})
    assert "1 more vNICs of the segment get it" in made["analysis"][-1]


async def test_multicast_is_asked_of_the_rules_at_each(link: Manager) -> None:
    """One that a rule allows in to some gets to those."""
    group = {
        "resource_type": "Condition",
        "member_type": "VirtualMachine",
        "key": "Name",
        "operator": "EQUALS",
    }
    await link.call("PUT", f"{DOMAIN}/groups/db", {"expression": [group | {"value": "db"}]})
    rules = [
        {"id": "out", "action": "ALLOW", "direction": "OUT", "destination_groups": ["224.0.0.0/4"]},
        {"id": "in", "action": "ALLOW", "direction": "IN", "scope": ["/infra/domains/default/groups/db"]},
    ]
    await link.call("PUT", f"{SECTION}/s", {"rules": rules})
    mdns = {"ip_header": {"dst_ip": "224.0.0.251"}, "transport_header": {"udp_header": {"dst_port": 5353}}}
    found = await seen(link, mdns | {"transport_type": "MULTICAST"})
    assert found == {"web": ALLOWED, "db": ALLOWED, "dhcp": f"{DROPPED} FW_RULE"}
