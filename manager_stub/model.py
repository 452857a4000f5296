"""The objects of the REST interface, in the shape of the NSX Policy API: what a body may say.

A model here is what a caller sends, what the store keeps and what the pure modules read. Unknown fields are
refused; fields that only the manager sets (`READ_ONLY`) are accepted and dropped, so that an object that
was read can be written back. Objects name each other by path; whether the path exists is the register's
question, not the model's.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from vsfwd.policy.model import (
    MAX_TIMER,
    MIN_ESTABLISHED,
    MIN_ETHERTYPE,
    MIN_TIMER,
    TAG_ETHERTYPES,
    is_uuid,
    parse_address,
)

ANY: Final = "ANY"
MAX_SEQUENCE: Final = 2**31 - 1
ETHERNET: Final = "Ethernet"
CATEGORIES: Final = (ETHERNET, "Emergency", "Infrastructure", "Environment", "Application")
READ_ONLY: Final = frozenset(
    {"path", "relative_path", "parent_path", "unique_id", "realization_id", "rule_id", "is_default"}
    | {"marked_for_delete", "overridden", "_system_owned", "_protection", "excluded_vnics"}
    | {"_create_time", "_create_user", "_last_modified_time", "_last_modified_user"}
)


def _check_address(text: str) -> str:
    parse_address(text)
    return text


def _check_port(text: str) -> str:
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)) or not text.isascii():
        raise ValueError(f"{text!r} is not a port or a range of ports")
    if not int(low) <= int(high or low) <= 65535:
        raise ValueError(f"{text!r} is not a range within 0-65535")
    return text


def _check_one_port(text: str) -> str:
    if not _check_port(text).isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is not one port")
    return text


def _check_vlan(text: str) -> str:
    if not text.isascii() or not text.isdecimal() or not 0 <= int(text) <= 4094:
        raise ValueError(f"{text!r} is not a VLAN id in 0-4094")
    return text


def _check_vlans(text: str) -> str:
    low, dash, high = text.partition("-")
    _check_vlan(low)
    if dash and int(low) > int(_check_vlan(high)):
        raise ValueError(f"{text!r} is not a range of VLAN ids")
    return text


def _check_ethertype(number: int) -> int:
    if not MIN_ETHERTYPE <= number <= 0xFFFF:
        raise ValueError(f"{number} is not an EtherType, which is {MIN_ETHERTYPE}-65535")
    if number in TAG_ETHERTYPES:
        raise ValueError(f"{number} is that of a VLAN tag: say vlan_ids in the rule")
    return number


def _check_mac(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text.lower()):
        raise ValueError(f"{text!r} is not a MAC address with colons")
    return text.lower()


def _check_host_address(text: str) -> str:
    prefixes = parse_address(text)
    if "/" in text or "-" in text:
        raise ValueError(f"{text!r} is not the address of one host")
    if prefixes[0].bits == 0:
        raise ValueError(f"{text!r} is not the address of a host")
    return str(ip_address(text))  # one text for one address: equal addresses are found by it


def _check_uuid(text: str) -> str:
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not a UUID in lower case")
    return text


Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")]
Uuid = Annotated[str, AfterValidator(_check_uuid)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9_.:/-]{1,1023}$")]
Address = Annotated[str, Field(max_length=100), AfterValidator(_check_address)]
HostAddress = Annotated[str, Field(max_length=100), AfterValidator(_check_host_address)]
Port = Annotated[str, Field(max_length=11), AfterValidator(_check_port)]
Byte = Annotated[int, Field(ge=0, le=255)]
SpoofGuard = Literal["DISABLED", "TOFU", "MANUAL"]
Sequence = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class Reference(NamedTuple):
    """Another object, named in a field; `kind` is the kind it must be of."""

    field: str
    path: str
    kind: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tag(Strict):
    scope: Annotated[Text, Field(max_length=128)] = ""
    tag: Annotated[Text, Field(max_length=256)] = ""


class Entity(Strict):
    """What every stored object has. `id` and `_revision` in a body are checked by the API, never stored."""

    id: Id | None = None
    display_name: Annotated[Text, Field(min_length=1)] | None = None
    description: Annotated[str, Field(max_length=1024)] = ""
    tags: Annotated[list[Tag], Field(max_length=30)] = []
    revision: Annotated[int | None, Field(alias="_revision")] = None

    @model_validator(mode="before")
    @classmethod
    def _drop_read_only(cls, body: Any) -> Any:
        if isinstance(body, dict):
            return {key: value for key, value in body.items() if key not in READ_ONLY}
        return body

    def references(self) -> Iterator[Reference]:
        """The objects this one names."""
        return iter(())


# Groups


class Condition(Strict):
    resource_type: Literal["Condition"]
    member_type: Literal["VirtualMachine", "Segment"]
    key: Literal["Name", "Tag"]
    operator: Literal["EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS"]
    value: Annotated[str, Field(min_length=1, max_length=512)]


class ConjunctionOperator(Strict):
    resource_type: Literal["ConjunctionOperator"]
    conjunction_operator: Literal["AND", "OR"]


class MACAddressExpression(Strict):
    resource_type: Literal["MACAddressExpression"]
    mac_addresses: Annotated[list[Annotated[str, AfterValidator(_check_mac)]], Field(min_length=1)]


class IPAddressExpression(Strict):
    resource_type: Literal["IPAddressExpression"]
    ip_addresses: Annotated[list[Address], Field(min_length=1)]


Expression = Annotated[
    Condition | ConjunctionOperator | IPAddressExpression | MACAddressExpression,
    Field(discriminator="resource_type"),
]


class Group(Entity):
    resource_type: Literal["Group"] = "Group"
    expression: list[Expression] = []

    @field_validator("expression")
    @classmethod
    def _terms_alternate_with_operators(cls, expression: list[Expression]) -> list[Expression]:
        for index, item in enumerate(expression):
            if isinstance(item, ConjunctionOperator) != bool(index % 2):
                raise ValueError(f"{index}: conditions or addresses and AND/OR operators must take turns")
        if expression and isinstance(expression[-1], ConjunctionOperator):
            raise ValueError(f"{len(expression) - 1}: an operator at the end joins nothing")
        for index, item in enumerate(expression):
            if isinstance(item, ConjunctionOperator) and item.conjunction_operator == "AND":
                sides = (expression[index - 1], expression[index + 1])
                if not all(isinstance(side, Condition) for side in sides):
                    raise ValueError(f"{index}: addresses can only be joined with OR")
        return expression


# Services


class ServiceEntry(Strict):
    id: Id | None = None
    display_name: Text | None = None


class L4PortSetServiceEntry(ServiceEntry):
    resource_type: Literal["L4PortSetServiceEntry"]
    l4_protocol: Literal["TCP", "UDP"]
    destination_ports: Annotated[list[Port], Field(max_length=15)] = []
    source_ports: Annotated[list[Port], Field(max_length=0)] = []
    """Not supported yet: accepted only when empty."""


class ICMPTypeServiceEntry(ServiceEntry):
    resource_type: Literal["ICMPTypeServiceEntry"]
    protocol: Literal["ICMPv4", "ICMPv6"]
    icmp_type: Byte | None = None
    icmp_code: Byte | None = None

    @model_validator(mode="after")
    def _code_needs_type(self) -> "ICMPTypeServiceEntry":
        if self.icmp_code is not None and self.icmp_type is None:
            raise ValueError("icmp_code needs icmp_type")
        return self


class EtherTypeServiceEntry(ServiceEntry):
    resource_type: Literal["EtherTypeServiceEntry"]
    ether_type: Annotated[int, AfterValidator(_check_ethertype)]


class ALGTypeServiceEntry(ServiceEntry):
    resource_type: Literal["ALGTypeServiceEntry"]
    alg: Literal["FTP", "TFTP"]
    destination_ports: Annotated[
        list[Annotated[str, AfterValidator(_check_one_port)]], Field(min_length=1, max_length=1)
    ]
    source_ports: Annotated[list[Port], Field(max_length=0)] = []


class IPProtocolServiceEntry(ServiceEntry):
    resource_type: Literal["IPProtocolServiceEntry"]
    protocol_number: Byte


Entry = Annotated[
    L4PortSetServiceEntry
    | ALGTypeServiceEntry
    | ICMPTypeServiceEntry
    | IPProtocolServiceEntry
    | EtherTypeServiceEntry,
    Field(discriminator="resource_type"),
]


class Service(Entity):
    resource_type: Literal["Service"] = "Service"
    service_entries: Annotated[list[Entry], Field(min_length=1, max_length=50)]

    @field_validator("service_entries")
    @classmethod
    def _of_one_layer(cls, entries: list[Entry]) -> list[Entry]:
        if len({isinstance(entry, EtherTypeServiceEntry) for entry in entries}) > 1:
            raise ValueError("EtherTypes and what is within IP cannot be one service")
        return entries


# Sections and rules


class Rule(Entity):
    resource_type: Literal["Rule"] = "Rule"
    source_groups: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    sources_excluded: bool = False
    destination_groups: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    destinations_excluded: bool = False
    services: Annotated[list[str], Field(max_length=128)] = []
    """Paths, or ANY. Empty: `service_entries` only, and any service when there are none either."""
    service_entries: Annotated[list[Entry], Field(max_length=50)] = []
    scope: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    direction: Literal["IN", "OUT", "IN_OUT"] = "IN_OUT"
    action: Literal["ALLOW", "DROP", "REJECT"]
    ip_protocol: Literal["IPV4", "IPV6", "IPV4_IPV6"] = "IPV4_IPV6"
    logged: bool = False
    disabled: bool = False
    vlan_ids: Annotated[list[Annotated[str, AfterValidator(_check_vlans)]], Field(max_length=128)] = []
    """Ids and ranges, of an Ethernet rule only. Empty: frames without a tag. NSX has no word for it."""
    sequence_number: Sequence | None = None
    """None: a rule in a list takes its place in the list, a rule alone comes first."""
    notes: Annotated[str, Field(max_length=2048)] = ""

    @field_validator("source_groups", "destination_groups")
    @classmethod
    def _paths_addresses_or_any(cls, values: list[str]) -> list[str]:
        _alone_if_any(values)
        for value in values:
            if value != ANY and not value.startswith("/"):
                _check_address(value)
        return values

    @field_validator("services", "scope")
    @classmethod
    def _paths_or_any(cls, values: list[str]) -> list[str]:
        _paths(values)
        return values

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Rule":
        if self.sources_excluded and self.source_groups == [ANY]:
            raise ValueError("sources_excluded: nothing is left when ANY is excluded")
        if self.destinations_excluded and self.destination_groups == [ANY]:
            raise ValueError("destinations_excluded: nothing is left when ANY is excluded")
        if self.service_entries and self.services == [ANY]:
            raise ValueError("services: ANY beside service_entries; leave one of them out")
        return self

    def references(self) -> Iterator[Reference]:
        for field in ("source_groups", "destination_groups", "scope", "services"):
            for index, value in enumerate(getattr(self, field)):
                if value.startswith("/"):
                    yield Reference(
                        f"{field}.{index}", value, "services" if field == "services" else "groups"
                    )


def _alone_if_any(values: list[str]) -> None:
    if ANY in values and len(values) > 1:
        raise ValueError("ANY stands alone")


def _paths(values: list[str]) -> None:
    _alone_if_any(values)
    for value in values:
        if value != ANY and not value.startswith("/"):
            raise ValueError(f"{value!r} is neither a path nor ANY")


class SecurityPolicy(Entity):
    """A section. Its scope, where it has one, takes the place of its rules' scopes, as in NSX."""

    resource_type: Literal["SecurityPolicy"] = "SecurityPolicy"
    category: Literal["Ethernet", "Emergency", "Infrastructure", "Environment", "Application"] = "Application"
    sequence_number: Sequence = 0
    scope: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    stateful: bool = True
    tcp_strict: bool = True
    """Only a SYN begins a TCP connection. Unless said otherwise, which is the other way round in NSX."""
    existing_flows: Literal["RECHECK", "KEEP", "CUT"] = "RECHECK"
    """Of the section's flows when the policy changes. NSX has no word for it."""
    rules: list[Rule] | None = None
    """In a body only; rules are stored as objects of their own."""

    @field_validator("scope")
    @classmethod
    def _paths_or_any(cls, values: list[str]) -> list[str]:
        _paths(values)
        return values

    @model_validator(mode="after")
    def _stateless_has_no_flows(self) -> "SecurityPolicy":
        if not self.stateful and self.tcp_strict and "tcp_strict" in self.model_fields_set:
            raise ValueError("tcp_strict: a section that is not stateful knows no connections")
        if not self.stateful and self.existing_flows != "RECHECK":
            raise ValueError("existing_flows: a section that is not stateful has none")
        return self

    def references(self) -> Iterator[Reference]:
        for index, value in enumerate(self.scope):
            if value != ANY:
                yield Reference(f"scope.{index}", value, "groups")


class ExcludeList(Entity):
    """VMs on which nothing is enforced, by themselves or as members of groups. Those whose address a group
    lists are no members: an address is nothing to switch a firewall off by."""

    resource_type: Literal["PolicyExcludeList"] = "PolicyExcludeList"
    members: Annotated[list[Path], Field(max_length=1000)] = []

    def references(self) -> Iterator[Reference]:
        for index, value in enumerate(self.members):
            kind = "vms" if value.startswith("/vsfw/vms/") else "groups"
            yield Reference(f"members.{index}", value, kind)


# Session timers

Timer = Annotated[int, Field(ge=MIN_TIMER, le=MAX_TIMER)]
"""Seconds, within NSX's limits."""


class SessionTimerProfile(Entity):
    """How long flows live after a packet, by what they have seen. What is not said is NSX's default."""

    resource_type: Literal["PolicyFirewallSessionTimerProfile"] = "PolicyFirewallSessionTimerProfile"
    tcp_first_packet: Timer = 120
    tcp_opening: Timer = 30
    tcp_established: Annotated[int, Field(ge=MIN_ESTABLISHED, le=MAX_TIMER)] = 43200
    tcp_closing: Timer = 120
    tcp_finwait: Timer = 45
    tcp_closed: Timer = 20
    udp_first_packet: Timer = 60
    udp_single: Timer = 30
    udp_multiple: Timer = 60
    icmp_first_packet: Timer = 20
    icmp_error_reply: Timer = 10


TIMERS: Final = tuple(
    name for name in SessionTimerProfile.model_fields if name.startswith(("tcp", "udp", "icmp"))
)


class SessionTimerBinding(Entity):
    """Gives the members of the group in its path a profile. Of several that would, the one with the lowest
    number does, then the one whose path is first."""

    resource_type: Literal["PolicyFirewallSessionTimerProfileBindingMap"] = (
        "PolicyFirewallSessionTimerProfileBindingMap"
    )
    firewall_session_timer_profile_path: Path
    sequence_number: Sequence = 0

    def references(self) -> Iterator[Reference]:
        field = "firewall_session_timer_profile_path"
        yield Reference(field, self.firewall_session_timer_profile_path, "firewall-session-timer-profiles")


# Inventory


class Segment(Entity):
    resource_type: Literal["Segment"] = "Segment"
    overlay_id: Annotated[int, Field(ge=1, lt=2**24)] | None = None
    """VXLAN network identifier."""
    vlan_ids: Annotated[list[Annotated[str, AfterValidator(_check_vlan)]], Field(max_length=1)] = []
    spoofguard: SpoofGuard = "DISABLED"
    """Of its vNICs, where they have none of their own."""

    @model_validator(mode="after")
    def _overlay_or_vlan(self) -> "Segment":
        if self.overlay_id is not None and self.vlan_ids:
            raise ValueError("vlan_ids: a segment with an overlay_id has none")
        return self


class Vnic(Strict):
    id: Uuid
    mac: Annotated[str, Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
    segment_path: Path | None = None
    addresses: Annotated[list[HostAddress], Field(max_length=256)] = []
    spoofguard: SpoofGuard | None = None
    router: bool = False
    dhcp_server: bool = False


class Vm(Entity):
    resource_type: Literal["VirtualMachine"] = "VirtualMachine"
    vnics: Annotated[list[Vnic], Field(max_length=10)] = []

    @field_validator("vnics")
    @classmethod
    def _each_once(cls, vnics: list[Vnic]) -> list[Vnic]:
        if len({vnic.id for vnic in vnics}) != len(vnics):
            raise ValueError("a vNIC is there twice")
        return vnics

    def references(self) -> Iterator[Reference]:
        for index, vnic in enumerate(self.vnics):
            if vnic.segment_path is not None:
                yield Reference(f"vnics.{index}.segment_path", vnic.segment_path, "segments")


class Cluster(Entity):
    resource_type: Literal["Cluster"] = "Cluster"
    hosts: list[Uuid] = []

    def references(self) -> Iterator[Reference]:
        for index, host in enumerate(self.hosts):
            yield Reference(f"hosts.{index}", f"/vsfw/hosts/{host}", "hosts")


class Datacenter(Entity):
    resource_type: Literal["Datacenter"] = "Datacenter"
    clusters: list[Id] = []

    def references(self) -> Iterator[Reference]:
        for index, cluster in enumerate(self.clusters):
            yield Reference(f"clusters.{index}", f"/vsfw/clusters/{cluster}", "clusters")
