"""What every installation has from the start: well-known services (under NSX's names where it has one, and
those of IANA's registry, see `iana`), the default sections, the default session
timers, and an empty exclusion list."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from manager_stub import iana
from manager_stub.model import (
    ETHERNET,
    MAX_SEQUENCE,
    ALGTypeServiceEntry,
    Entity,
    Entry,
    EtherTypeServiceEntry,
    ExcludeList,
    ICMPTypeServiceEntry,
    IGMPTypeServiceEntry,
    IPProtocolServiceEntry,
    L4PortSetServiceEntry,
    Rule,
    SecurityPolicy,
    Service,
    SessionTimerProfile,
)

SECTIONS: Final = "/infra/domains/default/security-policies"
SERVICES: Final = "/infra/services"
EXCLUDE_LIST: Final = "/infra/settings/firewall/security/exclude-list"
DEFAULT_TIMERS: Final = "/infra/firewall-session-timer-profiles/default-session-timer-profile"
"""For every vNIC that no binding gives another profile."""
DEFAULT_SECTION: Final = f"{SECTIONS}/default-layer3-section"
DEFAULT_L2_SECTION: Final = f"{SECTIONS}/default-layer2-section"
DEFAULT_L2_RULE: Final = f"{DEFAULT_L2_SECTION}/rules/default-layer2-rule"
DEFAULT_RULE: Final = f"{DEFAULT_SECTION}/rules/default-layer3-rule"


def _ports(protocol: str, *ports: str) -> Entry:
    return L4PortSetServiceEntry.model_validate(
        {"resource_type": "L4PortSetServiceEntry", "l4_protocol": protocol, "destination_ports": list(ports)}
    )


def _alg(alg: str, port: str) -> Entry:
    return ALGTypeServiceEntry.model_validate(
        {"resource_type": "ALGTypeServiceEntry", "alg": alg, "destination_ports": [port]}
    )


def _icmp(protocol: str, icmp_type: int | None = None) -> Entry:
    return ICMPTypeServiceEntry.model_validate(
        {"resource_type": "ICMPTypeServiceEntry", "protocol": protocol, "icmp_type": icmp_type}
    )


def _ether(ether_type: int) -> Entry:
    return EtherTypeServiceEntry(resource_type="EtherTypeServiceEntry", ether_type=ether_type)


def _protocol(number: int) -> Entry:
    return IPProtocolServiceEntry(resource_type="IPProtocolServiceEntry", protocol_number=number)


_SERVICES: Final[dict[str, list[Entry]]] = {
    "SSH": [_ports("TCP", "22")],
    "HTTP": [_ports("TCP", "80")],
    "HTTPS": [_ports("TCP", "443")],
    "DNS": [_ports("TCP", "53"), _ports("UDP", "53")],
    "DNS-TCP": [_ports("TCP", "53")],
    "DNS-UDP": [_ports("UDP", "53")],
    "NTP": [_ports("UDP", "123")],
    "SMTP": [_ports("TCP", "25")],
    "SYSLOG": [_ports("TCP", "514"), _ports("UDP", "514")],
    "SNMP": [_ports("UDP", "161")],
    "LDAP": [_ports("TCP", "389")],
    "LDAP-over-SSL": [_ports("TCP", "636")],
    "LDAP-UDP": [_ports("UDP", "389")],
    "Kerberos": [_ports("TCP", "88"), _ports("UDP", "88")],
    "RDP": [_ports("TCP", "3389")],
    "MS-SQL-S": [_ports("TCP", "1433")],
    "MySQL": [_ports("TCP", "3306")],
    "Oracle": [_ports("TCP", "1521")],
    "PostgreSQL": [_ports("TCP", "5432")],
    "DHCP-Server": [_ports("UDP", "67")],
    "DHCP-Client": [_ports("UDP", "68")],
    "DHCPv6_Server": [_ports("UDP", "547")],
    "DHCPv6_Client": [_ports("UDP", "546")],
    "ICMP-ALL": [_icmp("ICMPv4")],
    "ICMP_Echo_Request": [_icmp("ICMPv4", 8)],
    "ICMP_Echo_Reply": [_icmp("ICMPv4", 0)],
    "ICMP_Destination_Unreachable": [_icmp("ICMPv4", 3)],
    "ICMP_Time_Exceeded": [_icmp("ICMPv4", 11)],
    "IPv6-ICMP-ALL": [_icmp("ICMPv6")],
    "IPv6-ICMP_Echo_Request": [_icmp("ICMPv6", 128)],
    "IPv6-ICMP_Echo_Reply": [_icmp("ICMPv6", 129)],
    "IPv6-ICMP_Neighbor_Solicitation": [_icmp("ICMPv6", 135)],
    "IPv6-ICMP_Neighbor_Advertisement": [_icmp("ICMPv6", 136)],
    "IGMP": [IGMPTypeServiceEntry(resource_type="IGMPTypeServiceEntry")],
    "GRE": [_protocol(47)],
    "ESP": [_protocol(50)],
    "AH": [_protocol(51)],
    "OSPF": [_protocol(89)],
    "VRRP": [_protocol(112)],
    "SCTP": [_protocol(132)],
    "IPv4": [_ether(0x0800)],
    "ARP": [_ether(0x0806)],
    "IPv6": [_ether(0x86DD)],
    "RARP": [_ether(0x8035)],
    "LLDP": [_ether(0x88CC)],
    "FTP": [_alg("FTP", "21")],
    "TFTP": [_alg("TFTP", "69")],
}


def says_nothing_new(path: str, rule: Rule) -> bool:
    """Whether this is the default layer 2 rule as shipped, which is what the datapath does where no Ethernet
    rule matches: not sent, it costs no packet anything."""
    shipped = objects()[DEFAULT_L2_RULE] if path == DEFAULT_L2_RULE else None
    return isinstance(shipped, Rule) and (rule.action, rule.logged, rule.services) == (
        shipped.action,
        shipped.logged,
        shipped.services,
    )


def _default_rule(name: str, sequence_number: int, services: list[str]) -> Rule:
    return Rule(
        display_name=name,
        action="ALLOW",
        sequence_number=sequence_number,
        services=[f"{SERVICES}/{service}" for service in services] or ["ANY"],
    )


def _of_iana() -> Iterator[tuple[str, list[Entry]]]:
    """Those whose name is not one of the above, in whatever letters."""
    taken = {name.casefold() for name in _SERVICES}
    for name, ports in iana.registry().items():
        if name.casefold() not in taken:
            yield name, [_ports(protocol, *numbers) for protocol, numbers in ports.items()]


@cache
def objects() -> Mapping[str, Entity]:
    """By path, in the order in which they are numbered: the default rule is rule 1001."""
    nd = ["IPv6-ICMP_Neighbor_Solicitation", "IPv6-ICMP_Neighbor_Advertisement"]
    dhcp = ["DHCP-Server", "DHCP-Client", "DHCPv6_Server", "DHCPv6_Client"]
    found: dict[str, Entity] = {
        f"{SERVICES}/{name}": Service(display_name=name, service_entries=entries)
        for name, entries in sorted((*_SERVICES.items(), *_of_iana()), key=lambda service: service[0])
    }
    found[EXCLUDE_LIST] = ExcludeList()
    found[DEFAULT_TIMERS] = SessionTimerProfile(display_name="default")
    found[DEFAULT_SECTION] = SecurityPolicy(
        display_name="Default Layer3 Section", sequence_number=MAX_SEQUENCE, category="Application"
    )
    found[DEFAULT_RULE] = _default_rule("Default Layer3 Rule", MAX_SEQUENCE, [])
    found[f"{DEFAULT_SECTION}/rules/default-dhcp"] = _default_rule("Default Rule DHCP", 20, dhcp)
    found[f"{DEFAULT_SECTION}/rules/default-ndp"] = _default_rule("Default Rule NDP", 10, nd)
    found[DEFAULT_L2_SECTION] = SecurityPolicy(
        display_name="Default Layer2 Section", sequence_number=MAX_SEQUENCE, category=ETHERNET
    )
    found[DEFAULT_L2_RULE] = _default_rule("Default Layer2 Rule", MAX_SEQUENCE, ["IPv4", "ARP", "IPv6"])
    return found
