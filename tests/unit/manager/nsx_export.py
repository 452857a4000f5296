"""An export of an NSX manager, as its hierarchical API answers, and places in it where tests put something
else."""

from typing import Any

from manager_stub.api.imports import imported as imported_in_time
from manager_stub.api.imports.report import Import
from manager_stub.world import World
from tests.unit.manager.rest import VSFW

IMPORT = f"{VSFW}/policy/import"
SECTION = "/infra/domains/default/security-policies/web"
DEFAULTS = "/infra/domains/default/security-policies/default-layer3-section"
GROUPS = "/infra/domains/default/groups"

GROUP = "Domain:default/Group:web"
POLICY = "Domain:default/SecurityPolicy:web"
RULE = f"{POLICY}/Rule:in"
DEFAULT = "Domain:default/SecurityPolicy:default-layer3-section"
"""Places in an export, see `below`."""


def imported(world: World, tree: Any) -> Import:
    return imported_in_time(world, tree, lambda: None)


def nsx(kind: str, id: str, **fields: Any) -> dict[str, Any]:
    """A child as an NSX manager exports it, with what it says of every object."""
    said = {
        "resource_type": kind,
        "id": id,
        "display_name": id,
        "path": f"/somewhere/{id}",
        "relative_path": id,
        "parent_path": "/somewhere",
        "remote_path": "",
        "unique_id": "5a59778c-47d4-4444-a529-3f0652f3d422",
        "realization_id": "5a59778c-47d4-4444-a529-3f0652f3d422",
        "owner_id": "9d96be5a-afca-498c-8c04-8ca4514f7b40",
        "origin_site_id": "9d96be5a-afca-498c-8c04-8ca4514f7b40",
        "marked_for_delete": False,
        "overridden": False,
        "_create_time": 1688751880285,
        "_create_user": "admin",
        "_last_modified_time": 1689007787614,
        "_last_modified_user": "admin",
        "_system_owned": False,
        "_protection": "NOT_PROTECTED",
        "_revision": 7,
    }
    return {"resource_type": f"Child{kind}", "marked_for_delete": False, kind: said | fields}


def rule(id: str, **fields: Any) -> dict[str, Any]:
    said = {
        "action": "ALLOW",
        "source_groups": ["ANY"],
        "destination_groups": [f"{GROUPS}/web"],
        "services": ["/infra/services/HTTPS"],
        "profiles": ["ANY"],
        "scope": ["ANY"],
        "logged": False,
        "disabled": False,
        "sources_excluded": False,
        "destinations_excluded": False,
        "direction": "IN_OUT",
        "ip_protocol": "IPV4_IPV6",
        "is_default": False,
        "rule_id": 1011,
        "sequence_number": 10,
    }
    return nsx("Rule", id, **said | fields)


def condition(**fields: Any) -> dict[str, Any]:
    said = {"member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS", "value": "tier|web"}
    return {"resource_type": "Condition", "id": "c", "_protection": "NOT_PROTECTED"} | said | fields


def export() -> Any:
    """One of each kind that has a counterpart."""
    section = {
        "category": "Application",
        "sequence_number": 5,
        "stateful": True,
        "tcp_strict": False,
        "locked": False,
        "lock_modified_time": 0,
        "internal_section_id": "x",
        "rule_count": 2,
        "connectivity_preference": "NONE",
        "logging_enabled": False,
        "scheduler_path": "/infra/firewall-schedulers/week",
    }
    entry = {"l4_protocol": "TCP", "source_ports": [], "destination_ports": ["8080"]}
    or_ = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR", "marked_for_delete": False}
    nested = {"resource_type": "NestedExpression", "expressions": [condition()]}
    addresses = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.0/24", "fd00::1"]}
    below = [
        nsx(
            "Group",
            "web",
            expression=[condition(), or_, nested, or_, addresses],
            tags=[{"scope": "a", "tag": "b"}],
            extended_expression=[],
            reference=False,
        ),
        nsx(
            "SecurityPolicy",
            "web",
            **section,
            children=[
                rule("in"),
                rule("out", direction="OUT", services=["/infra/services/alt"], sequence_number=20),
            ],
        ),
        nsx(
            "SecurityPolicy",
            "default-layer3-section",
            is_default=True,
            category="Application",
            display_name="Default Layer3 Section",
            sequence_number=999999,
            children=[
                rule("default_rule_NDP", is_default=True, sequence_number=25000, destination_groups=["ANY"]),
                rule(
                    "default-layer3-rule",
                    is_default=True,
                    action="DROP",
                    logged=True,
                    services=["ANY"],
                    destination_groups=["ANY"],
                    sequence_number=2147483647,
                ),
            ],
        ),
    ]
    ports = nsx("ServiceEntry", "alt-8080", **entry)
    ports["ServiceEntry"]["resource_type"] = "L4PortSetServiceEntry"
    return {
        "resource_type": "Infra",
        "id": "infra",
        "display_name": "infra",
        "path": "/infra",
        "_revision": 1,
        "children": [
            nsx("Domain", "default", children=below),
            nsx("Service", "alt", service_type="NON_ETHER", is_default=False, children=[ports]),
            nsx("Service", "HTTPS", is_default=True, _system_owned=True, service_entries=[{"x": 1}]),
            nsx(
                "PolicyFirewallScheduler",
                "week",
                days=["MONDAY"],
                time_interval=[],
                recurring=True,
                start_date="01/01/2026",
                timezone="UTC",
            ),
            nsx("Segment", "blue", overlay_id=71, vlan_ids=[]),
            nsx("PolicyExcludeList", "exclude-list", members=[f"{GROUPS}/web"]),
        ],
    }


def below(tree: Any, where: str) -> Any:
    """The object at a place, as in "Domain:default/Group:web"; the root where that is empty."""
    for step in filter(None, where.split("/")):
        kind, id = step.split(":")
        tree = next(child[kind] for child in tree["children"] if child.get(kind, {}).get("id") == id)
    return tree


def faulty(where: str, put: dict[str, Any]) -> Any:
    tree = export()
    node = below(tree, where)
    for key, value in put.items():
        if key == "children+":
            node.setdefault("children", []).append(value)
        else:
            node[key] = value
    return tree
