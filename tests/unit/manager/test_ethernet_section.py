"""Ethernet sections: from REST to the rules, groups and vNICs that a host is sent."""

from typing import Any

import msgspec
import pytest

from tests.harness.policies import after
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Frame, evaluate_frame
from vsfwd.policy.model import Action, Direction, Frames, Rule
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import KINDS, Binding, Bindings

SECTION = f"{DOMAIN}/security-policies/l2"
DEFAULT = f"{DOMAIN}/security-policies/default-layer2-section"
DEFAULT_RULE = f"{DEFAULT}/rules/default-layer2-rule"
HOST = "33333333-0000-4000-8000-000000000001"
VMS = tuple(f"11111111-0000-4000-8000-00000000000{number}" for number in range(2))
VNICS = tuple(f"22222222-0000-4000-8000-00000000000{number}" for number in range(2))
MACS = ("02:00:00:00:00:00", "02:00:00:00:00:01")
ROUTER = "02:00:00:00:00:99"
LLDP = 0x88CC
LISTED = {"resource_type": "MACAddressExpression", "mac_addresses": ["02:00:00:00:00:99"]}
NAMED = {
    "resource_type": "Condition",
    "member_type": "VirtualMachine",
    "key": "Name",
    "operator": "EQUALS",
    "value": "vm1",
}


@pytest.fixture
async def serving(manager: Manager) -> Manager:
    """Two VMs, the first plugged on a host; a group of a MAC address and one of the other VM."""
    for number, vm in enumerate(VMS):
        vnic = {"id": VNICS[number], "mac": MACS[number]}
        await manager.call("PUT", f"{VSFW}/vms/{vm}", {"display_name": f"vm{number}", "vnics": [vnic]})
    await manager.call("PUT", f"{DOMAIN}/groups/routers", {"expression": [LISTED]})
    await manager.call("PUT", f"{DOMAIN}/groups/others", {"expression": [NAMED]})
    manager.register.add_host(HOST, "host")
    manager.vnics.bound(HOST, Bindings((Binding(VNICS[0], VMS[0], MACS[0], "veth0"),)))
    return manager


def sent(manager: Manager) -> DesiredState:
    """As the host reads it; nothing of it is refused."""
    objects = manager.register.hosts[HOST].level.wanted.objects
    state = after(DesiredState(), {kind: dict(objects[kind]) for kind in KINDS}, Kind.SNAPSHOT)
    assert state.refusals == ()
    return state


def verdict(manager: Manager, source: str, ethertype: int = LLDP, vlan: int | None = None) -> Action:
    frame = Frame(source, MACS[0], ethertype, vlan)
    return evaluate_frame(sent(manager), frame, VNICS[0], Direction.IN).action


def ethernet(**rule: Any) -> dict[str, Any]:
    return {"category": "Ethernet", "rules": [{"id": "r", "action": "ALLOW", **rule}]}


async def test_x35_groups_ethertypes_and_vlans_become_a_rule_for_frames(serving: Manager) -> None:
    """A host that reads it gives the verdicts the section asks for, and no others."""
    groups = [f"/infra/domains/default/groups/{name}" for name in ("routers", "others")]
    services = ["/infra/services/LLDP"]
    body = ethernet(source_groups=groups, services=services, vlan_ids=["10", "20-29"], direction="IN")
    await serving.call("PUT", SECTION, body)
    (rule,) = [rule for rule in sent(serving).rules.values() if rule.frames]
    assert rule.frames == Frames((LLDP,), ((10, 10), (20, 29)))
    for source, allowed in ((ROUTER, True), (MACS[1], True), ("02:00:00:00:00:77", False)):
        assert (verdict(serving, source, vlan=25) is Action.ALLOW) == allowed
    assert verdict(serving, ROUTER) is Action.DROP
    assert verdict(serving, ROUTER, vlan=11) is Action.DROP
    assert verdict(serving, ROUTER, LLDP + 1, vlan=10) is Action.DROP


async def test_a_host_sees_who_else_has_a_mac_address(serving: Manager) -> None:
    """A second vNIC with it is sent too, so that neither is in a group by it."""
    groups = ["/infra/domains/default/groups/others"]
    await serving.call("PUT", SECTION, ethernet(source_groups=groups, services=["/infra/services/LLDP"]))
    assert verdict(serving, MACS[1]) is Action.ALLOW
    twin = {"id": "22222222-0000-4000-8000-000000000009", "mac": MACS[1]}
    path = f"{VSFW}/vms/11111111-0000-4000-8000-000000000009"
    await serving.call("PUT", path, {"display_name": "twin", "vnics": [twin]})
    assert verdict(serving, MACS[1]) is Action.DROP


async def test_the_default_rule_as_shipped_is_not_sent(serving: Manager) -> None:
    """It says what is done anyway: IPv4, ARP and IPv6 pass on, the rest is dropped."""
    shown = await serving.call("GET", DEFAULT)
    assert (shown["category"], shown["is_default"], shown["_system_owned"]) == ("Ethernet", True, True)
    assert [rule["services"] for rule in shown["rules"]] == [
        [f"/infra/services/{name}" for name in ("IPv4", "ARP", "IPv6")]
    ]
    assert not any(rule.frames for rule in sent(serving).rules.values())
    for ethertype, action in ((0x0800, Action.ALLOW), (0x0806, Action.ALLOW), (LLDP, Action.DROP)):
        assert verdict(serving, ROUTER, ethertype) is action


async def test_x35_the_default_for_unknown_ethertypes_is_the_operators(serving: Manager) -> None:
    """ANY allows them all, as NSX does; DROP denies even ARP; more services are more EtherTypes."""
    await serving.call("PATCH", DEFAULT_RULE, {"services": ["ANY"]})
    assert verdict(serving, ROUTER) is Action.ALLOW
    await serving.call("PATCH", DEFAULT_RULE, {"action": "DROP"})
    assert verdict(serving, ROUTER, 0x0806) is Action.DROP
    body = {"action": "ALLOW", "services": ["/infra/services/ARP", "/infra/services/RARP"]}
    await serving.call("PATCH", DEFAULT_RULE, body)
    assert verdict(serving, ROUTER, 0x8035) is Action.ALLOW
    assert verdict(serving, ROUTER) is Action.DROP


async def test_the_default_rule_is_the_last_for_frames(serving: Manager) -> None:
    """Also behind a section with the highest number, and before every rule for packets."""
    await serving.call("PATCH", DEFAULT_RULE, {"services": ["ANY"]})
    body = ethernet(action="DROP", services=["/infra/services/LLDP"])
    await serving.call("PUT", SECTION, {**body, "sequence_number": 2**31 - 1})
    assert verdict(serving, ROUTER) is Action.DROP
    assert verdict(serving, ROUTER, 0x8035) is Action.ALLOW
    ordered = sorted(sent(serving).rules.values(), key=lambda rule: rule.order)
    assert [rule.frames is not None for rule in ordered[:2]] == [True, True]
    assert not any(rule.frames for rule in ordered[2:])


async def test_a_service_in_use_stays_of_its_layer(serving: Manager) -> None:
    """A service of an Ethernet rule cannot become one of TCP behind its back."""
    path = f"{INFRA}/services/mine"
    entry = {"resource_type": "EtherTypeServiceEntry", "ether_type": LLDP}
    await serving.call("PUT", path, {"service_entries": [entry]})
    await serving.call("PUT", SECTION, ethernet(services=["/infra/services/mine"]))
    other = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP"}
    answer = await serving.answer("PATCH", path, {"service_entries": [other]})
    assert (answer.status_code, "services.0: " in answer.text) == (400, True)


async def test_mac_addresses_are_read_in_any_case(serving: Manager) -> None:
    """And shown as the hosts write them."""
    listed = {**LISTED, "mac_addresses": ["02:00:00:00:00:AB"]}
    await serving.call("PATCH", f"{DOMAIN}/groups/routers", {"expression": [listed]})
    shown = await serving.call("GET", f"{DOMAIN}/groups/routers")
    assert shown["expression"][0]["mac_addresses"] == ["02:00:00:00:00:ab"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action": "reject"}, "action: "),
        ({"family": "ipv4"}, "services: "),
        ({"services": [{"protocol": 6}]}, "services: "),
        ({"sources": {"addresses": ["10.0.0.1"]}}, "addresses: "),
        ({"frames": {"ethertypes": [0x8100]}}, "ethertypes: "),
        ({"frames": {"ethertypes": [100]}}, "ethertypes: "),
        ({"frames": {"vlans": [[10, 4096]]}}, "vlans: "),
        ({"frames": {"vlans": [[11, 10]]}}, "vlans: "),
    ],
)
def test_a_host_refuses_what_is_no_rule_for_frames(fields: dict[str, Any], message: str) -> None:
    """Whoever wrote it: each field by name."""
    rule = {"name": "r", "section": "s", "order": [1], "action": "drop", "frames": {}, **fields}
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(rule, Rule)
