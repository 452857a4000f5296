"""Bodies on the bus.

Policy travels as `Changes`: objects by kind and id, null deletes. A snapshot is Changes applied to nothing, a
delta is Changes applied to the state the host has; both name in their header (`envelope.Header`) the digest
of the state that results. Objects stay raw until each is decoded by itself, so that one bad rule never stops
the others.

The digest of a state is the sum modulo 2**256 of the SHA-256 of its objects (AdHash, Bellare and Micciancio
1997, "A new paradigm for collision-free hashing"): a change costs what changes, not what stays. It finds lost
and re-ordered messages; forgery is the signature's matter."""

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

KINDS: Final = ("rules", "groups", "vnics")

Raw = msgspec.Raw
DELETE: Final = Raw(b"null")


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Objects to put (their JSON, undecoded), or `DELETE`."""

    rules: dict[str, Raw] = {}
    groups: dict[str, Raw] = {}
    vnics: dict[str, Raw] = {}


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why an object, or a whole message (`kind` "message", `id` its generation), is not in force."""

    kind: str
    id: str
    reason: str


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host, on every connect and every 30 s: what it enforces. The manager answers with a snapshot only if
    that is not current. `vsfwd` is the version of the daemon."""

    epoch: int
    generation: int
    digest: str
    vsfwd: str
    refusals: tuple[Refusal, ...] = ()


class Applied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host, after every policy message: what the kernel and the disk have now. `resync` asks for a snapshot
    (the message did not fit on what the host has). `duration_us`: message in to enforced."""

    epoch: int
    generation: int
    digest: str
    resync: bool = False
    duration_us: int = 0
    refusals: tuple[Refusal, ...] = ()


@lru_cache(maxsize=1 << 16)
def is_host_address(text: str) -> bool:
    """Whether a vNIC can have the address, written in its usual form: not nobody's, not everybody's, without
    a zone, and not an IPv4 address in IPv6 clothes, which a policy refuses (`policy.model.parse_address`)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    zone, mapped = (getattr(address, what, None) is not None for what in ("scope_id", "ipv4_mapped"))
    nobody = address.is_unspecified or address.is_loopback
    everybody = address.is_multicast or text == "255.255.255.255"
    return str(address) == text and not (zone or mapped or nobody or everybody)


_SERVER: Final = re.compile(r"|[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def _check_usual(address: str) -> None:
    if str(ipaddress.ip_address(address)) != address:
        raise ValueError(f"address: {address!r} is not in its usual form")


class PowerState(StrEnum):
    """In NSX's words."""

    RUNNING = "VM_RUNNING"
    STOPPED = "VM_STOPPED"
    SUSPENDED = "VM_SUSPENDED"
    UNKNOWN = "UNKNOWN"


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the host knows of a VM beside its id. Empty is unknown, and changes nothing at the manager."""

    name: str = ""
    os_name: str = ""
    computer_name: str = ""
    power_state: PowerState = PowerState.UNKNOWN


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A vNIC as it is plugged on a host. `segment` is the id of the one its bridge is for; `addresses` are
    those that the guest's tools say: not looked at here, since there may be many of which few count."""

    vnic: str
    vm: str
    mac: str
    device: str
    guest: Guest = Guest()
    segment: str = ""
    addresses: tuple[str, ...] = ()


class Bindings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A host, on connect and whenever it changes: all vNICs that are plugged here. `said_ns` is when, by the
    host's clock in ns since 1970, and later each time: what a session that broke had under way may arrive
    after the word of the next one. `answers` is the id of the Request to say it, which counts whatever the
    clock says: it may have been set."""

    vnics: tuple[Binding, ...]
    said_ns: int = 0
    answers: str = ""


def share_of_tools(vnics: int) -> int:
    """Addresses that count of what tools say of each of so many vNICs."""
    return MAX_OF_TOOLS // max(vnics, 1)


class Source(StrEnum):
    """How an address became known. A lease is a server's word, the others the workload's own; `tools` are an
    agent in the guest, whose word comes with the announcement of the vNIC."""

    TOOLS = "tools"
    DHCP = "dhcp"
    DHCPV6 = "dhcpv6"
    ARP = "arp"
    ND = "nd"


LEASED: Final = (Source.DHCP, Source.DHCPV6)
MAX_CLAIMS: Final = 128
"""Addresses that one vNIC says of itself: NSX."""
MAX_OF_TOOLS: Final = 16 * 1024
"""Addresses that the tools of all guests of a host say: of more, every vNIC has an equal share, so that no
guest takes another's."""
MAX_LEASES: Final = 16
"""Addresses that one vNIC is given, so that others who give it one after another leave room for its own."""

MAX_CLAIMS_AT_ONCE: Final = 5000
"""In one report; more go in several, so that none holds the manager up for long."""


def has_room(known: Iterable[Source], source: Source) -> bool:
    """Whether a vNIC whose addresses are known from there may be known by one more."""
    leased = source in LEASED
    return sum((each in LEASED) == leased for each in known) < (MAX_LEASES if leased else MAX_CLAIMS)


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address that a vNIC was seen with. Of a lease `expires` is when it ends (seconds since 1970), 0:
    never, and `server` the MAC address from which its answer came."""

    address: str
    source: Source
    expires: int = 0
    server: str = ""

    def __post_init__(self) -> None:
        _check_usual(self.address)
        if not 0 <= self.expires < 2**53:
            raise ValueError(f"expires: {self.expires} is no time")
        if not _SERVER.fullmatch(self.server):
            raise ValueError(f"server: {self.server!r} is no MAC address")


class Addresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host, on connect and whenever it learns: all that the vNICs named here are seen with. At most
    MAX_CLAIMS_AT_ONCE."""

    vnics: dict[str, tuple[Claim, ...]]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The manager, on a host's app queue. `report`: say hello and bindings again. `forget`: `vnic` is not to
    be known by `address` any more, until it is seen with it again. `flows`: which flows did the vNICs here
    see in the last `minutes`? `certificate`: the next one, in PEM, that the host has asked for."""

    id: str
    method: str
    vnic: str = ""
    address: str = ""
    minutes: int = 0
    certificate: str = ""


MAX_MINUTES: Final = 24 * 60
"""How far back `flows` may ask."""
MAX_SEEN: Final = 10_000
"""Flows in one reply."""
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class SeenFlow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Flows that a vNIC saw, which differ in their source port only. `direction`, `source`, `destination` are
    those of the first packet, `source_port` is that of the newest flow; 0 where there are none. `icmp_type`:
    of an echo. `vlan`: of a tag. `age_s`: since the last packet."""

    direction: Literal["in", "out"]
    protocol: _Byte
    source: str
    destination: str
    port: _Port
    source_port: _Port
    icmp_type: _Byte | None
    vlan: Annotated[int, msgspec.Meta(ge=0, le=4095)] | None
    packets: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    age_s: Annotated[int, msgspec.Meta(ge=0, le=60 * MAX_MINUTES)]


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A host's answer to a Request. `error` is empty when it was done. `flows`: by vNIC. Not in it are
    `left_out` of them, the oldest, and those of `unread` vNICs."""

    id: str
    error: str = ""
    flows: dict[str, tuple[SeenFlow, ...]] = {}
    left_out: int = 0
    unread: int = 0


MAX_COUNTS: Final = 2000
"""Rules in one Statistics, which the manager reads in some 50 ms; more go in several."""
STATISTICS_AGAIN_S: Final = 3600
"""A host says all of its statistics at least so often, also if there are none: who does not, does not report
them."""
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class RuleCount(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a rule did on all vNICs of a host since its counters began. `age_s`: since they were seen to move;
    -1 where nobody was looking."""

    packets: _Number
    bytes: _Number
    sessions: _Number
    age_s: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)] = -1


class Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host, now and then: what rules have counted, by rule; those that moved since it said so last. They
    count from when the host began with the rule, so what is lost is in the next, and what comes twice is
    seen: `boot` is the kernel's boot id, `at_ms` the time since then."""

    boot: str
    at_ms: _Number
    rules: dict[str, RuleCount]


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host, when its certificate is to be followed by another: the signing request for the next one, and
    the proof that it is the host who asks (`renewal`)."""

    csr: Annotated[str, msgspec.Meta(max_length=16384)]
    proof: Annotated[bytes, msgspec.Meta(max_length=256)]


Event = Hello | Applied | Bindings | Addresses | Reply | Statistics | Renewal
EVENTS: Final[dict[str, type[Event]]] = {
    "hello": Hello,
    "applied": Applied,
    "vnics": Bindings,
    "addresses": Addresses,
    "reply": Reply,
    "statistics": Statistics,
    "renewal": Renewal,
}
"""What a host sends, by the kind in its key."""


def object_digest(kind: str, id: str, raw: bytes) -> int:
    """The share of one object in the digest of a state; `raw` are the JSON bytes as they travelled."""
    head = f"{kind}\0{id}\0".encode()
    return int.from_bytes(hashlib.sha256(head + raw).digest(), "big")


def digest_text(digest: int) -> str:
    return f"{digest % 2**256:064x}"
