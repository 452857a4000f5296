"""What every installation has from the start: well-known services, the default section, and an empty
exclusion list."""

from typing import Final

from manager_stub.model import (
    MAX_SEQUENCE,
    Entity,
    Entry,
    ExcludeList,
    ICMPTypeServiceEntry,
    L4PortSetServiceEntry,
    Rule,
    SecurityPolicy,
    Service,
)

SECTIONS: Final = "/infra/domains/default/security-policies"
SERVICES: Final = "/infra/services"
EXCLUDE_LIST: Final = "/infra/settings/firewall/security/exclude-list"
DEFAULT_SECTION: Final = f"{SECTIONS}/default-layer3-section"
DEFAULT_RULE: Final = f"{DEFAULT_SECTION}/rules/default-layer3-rule"


def _ports(protocol: str, *ports: str) -> Entry:
    return L4PortSetServiceEntry.model_validate(
        {"resource_type": "L4PortSetServiceEntry", "l4_protocol": protocol, "destination_ports": list(ports)}
    )


def _icmp(protocol: str, icmp_type: int | None = None) -> Entry:
    return ICMPTypeServiceEntry.model_validate(
        {"resource_type": "ICMPTypeServiceEntry", "protocol": protocol, "icmp_type": icmp_type}
    )


_SERVICES: Final[dict[str, list[Entry]]] = {
    "SSH": [_ports("TCP", "22")],
    "HTTP": [_ports("TCP", "80")],
    "HTTPS": [_ports("TCP", "443")],
    "DNS": [_ports("TCP", "53"), _ports("UDP", "53")],
    "NTP": [_ports("UDP", "123")],
    "SMTP": [_ports("TCP", "25")],
    "SYSLOG": [_ports("TCP", "514"), _ports("UDP", "514")],
    "LDAP": [_ports("TCP", "389")],
    "RDP": [_ports("TCP", "3389")],
    "MySQL": [_ports("TCP", "3306")],
    "PostgreSQL": [_ports("TCP", "5432")],
    "DHCP-Server": [_ports("UDP", "67")],
    "DHCP-Client": [_ports("UDP", "68")],
    "DHCPv6_Server": [_ports("UDP", "547")],
    "DHCPv6_Client": [_ports("UDP", "546")],
    "ICMP-ALL": [_icmp("ICMPv4")],
    "ICMP_Echo_Request": [_icmp("ICMPv4", 8)],
    "IPv6-ICMP-ALL": [_icmp("ICMPv6")],
    "IPv6-ICMP_Echo_Request": [_icmp("ICMPv6", 128)],
    "IPv6-ICMP_Neighbor_Solicitation": [_icmp("ICMPv6", 135)],
    "IPv6-ICMP_Neighbor_Advertisement": [_icmp("ICMPv6", 136)],
}


def _default_rule(name: str, sequence_number: int, services: list[str]) -> Rule:
    return Rule(
        display_name=name,
        action="ALLOW",
        sequence_number=sequence_number,
        services=[f"{SERVICES}/{service}" for service in services] or ["ANY"],
    )


def objects() -> dict[str, Entity]:
    """By path, in the order in which they are numbered: the default rule is rule 1001."""
    nd = ["IPv6-ICMP_Neighbor_Solicitation", "IPv6-ICMP_Neighbor_Advertisement"]
    dhcp = ["DHCP-Server", "DHCP-Client", "DHCPv6_Server", "DHCPv6_Client"]
    found: dict[str, Entity] = {
        f"{SERVICES}/{name}": Service(display_name=name, service_entries=entries)
        for name, entries in _SERVICES.items()
    }
    found[EXCLUDE_LIST] = ExcludeList()
    found[DEFAULT_SECTION] = SecurityPolicy(
        display_name="Default Layer3 Section", sequence_number=MAX_SEQUENCE, category="Application"
    )
    found[DEFAULT_RULE] = _default_rule("Default Layer3 Rule", MAX_SEQUENCE, [])
    found[f"{DEFAULT_SECTION}/rules/default-dhcp"] = _default_rule("Default Rule DHCP", 20, dhcp)
    found[f"{DEFAULT_SECTION}/rules/default-ndp"] = _default_rule("Default Rule NDP", 10, nd)
    return found
