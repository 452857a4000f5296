"""The objects of the policy, as the manager sends them and as the compiler reads them.

A host is sent three kinds of objects, each under its id: *rules*, *groups* (the literal addresses of a group)
and *vNICs* (addresses, segment and the groups a vNIC is a member of). Membership stands at the vNIC, so that
a tag that changes costs one small object whatever the size of the group.

These structs validate at the wire: msgspec checks types and refuses unknown fields; `__post_init__` checks
what a type cannot say. Inside the daemon they are trusted."""

import ipaddress
import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from uuid import UUID

import msgspec

MAX_HOST_VNICS: Final = 1024
"""vNICs of one host: SLOTS in bpf/types.h."""
MAX_RULES: Final = 16384
"""Rules a host can hold, counted in lines (`Rule.lines`): the width of a row of bits in the datapath (`RULES`
in bpf/types.h)."""

MAX_CLASSES: Final = 65536
"""Classes of addresses a host is to tell apart: sets of groups and prefixes that have an address. Each is two
rows of bits in the datapath: 270 MB of the kernel's memory, twice while a policy takes the place of another.
The manager sees to it."""

MAX_SEGMENT: Final = 2**32 - 2


class Action(StrEnum):
    ALLOW = "allow"
    DROP = "drop"
    REJECT = "reject"
    JUMP_TO_APPLICATION = "jump_to_application"
    """Decides nothing: the rules of the category Application are asked next."""


APPLICATION: Final = 4
"""The place of the category Application: what a rule's `order` begins with there. Later numbers are those of
the default rules."""


class Tracking(StrEnum):
    """What a rule wants to know of connections. `strict`: a TCP connection begins with its SYN; `loose`: one
    that began elsewhere is picked up in the middle; `stateless`: nothing, each packet is judged by itself."""

    STRICT = "strict"
    LOOSE = "loose"
    STATELESS = "stateless"


class ExistingFlows(StrEnum):
    """What becomes of a rule's flows when the policy of the host changes. `recheck`: each is judged again, as
    its first packet; `keep`: one that was answered goes on under the decision it had; `cut`: it ends."""

    RECHECK = "recheck"
    KEEP = "keep"
    CUT = "cut"


class Alg(StrEnum):
    """Application layer gateways: protocols whose control connection announces data connections, which then
    pass once, under the rule that allowed it."""

    FTP = "ftp"
    TFTP = "tftp"


class Direction(StrEnum):
    """Seen from the workload the rule is applied to."""

    IN = "in"
    OUT = "out"
    INOUT = "inout"


class Family(StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    BOTH = "both"


TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
IGMP: Final = 2
ICMPV6: Final = 58
ECHO_REQUEST: Final = {ICMP: 8, ICMPV6: 128}
"""Types of RFC 792 and RFC 4443."""


class Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything on the wire: immutable, and a field nobody knows is an error."""


class Service(Object, frozen=True):
    """One kind of traffic. `ports` are destination ports, `source_ports` those of who begins; inclusive
    ranges; empty means every port.

    Ports need TCP or UDP; `icmp_type` needs ICMP or ICMPv6; `icmp_code` needs `icmp_type`; `alg` needs one
    port, of TCP for FTP and of UDP for TFTP.
    """

    protocol: int
    ports: tuple[tuple[int, int], ...] = ()
    source_ports: tuple[tuple[int, int], ...] = ()
    icmp_type: int | None = None
    icmp_code: int | None = None
    alg: Alg | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.protocol <= 255:
            raise ValueError(f"protocol: {self.protocol} is not in 0-255")
        for field, ports in (("ports", self.ports), ("source_ports", self.source_ports)):
            if ports and self.protocol not in (TCP, UDP):
                raise ValueError(f"{field}: protocol {self.protocol} has none")
            for low, high in ports:
                if not 0 <= low <= high <= 65535:
                    raise ValueError(f"{field}: {low}-{high} is not a range within 0-65535")
        if self.icmp_type is not None and self.protocol not in (ICMP, ICMPV6):
            raise ValueError(f"icmp_type: protocol {self.protocol} is neither ICMP nor ICMPv6")
        if self.icmp_code is not None and self.icmp_type is None:
            raise ValueError("icmp_code: needs icmp_type")
        for field in ("icmp_type", "icmp_code"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 255:
                raise ValueError(f"{field}: {value} is not in 0-255")
        if self.alg and self.protocol != (TCP if self.alg is Alg.FTP else UDP):
            raise ValueError(f"alg: {self.alg} is not for protocol {self.protocol}")
        if self.alg and not (len(self.ports) == 1 and 0 < self.ports[0][0] == self.ports[0][1]):
            raise ValueError(f"alg: {self.alg} needs one port")


class Match(Object, frozen=True):
    """Source or destination of a rule: members of any of `groups`, or any of `addresses`; negated by
    `excluded`.

    A Match with neither groups nor addresses matches nothing (and, excluded, everything); *any* is None in
    the rule."""

    groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    excluded: bool = False

    def __post_init__(self) -> None:
        for address in self.addresses:
            parse_address(address)


_MINUTE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")

KNOWN_ETHERTYPES: Final = (0x0800, 0x0806, 0x86DD)
"""IPv4, ARP, IPv6: what passes on, without a tag, where no Ethernet rule matches. The rest is dropped."""
MIN_ETHERTYPE: Final = 0x0600
"""Below it stands a length (IEEE 802.3): LLC or SNAP, which is always dropped."""
TAG_ETHERTYPES: Final = (0x8100, 0x88A8)
"""802.1Q and 802.1ad: a tag, which is a matter of `vlans`; a second one is always dropped."""


class Frames(Object, frozen=True):
    """Frames an Ethernet rule is about. `ethertypes`: None is any. `vlans`: inclusive ranges of VLAN ids;
    empty means frames without a tag."""

    ethertypes: tuple[int, ...] | None = None
    vlans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for ethertype in self.ethertypes or ():
            if not MIN_ETHERTYPE <= ethertype <= 0xFFFF or ethertype in TAG_ETHERTYPES:
                raise ValueError(f"ethertypes: {ethertype:#06x} is none, or a VLAN tag's")
        for low, high in self.vlans:
            if not 0 <= low <= high <= 4095:
                raise ValueError(f"vlans: {low}-{high} is not a range within 0-4095")


def _is_minute(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _MINUTE.fullmatch(text) is not None


class Schedule(Object, frozen=True):
    """When a rule is in force: from `begins` to before `ends` ("2026-11-22T08:00"; empty: no limit), on
    `days` (0 is Monday; none: on all), in `times` (minutes of the day, from the first to before the second;
    none: at all). All by UTC, or by the clock of the host."""

    begins: str = ""
    ends: str = ""
    days: tuple[int, ...] = ()
    times: tuple[tuple[int, int], ...] = ()
    utc: bool = True

    def __post_init__(self) -> None:
        for field, text in (("begins", self.begins), ("ends", self.ends)):
            if text and not _is_minute(text):
                raise ValueError(f"{field}: {text!r} is no minute")
        if not all(0 <= day <= 6 for day in self.days):
            raise ValueError(f"days: {self.days} are not in 0-6")
        for first, end in self.times:
            if not 0 <= first < end <= 24 * 60:
                raise ValueError(f"times: {first}-{end} is not within a day")


class Rule(Object, frozen=True):
    """A rule, first match wins in the order of (`order`, id). Its id is the key it is sent under: an integer
    the manager gave it once, shown in logs and counters. None means any: any source, any service, all
    vNICs. `order` begins with the place of the category.

    A `monitored` rule decides nothing: where it would have been the first to match, it is counted and logged,
    and the search goes on without monitored rules.

    With `frames` it is an Ethernet rule: it comes before all that are not, names MAC addresses (those that a
    group lists, and those of its members) and lets on to the other rules what it allows of IP."""

    name: str
    section: str
    order: tuple[int, ...]
    action: Action
    direction: Direction = Direction.INOUT
    family: Family = Family.BOTH
    sources: Match | None = None
    destinations: Match | None = None
    services: tuple[Service, ...] | None = None
    scope: tuple[str, ...] | None = None
    logged: bool = False
    tracking: Tracking = Tracking.STRICT
    existing_flows: ExistingFlows = ExistingFlows.RECHECK
    monitored: bool = False
    schedule: Schedule | None = None
    frames: Frames | None = None
    log_label: str = ""

    def __post_init__(self) -> None:
        for service in self.services or ():
            if service.alg and service.ports[0][0] != self.alg_port(service.alg):
                raise ValueError(f"services: a rule has one port for {service.alg}")
            if service.alg and self.tracking is Tracking.STATELESS:
                raise ValueError(f"services: {service.alg} needs a rule that knows connections")
        if self.jumps and self.order[:1] >= (APPLICATION,):
            raise ValueError("action: only a rule of an earlier category jumps to those of Application")
        if self.frames is None:
            return
        if self.action not in (Action.ALLOW, Action.DROP):
            raise ValueError(f"action: an Ethernet rule cannot {self.action}")
        if self.services is not None or self.family is not Family.BOTH:
            raise ValueError("services: an Ethernet rule has EtherTypes")
        for match in (self.sources, self.destinations):
            if match and match.addresses:
                raise ValueError("addresses: an Ethernet rule has groups only")

    @property
    def jumps(self) -> bool:
        return self.action is Action.JUMP_TO_APPLICATION

    def alg_port(self, alg: Alg) -> int:
        """The port of an ALG, 0: none."""
        for service in self.services or ():
            if service.alg is alg:
                return service.ports[0][0]
        return 0

    def lines(self) -> tuple["Rule", ...]:
        """The rule as lines that follow each other, each of which has source ports or has none: what the
        datapath calls a rule. A line's source ports are those of all its services, as NSX's lines are."""
        if not any(service.source_ports for service in self.services or ()):
            return (self,)
        by_ports: dict[tuple[tuple[int, int], ...], list[Service]] = {}
        for service in self.services or ():
            by_ports.setdefault(service.source_ports, []).append(service)
        return tuple(msgspec.structs.replace(self, services=tuple(same)) for same in by_ports.values())

    def source_ports(self) -> tuple[tuple[int, int], ...]:
        """Of a line; empty: every port."""
        return self.services[0].source_ports if self.services else ()

    def groups(self) -> set[str]:
        """Every group the rule names."""
        named = set(self.scope or ())
        for match in (self.sources, self.destinations):
            named.update(match.groups if match else ())
        return named


class Group(Object, frozen=True):
    """A group's literal part: hosts, prefixes and ranges ("10.0.0.1", "10.0.0.0/8", "10.0.0.1-10.0.0.9"), and
    MAC addresses.

    The id it is sent under is what rules and vNICs name; `name` is for people.
    """

    name: str
    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for address in self.addresses:
            parse_address(address)
        for mac in self.macs:
            check_mac("macs", mac)


class SpoofGuard(StrEnum):
    """What a vNIC may send from. DISABLED: anything, as NSX ships. Otherwise its `addresses`: those the
    manager trusts on first use (TOFU), or those that somebody has approved (MANUAL)."""

    DISABLED = "disabled"
    TOFU = "tofu"
    MANUAL = "manual"


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def is_mac(text: str) -> bool:
    return _MAC.fullmatch(text) is not None


def check_mac(field: str, text: str) -> None:
    if not is_mac(text):
        raise ValueError(f"{field}: {text!r} is not a MAC address in lower case with colons")


MIN_TIMER: Final = 10
MIN_ESTABLISHED: Final = 120
MAX_TIMER: Final = 4320000
"""Seconds: NSX 4's limits. 50 days."""


class SessionTimers(Object, frozen=True):
    """Seconds a flow lives after a packet, by what it has seen: NSX's words, NSX's defaults. `profile` is for
    people."""

    profile: str = "default"
    tcp_first_packet: int = 120
    tcp_opening: int = 30
    tcp_established: int = 43200
    tcp_closing: int = 120
    tcp_finwait: int = 45
    tcp_closed: int = 20
    udp_first_packet: int = 60
    udp_single: int = 30
    udp_multiple: int = 60
    icmp_first_packet: int = 20
    icmp_error_reply: int = 10

    def __post_init__(self) -> None:
        for name, seconds in self.seconds().items():
            least = MIN_ESTABLISHED if name == "tcp_established" else MIN_TIMER
            if not least <= seconds <= MAX_TIMER:
                raise ValueError(f"{name}: {seconds} is not in {least}-{MAX_TIMER} seconds")

    def seconds(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "profile"}


class Vnic(Object, frozen=True):
    """A virtual network card, here or on another host. `segment` is a number the manager gave the segment (0:
    none); addresses are hosts, not prefixes. `excluded`: nothing is enforced on it. Only a `router` may send
    router advertisements and redirects, only a `dhcp_server` answers of DHCP and DHCPv6. `timers`: None is
    NSX's defaults; of a vNIC on another host nobody asks."""

    vm: str
    vm_name: str
    mac: str
    segment: int = 0
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    excluded: bool = False
    spoofguard: SpoofGuard = SpoofGuard.DISABLED
    router: bool = False
    dhcp_server: bool = False
    timers: SessionTimers | None = None

    def __post_init__(self) -> None:
        check_mac("mac", self.mac)
        if not 0 <= self.segment <= MAX_SEGMENT:
            raise ValueError(f"segment: {self.segment} is not in 0-{MAX_SEGMENT}")
        for address in self.addresses:
            ipaddress.ip_address(address)  # neither prefix nor range
            parse_address(address)


type_of: Final[dict[str, type[Rule] | type[Group] | type[Vnic]]] = {
    "rules": Rule,
    "groups": Group,
    "vnics": Vnic,
}
"""The kinds of objects a message carries, by the name they have there."""


class Prefix(msgspec.Struct, frozen=True):
    """An address prefix of one family: `bits` is the network as an integer of 32 or 128 bits, host bits
    zero."""

    family: int
    bits: int
    length: int


@lru_cache(maxsize=1 << 16)
def parse_address(text: str) -> tuple[Prefix, ...]:
    """The prefixes that a host, a prefix or a range "A-B" stands for, fewest first. Cached, because a group
    comes whole when one of its addresses changes.

    Raises ValueError with the text in it: not an address, host bits set, families mixed, range backwards, an
    IPv6 text inside ::ffff:0:0/96 (that is where the datapath keeps IPv4), or a scope id.
    """
    low, dash, high = text.partition("-")
    try:
        networks = _range(low.strip(), high.strip()) if dash else [ipaddress.ip_network(text)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is not an address, prefix or range: {error}") from None
    for network in networks:
        if network.version == 6 and int(network.network_address) >> 32 == 0xFFFF and network.prefixlen >= 96:
            raise ValueError(f"{text!r} is an IPv4-mapped IPv6 address; write it as IPv4")
        if "%" in text:
            raise ValueError(f"{text!r} has a scope id")
    return tuple(Prefix(net.version, int(net.network_address), net.prefixlen) for net in networks)


def _range(low: str, high: str) -> list[IPv4Network | IPv6Network]:
    first, last = ipaddress.ip_address(low), ipaddress.ip_address(high)
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address):
        return [*ipaddress.summarize_address_range(first, last)]
    if isinstance(first, IPv6Address) and isinstance(last, IPv6Address):
        return [*ipaddress.summarize_address_range(first, last)]
    raise ValueError("IPv4 and IPv6 in one range")


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical form; host, VM and vNIC ids are."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
