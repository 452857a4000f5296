"""Traceflows: which rules decide about a packet from vNIC to vNIC and why, in NSX's shape."""

from datetime import datetime
from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager_stub import audit
from manager_stub.api import traceflows
from manager_stub.api.traceflows import IDLE_S, MAX_OF_USER, Traceflows
from manager_stub.model import FieldsPacketData, TraceflowConfig
from manager_stub.span import Card, Realised, realise
from manager_stub.traceflow import Trace, trace
from tests.unit.manager.expressions import vm
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from tests.unit.manager.test_lint import RANDOM_RULES, policy
from tests.unit.manager.test_span import state, whole
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.schedule import Now
from vsfwd.protocol.messages import Binding, Bindings

pytestmark = pytest.mark.slow

HOSTS = ("33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002")
WEB, DB = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
WEB_VNIC, DB_VNIC = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
GROUPS = "/infra/domains/default/groups"
RULES = "/infra/domains/default/security-policies/tiers/rules"
POLICY = {
    "display_name": "Tiers",
    "rules": [
        {"id": "other", "action": "DROP", "services": ["/infra/services/SSH"]},
        {
            "id": "to-db",
            "display_name": "web to db",
            "action": "ALLOW",
            "source_groups": [f"{GROUPS}/web", "192.0.2.1"],
            "destination_groups": [f"{GROUPS}/db"],
            "services": ["/infra/services/PostgreSQL"],
            "scope": [f"{GROUPS}/web", f"{GROUPS}/db"],
        },
        {"id": "rest", "action": "REJECT", "destination_groups": [f"{GROUPS}/db"], "direction": "IN"},
    ],
}


@pytest.fixture
async def tiers(manager: Manager) -> Manager:
    """web on the first host, db on the second, of one segment; web may ask db for PostgreSQL."""
    await manager.call("PUT", f"{INFRA}/segments/blue", {"overlay_id": 7, "display_name": "Blue"})
    for number, (host, id, vnic, name) in enumerate(
        zip(HOSTS, (WEB, DB), (WEB_VNIC, DB_VNIC), ("web", "db"), strict=True), 1
    ):
        manager.register.add_host(host, f"host{number}")
        await manager.call("PUT", f"{VSFW}/vms/{id}", a_vm(name, vnic, number))
        manager.vnics.bound(host, Bindings((Binding(vnic, id, f"02:00:00:00:00:0{number}", "veth0"),)))
        group = {"display_name": name, "expression": [vm("Name", "EQUALS", name)]}
        await manager.call("PUT", f"{DOMAIN}/groups/{name}", group)
    await manager.call("PUT", f"{DOMAIN}/security-policies/tiers", POLICY)
    return manager


def a_vm(name: str, vnic: str, number: int, segment: str = "/infra/segments/blue", **more: Any) -> Any:
    card = {"id": vnic, "mac": f"02:00:00:00:00:0{number}", "segment_path": segment, **more}
    return {"display_name": name, "vnics": [{"addresses": [f"10.0.0.{number}", f"fd00::{number}"], **card}]}


def tcp(port: int, **header: Any) -> dict[str, Any]:
    """From web to db, in IPv4 unless said otherwise; the source's address is left to the manager."""
    return {
        "ip_header": {"dst_ip": "10.0.0.2", "protocol": 6},
        "transport_header": {"tcp_header": {"src_port": 40000, "dst_port": port, **header}},
    }


async def run(manager: Manager, packet: dict[str, Any], **config: Any) -> list[Any]:
    """The observations of a packet from web."""
    body = {"source_id": WEB_VNIC, "packet": packet, **config}
    before = await manager.answer("GET", f"{INFRA}/traceflows/t")
    if before.is_success:
        body["_revision"] = before.json()["_revision"]
    await manager.call("PUT", f"{INFRA}/traceflows/t", body)
    return list((await manager.call("GET", f"{INFRA}/traceflows/t/observations"))["results"])


def told(observations: list[Any]) -> list[str]:
    """Kind, component and hop of each, in few letters."""
    return [
        f"{each['resource_type'].removeprefix('TraceflowObservation')}"
        f" {each['component_type']} {each['sequence_no']}"
        for each in observations
    ]


async def test_an_allowed_packet_is_seen_at_every_step(tiers: Manager) -> None:
    """Out at the source, over the segment and the underlay to the second host, in there, delivered."""
    seen = await run(tiers, tcp(5432))
    assert told(seen) == [
        "ReceivedLogical DFW 0",
        "ForwardedLogical DFW 0",
        "ForwardedLogical LS 0",
        "Forwarded PHYSICAL 0",
        "Received PHYSICAL 1",
        "ReceivedLogical DFW 1",
        "ForwardedLogical DFW 1",
        "Delivered LS 1",
    ]
    assert [each["transport_node_name"] for each in seen] == ["host1"] * 4 + ["host2"] * 4
    assert {each["lport_id"] for each in seen[:2]} == {WEB_VNIC}
    assert {each["acl_rule_path"] for each in (seen[1], seen[6])} == {f"{RULES}/to-db"}
    assert seen[1]["acl_rule_id"] == tiers.register.world.rules[f"{RULES}/to-db"].number
    status = await tiers.call("GET", f"{INFRA}/traceflows/t/status")
    assert (status["operation_state"], status["request_status"]) == ("FINISHED", "SUCCESS")
    logical = {"received_count": 2, "forwarded_count": 3, "delivered_count": 0, "dropped_count": 0}
    physical = {"received_count": 1, "forwarded_count": 1, "delivered_count": 1, "dropped_count": 0}
    assert (status["logical_counters"], status["counters"]) == (logical, physical)
    assert "no packet was sent" in status["analysis"][0]


async def test_the_reason_names_section_rule_groups_and_why_the_addresses_are_in_them(tiers: Manager) -> None:
    """And the rules above that did not match, with the field that spoke against."""
    why = (await run(tiers, tcp(5432)))[1]["why"]
    rules = tiers.register.world.rules
    assert (why["action"], why["direction"]) == ("ALLOW", "OUT")
    assert (why["rule"]["path"], why["rule"]["display_name"]) == (f"{RULES}/to-db", "web to db")
    assert (why["section"]["display_name"], why["section"]["category"]) == ("Tiers", "Application")
    web = [[{"where": "expression.0", "what": "VirtualMachine Name EQUALS 'web'"}]]
    db = [[{"where": "expression.0", "what": "VirtualMachine Name EQUALS 'db'"}]]
    assert why["matches"] == [
        {"field": "source_groups", "value": f"{GROUPS}/web", "reasons": web},
        {"field": "destination_groups", "value": f"{GROUPS}/db", "reasons": db},
        {"field": "scope", "value": f"{GROUPS}/web", "reasons": web},
    ]
    other = {
        "path": f"{RULES}/other",
        "display_name": "other",
        "rule_id": rules[f"{RULES}/other"].number,
        "because": "services",
    }
    assert (why["passed_over"], why["passed_over_count"]) == ([other], 1)


async def test_a_dropped_packet_ends_where_it_is_dropped(tiers: Manager) -> None:
    """At the source by a rule out, at the destination by a rule in; with the rule and NSX's reason."""
    seen = await run(tiers, tcp(22))
    assert told(seen) == ["ReceivedLogical DFW 0", "DroppedLogical DFW 0"]
    assert (seen[-1]["reason"], seen[-1]["acl_rule_path"]) == ("FW_RULE", f"{RULES}/other")
    seen = await run(tiers, tcp(80))
    assert told(seen)[-1] == "DroppedLogical DFW 1"
    assert (seen[-1]["acl_rule_path"], seen[-1]["why"]["action"]) == (f"{RULES}/rest", "REJECT")
    assert seen[-1]["transport_node_name"] == "host2"


PACKETS: list[tuple[dict[str, Any], str]] = [
    ({"ipv6_header": {"dst_ip": "fd00::2"}, "transport_header": tcp(5432)["transport_header"]}, "to-db"),
    ({"ip_header": {"dst_ip": "10.0.0.2"}}, "rest"),
    ({"ip_header": {"dst_ip": "10.0.0.2"}, "transport_header": {"icmp_echo_request_header": {}}}, "rest"),
    ({"ipv6_header": {"dst_ip": "fd00::2"}}, "rest"),
    ({"ip_header": {"dst_ip": "10.0.0.2"}, "transport_header": {"udp_header": {"dst_port": 5432}}}, "rest"),
    ({"ip_header": {"dst_ip": "10.0.0.2", "protocol": 47}}, "rest"),
    ({**tcp(5432), "ip_header": {"dst_ip": "10.0.0.2", "protocol": 1}}, "to-db"),
]


async def test_packets_of_every_kind(tiers: Manager) -> None:
    """Both families, TCP, UDP, echo requests and protocols by number. ICMP is NSX's default, and gives way to
    a header of TCP."""
    for packet, rule in PACKETS:
        last_of_firewall = [each for each in await run(tiers, packet) if "why" in each][-1]
        assert last_of_firewall["acl_rule_path"] == f"{RULES}/{rule}", packet


async def test_a_packet_from_the_middle_of_a_connection_finds_a_strict_rule(tiers: Manager) -> None:
    """ACK without SYN: the rule matches, and drops it for want of a connection."""
    last = (await run(tiers, tcp(5432, tcp_flags=16)))[-1]
    assert (last["reason"], last["acl_rule_path"]) == ("FW_STATE", f"{RULES}/to-db")
    assert (await run(tiers, tcp(5432, tcp_flags=2)))[-1]["component_type"] == "LS"


async def test_who_sends_from_an_address_not_its_own_is_in_none_of_its_groups(tiers: Manager) -> None:
    """As on the host: identity comes from the port. SpoofGuard, where it is on, drops it before any rule."""
    packet = tcp(5432)
    packet["ip_header"] |= {"src_ip": "10.0.0.9"}
    assert (await run(tiers, packet))[-1]["acl_rule_path"] == f"{RULES}/rest"
    await tiers.call(
        "PUT",
        f"{VSFW}/vms/{WEB}",
        {**a_vm("web", WEB_VNIC, 1, spoofguard="MANUAL"), "_revision": 0},
    )
    last = (await run(tiers, packet))[-1]
    assert (last["component_type"], last["reason"]) == ("SPOOFGUARD", "SPOOFGUARD")
    assert "10.0.0.9 is no address of the vNIC" in last["why"]["decided_by"]


async def test_an_address_that_a_rule_lists_is_its_own_reason(tiers: Manager) -> None:
    """The rule's own 192.0.2.1, which no group has."""
    packet = tcp(5432)
    packet["ip_header"] |= {"src_ip": "192.0.2.1"}
    why = (await run(tiers, packet))[1]["why"]
    assert why["matches"][0] == {"field": "source_groups", "value": "192.0.2.1", "reasons": []}


async def test_another_ones_address_is_no_reason_to_be_in_its_groups(tiers: Manager) -> None:
    """web sends from db's address, which a rule lists beside db's group: the address it is, and no more. A
    section's scope stands in place of the rule's."""
    rule = {"id": "r", "action": "ALLOW", "source_groups": [f"{GROUPS}/db", "10.0.0.2"]}
    section = {"rules": [rule | {"scope": [f"{GROUPS}/db"]}], "scope": [f"{GROUPS}/web"]}
    await tiers.call("PUT", f"{DOMAIN}/security-policies/first", {"category": "Emergency", **section})
    packet = {"ip_header": {"src_ip": "10.0.0.2", "dst_ip": "198.51.100.1"}}
    why = (await run(tiers, packet))[1]["why"]
    named = [(each["field"], each["value"]) for each in why["matches"]]
    assert named == [
        ("source_groups", "10.0.0.2"),
        ("destination_groups", "ANY"),
        ("scope", f"{GROUPS}/web"),
    ]


async def test_ethernet_rules_are_asked_first(tiers: Manager) -> None:
    """One that drops the frame ends the way, with its number as that of a layer 2 rule."""
    rule = {"id": "no", "action": "DROP", "services": ["/infra/services/IPv4"]}
    await tiers.call("PUT", f"{DOMAIN}/security-policies/frames", {"category": "Ethernet", "rules": [rule]})
    (_, last) = await run(tiers, tcp(5432))
    path = "/infra/domains/default/security-policies/frames/rules/no"
    assert (last["l2_rule_path"], last["why"]["rule"]["path"]) == (path, path)
    assert "acl_rule_id" not in last


async def test_nothing_is_enforced_on_an_excluded_vnic(tiers: Manager) -> None:
    """Both pass, and no rule is named."""
    url = f"{INFRA}/settings/firewall/security/exclude-list"
    await tiers.call("PATCH", url, {"members": [f"/vsfw/vms/{WEB}", f"/vsfw/vms/{DB}"]})
    seen = await run(tiers, tcp(22))
    assert told(seen)[-1] == "Delivered LS 1"
    assert not any("acl_rule_id" in each for each in seen)
    assert "excluded" in seen[1]["why"]["decided_by"]


async def test_a_packet_to_nobody_here_leaves(tiers: Manager) -> None:
    """What lies outside is not known: it is delivered there."""
    seen = await run(tiers, {"ip_header": {"dst_ip": "198.51.100.1"}})
    assert told(seen)[-1] == "Delivered PHYSICAL 0"
    assert "no vNIC has the address" in seen[-1]["component_name"]


async def test_an_address_of_two_vnics_elsewhere_is_nobodys(tiers: Manager) -> None:
    """On another segment: it is not known who gets it, and the result says so."""
    for number in (3, 4):
        other = f"22222222-0000-4000-8000-00000000000{number}"
        body = a_vm("twin", other, number, addresses=["10.0.0.7"])
        del body["vnics"][0]["segment_path"]
        await tiers.call("PUT", f"{VSFW}/vms/11111111-0000-4000-8000-00000000000{number}", body)
    assert told(await run(tiers, {"ip_header": {"dst_ip": "10.0.0.7"}}))[-1] == "ForwardedLogical LS 0"
    status = await tiers.call("GET", f"{INFRA}/traceflows/t/status")
    assert status["operation_state"] == "FAILED"
    assert "2 vNICs have 10.0.0.7" in status["analysis"][-1]


async def test_the_packet_is_asked_of_the_policy_as_it_was(tiers: Manager) -> None:
    """Until it is started again."""
    await run(tiers, tcp(5432))
    await tiers.call("PATCH", f"{DOMAIN}/security-policies/tiers/rules/to-db", {"disabled": True})
    url = f"{INFRA}/traceflows/t"
    assert (await tiers.call("GET", f"{url}/observations"))["results"][-1]["component_type"] == "LS"
    assert (await tiers.answer("POST", f"{url}?action=restart")).status_code == 201
    last = (await tiers.call("GET", f"{url}/observations"))["results"][-1]
    assert last["acl_rule_path"] == f"{RULES}/rest"


async def test_the_manager_api_has_the_same(tiers: Manager) -> None:
    """POST makes one under an id of its own; observations by their fields; DELETE."""
    body = {"lport_id": WEB_VNIC, "packet": tcp(80), "timeout": 5000}
    answer = await tiers.answer("POST", "/api/v1/traceflows", body)
    assert (answer.status_code, answer.json()["operation_state"]) == (201, "FINISHED")
    url = f"/api/v1/traceflows/{answer.json()['id']}"
    assert (await tiers.call("GET", url))["lport_id"] == WEB_VNIC
    query = "?resource_type=TraceflowObservationDroppedLogical&transport_node_name=host2"
    (dropped,) = (await tiers.call("GET", f"{url}/observations{query}"))["results"]
    assert dropped["acl_rule_path"] == f"{RULES}/rest"
    assert (await tiers.call("GET", "/api/v1/traceflows"))["result_count"] == 1
    await tiers.call("DELETE", url)
    assert (await tiers.answer("GET", url)).status_code == 404


DHCP: dict[str, Any] = {"transport_header": {"dhcp_header": {}}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"source_id": "22222222-0000-4000-8000-00000000000f"}, "source_id: there is no vNIC"),
    ({"source_id": None}, "source_id: say the vNIC"),
    ({"packet": {}}, "an ip_header or an ipv6_header"),
    ({"packet": {**tcp(1), "ipv6_header": {"dst_ip": "fd00::2"}}}, "an ip_header or an ipv6_header"),
    ({"packet": {**tcp(1), "arp_header": {"dst_ip": "10.0.0.2"}}}, "an ip_header or an ipv6_header"),
    ({"packet": {"arp_header": {"dst_ip": "fd00::2"}}}, "packet.arp_header.dst_ip"),
    (
        {"packet": {"arp_header": {"dst_ip": "10.0.0.2"}, "transport_header": {"dns_header": {}}}},
        "it needs an",
    ),
    ({"packet": {"transport_header": {"tcp_header": {"dst_port": 1}}}}, "it needs an ip_header"),
    ({"packet": {"transport_header": {"ndp_header": {"dst_ip": "10.0.0.2"}}}}, "ndp_header.dst_ip"),
    ({"packet": {"transport_header": {"dhcp_header": {"op_code": "DISCOVER"}}}}, "dhcp_header.op_code"),
    ({"packet": {**DHCP, "transport_type": "UNICAST"}}, "transport_type: UNICAST is not that of its"),
    ({"packet": {"eth_header": {"eth_type": 0x88CC}}}, "packet.eth_header.dst_mac: needed"),
    ({"packet": {**tcp(1), "transport_type": "BROADCAST"}}, "packet.transport_type"),
    ({"packet": {**tcp(1), "resource_type": "BinaryPacketData"}}, "packet.resource_type"),
    ({"packet": {**tcp(1), "color": 1}}, "packet.color: unknown field"),
    ({"packet": tcp(70000)}, "packet.transport_header.tcp_header.dst_port"),
    ({"packet": {"ip_header": {"dst_ip": "10.0.0.2", "protocol": 6}}}, "needs a header with a dst_port"),
    ({"packet": {**tcp(1), "ip_header": {"dst_ip": "10.0.0.2", "protocol": 17}}}, "is not that of"),
    ({"packet": {"ip_header": {"dst_ip": "10.0.0.2", "protocol": 58}}}, "before any rule"),
    ({"packet": {"ip_header": {"dst_ip": "fd00::2"}}}, "packet.ip_header.dst_ip"),
    (
        {"packet": {"ip_header": {"dst_ip": "224.0.0.1"}, "transport_type": "UNICAST"}},
        "packet.transport_type: UNICAST is not that",
    ),
    ({"packet": {"ipv6_header": {"dst_ip": "::ffff:10.0.0.2"}}}, "IPv4-mapped"),
    ({"packet": {"ipv6_header": {"dst_ip": "fe80::1%eth0"}}}, "packet.ipv6_header.dst_ip"),
    ({"timeout": 4}, "timeout"),
    ({"id": "other"}, "is not the id in the URL"),
]


async def test_a_bad_one_is_refused_by_name_and_not_kept(tiers: Manager) -> None:
    """400 in NSX's words, with the field."""
    for change, message in REFUSED:
        body = {"source_id": WEB_VNIC, "packet": tcp(80)} | change
        answer = await tiers.answer("PUT", f"{INFRA}/traceflows/t", body)
        assert (answer.status_code, answer.json()["httpStatus"]) == (400, "BAD_REQUEST"), change
        assert message in answer.json()["error_message"]
        assert (await tiers.answer("GET", f"{INFRA}/traceflows/t")).status_code == 404


async def test_one_that_is_there_is_replaced_by_revision(tiers: Manager) -> None:
    """A PUT that does not know it is 412; what was read can be written back."""
    url, body = f"{INFRA}/traceflows/t", {"source_id": WEB_VNIC, "packet": tcp(80)}
    shown = await tiers.call("PUT", url, body)
    assert (await tiers.answer("PUT", url, body)).status_code == 412
    assert (await tiers.call("PUT", url, shown))["_revision"] == 1
    assert (await tiers.call("GET", f"{INFRA}/traceflows"))["results"][0]["path"] == "/infra/traceflows/t"


async def test_transient_ones_expire(tiers: Manager) -> None:
    """Two hours after it was last asked for one is gone, unless it is not transient."""
    now = 0.0
    kept = Traceflows(tiers.register, lambda: now)
    for id, transient in (("idle", True), ("asked", True), ("lasting", False)):
        body = {"source_id": WEB_VNIC, "packet": tcp(80), "is_transient": transient}
        kept.run(id, TraceflowConfig.model_validate(body))
    now = IDLE_S / 2
    kept.get("asked")
    now = IDLE_S + 1
    assert sorted(kept.all()) == ["asked", "lasting"]


async def test_a_user_has_room_for_so_many_and_takes_nobody_elses(
    tiers: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is full, the transient one that nobody has asked for longest goes; where all are to last, one
    more is refused. Another user has room of their own."""
    monkeypatch.setattr(traceflows, "MAX_OF_USER", 3)
    now = 0.0
    kept = Traceflows(tiers.register, lambda: now)

    def run(id: str, transient: bool) -> None:
        nonlocal now
        now += 1
        body = {"source_id": WEB_VNIC, "packet": tcp(80), "is_transient": transient}
        kept.run(id, TraceflowConfig.model_validate(body))

    for id, transient in (("lasting", False), ("old", True), ("newer", True)):
        run(id, transient)
    now += 1
    kept.get("old")
    run("another", False)
    assert sorted(kept.all()) == ["another", "lasting", "old"]
    run("third", False)
    run("third", False)
    with pytest.raises(Exception, match="has 3 traceflows, which is the limit"):
        run("one-more", True)
    bob = audit.actor.set("bob")
    run("bobs", True)
    audit.actor.reset(bob)
    assert sorted(kept.all()) == ["another", "bobs", "lasting", "third"]
    assert MAX_OF_USER == 100


async def test_a_patch_runs_it_with_other_fields(tiers: Manager) -> None:
    """The rest stays; where there is none it makes one. Without a `_revision`, and one higher after."""
    url = f"{INFRA}/traceflows/t"
    await tiers.call("PATCH", url, {"source_id": WEB_VNIC, "packet": tcp(80), "is_transient": False})
    await tiers.call("PATCH", url, {"packet": tcp(5432)})
    shown = await tiers.call("GET", url)
    assert (shown["_revision"], shown["is_transient"], shown["source_id"]) == (1, False, WEB_VNIC)
    assert (await tiers.call("GET", f"{url}/observations"))["results"][-1]["component_type"] == "LS"
    for body, said in (({"packet": {}}, "ip_header"), ({"id": "x"}, "not the id"), ({"color": 1}, "color")):
        answer = await tiers.answer("PATCH", url, body)
        assert (answer.status_code, said in answer.json()["error_message"]) == (400, True)
    assert await tiers.call("GET", url) == shown


async def test_an_auditor_reads_and_an_operator_runs(tiers: Manager) -> None:
    """And neither changes the policy."""
    await run(tiers, tcp(80))
    for role, runs in (("auditor", 403), ("security_op", 200)):
        account = {"role": role, "password": "a password of length"}
        await tiers.call("PUT", f"{VSFW}/users/someone", account)
        admin, tiers.rest.auth = tiers.rest.auth, ("someone", "a password of length")
        body = {"source_id": WEB_VNIC, "packet": tcp(80)}
        assert (await tiers.answer("PUT", f"{INFRA}/traceflows/{role}", body)).status_code == runs
        assert (await tiers.answer("GET", f"{INFRA}/traceflows/t/observations")).status_code == 200
        tiers.rest.auth = admin


def traced(objects: Realised, source: Card, destination: str, port: int) -> Trace:
    version = "ip_header" if "." in destination else "ipv6_header"
    data = {version: {"dst_ip": destination}, "transport_header": {"tcp_header": {"dst_port": port}}}
    return trace(objects, source, FieldsPacketData.model_validate(data), Now(datetime.min, datetime.min))


@given(st.lists(RANDOM_RULES, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_trace_says_what_the_whole_policy_says_and_why_all_of_it(rules: list[dict[str, Any]]) -> None:
    """Between two VMs and to an address outside: the verdicts of the evaluator over all there is, out and in;
    and for each field of the deciding rule something that the packet is."""
    realised = realise(policy(*rules))
    everything = state(whole(realised))
    cards = list(realised.cards.values())
    for source, destination in product(cards, ("10.0.0.1", "192.0.2.1", "10.0.0.7")):
        if destination in source.vnic.addresses:
            continue
        for port in (80, 22):
            found = traced(realised, source, destination, port)
            packet = Packet(ip_address(source.vnic.addresses[0]), ip_address(destination), 6, port)
            judged = [found.leaving, *found.arriving]
            for each in judged:
                expected = evaluate(everything, packet, each.card.vnic.id, each.direction)
                assert each.verdict == expected
                fields = {named.field for named in each.named}
                assert fields == ({"source_groups", "destination_groups", "scope"} if each.rule else set())
            arrives = found.leaving.passes and destination != "10.0.0.7"
            assert len(judged) == 1 + arrives
