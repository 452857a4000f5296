"""The varlink interface `io.vsfwd.Host`, as both ends see it. Its field names are a promise to scripts.

The class is the signature only; `vsfwd.status` answers. Long answers come in parts (varlink's *more*), so
that no single message grows with the policy."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

NAME: Final = "io.vsfwd.Host"


class NotFound(TypedVarlinkErrorReply, interface=NAME):
    """Nothing here has that name."""

    class Parameters:
        reason: str


class Refused(TypedVarlinkErrorReply, interface=NAME):
    """The request contradicts itself or what is plugged."""

    class Parameters:
        reason: str


@dataclass(frozen=True)
class RefusedObject:
    """An object of the policy that is not in force."""

    kind: str
    id: str
    reason: str


@dataclass(frozen=True)
class VnicStatus:
    """`state`: open (its policy decides), closed (no policy for it yet: DHCP passes, and ARP and ND by which
    it claims no address), excluded (on the exclusion list: everything passes) or unattached (the programs are
    not on it, `why` says why; its slot is -1)."""

    vnic: str
    vm: str
    vm_name: str
    device: str
    mac: str
    slot: int
    state: str
    generation: int
    """Of the policy that is in force there; 0: none, or one that nobody remembers."""
    addresses: list[str]
    why: str = ""


@dataclass(frozen=True)
class ImageSize:
    """What the tables in the kernel hold."""

    rules: int
    rows: int
    hosts: int
    prefixes: int


@dataclass(frozen=True)
class Alarm:
    """In the shape of NSX's. `entity` is the id of a vNIC, `since` is ISO 8601."""

    feature: str
    event_type: str
    severity: str
    entity: str
    vm_name: str
    description: str
    since: str


@dataclass(frozen=True)
class EarlyDrop:
    """An early drop in force. `mode`: native (in the driver), generic (behind it), or "other version"
    (another vsfwd attached it; nothing else is known). `rate` is packets a second of one source, 0 without a
    limit; the rest are packets since it was attached."""

    device: str
    mode: str
    blocked: list[str]
    rate: int
    burst: int
    passed: int
    dropped_blocked: int
    dropped_rate: int


@dataclass(frozen=True)
class HostStatus:
    """`broker` is the one connected to, or null; `realised_at` is ISO 8601, or null while nothing was
    realised by this process; `duration_us` is message in to enforced, of the last message. `not_saved` says
    why the policy in force is not on disk."""

    version: str
    host_id: str
    epoch: int
    generation: int
    digest: str
    not_saved: str
    broker: str | None
    broker_error: str
    realised_at: str | None
    age_s: int | None
    duration_us: int
    messages_applied: int
    messages_duplicate: int
    messages_refused: int
    log_lines_lost: int
    image: ImageSize
    vnics: list[VnicStatus]
    alarms: list[Alarm]
    refusals: list[RefusedObject]
    early: list[EarlyDrop]
    datapath: dict[str, str]


@dataclass(frozen=True)
class RuleRow:
    """A rule at its place in the order of one vNIC. `tracking` (strict, loose, stateless) and
    `existing_flows` (recheck, keep, cut) are its section's. Counters are the host's, over all its vNICs."""

    position: int
    id: int
    name: str
    section: str
    action: str
    direction: str
    family: str
    sources: str
    destinations: str
    services: str
    logged: bool
    tracking: str
    existing_flows: str
    packets: int
    bytes: int
    sessions: int


@dataclass(frozen=True)
class VnicRules:
    """A part of the rules of one vNIC; the next part goes on where this one ends. `excluded`: on the
    exclusion list, so that none of them is enforced."""

    vnic: str
    vm_name: str
    device: str
    excluded: bool
    rules: list[RuleRow]


@dataclass(frozen=True)
class Addrset:
    """A group: what it lists (`addresses`) and the addresses of the vNICs that are its members, by VM
    name."""

    id: str
    name: str
    addresses: list[str]
    members: dict[str, list[str]]


@dataclass(frozen=True)
class FlowRow:
    """A connection of a vNIC. `direction` is that of its first packet; packets and bytes are those of both
    directions; without further packets it ends in `expires_s`. Ports are 0 where the protocol has none."""

    vnic: str
    vm_name: str
    protocol: str
    direction: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    state: str
    rule: int
    packets: int
    bytes: int
    expires_s: int


@dataclass(frozen=True)
class AddressRow:
    """An address of a vNIC. `source`: policy (the manager sends it, and did not learn it here), or how it was
    seen: arp, nd, dhcp, dhcpv6. `state`: trusted when it is among those of the policy, else waiting: for the
    manager, who says why. `expires_s`: of a lease, else null."""

    vnic: str
    vm_name: str
    address: str
    source: str
    state: str
    expires_s: int | None


@dataclass(frozen=True)
class TimersRow:
    """The profile of a vNIC: seconds a flow lives after a packet, in NSX's words."""

    vnic: str
    vm_name: str
    profile: str
    timers: dict[str, int]


@dataclass(frozen=True)
class RuleStats:
    """`suppressed`: events the rule was not logged with, since there were too many."""

    id: int
    name: str
    packets: int
    bytes: int
    sessions: int
    suppressed: int


@dataclass(frozen=True)
class VnicDrops:
    """Packets dropped, by reason."""

    vnic: str
    vm_name: str
    reasons: dict[str, int]


@dataclass(frozen=True)
class VnicUnfiltered:
    """Packets that passed because the vNIC is, or was, on the exclusion list."""

    vnic: str
    vm_name: str
    packets: int


@dataclass(frozen=True)
class VnicFlows:
    """`held`: the share, 0 to 1, of the places of its flow table that flows hold which are never evicted.
    Looked at every ten seconds; a vNIC that has just come is not there yet."""

    vnic: str
    vm_name: str
    held: float


@dataclass(frozen=True)
class HostStats:
    rules: list[RuleStats]
    drops: list[VnicDrops]
    unfiltered: list[VnicUnfiltered]
    flows: list[VnicFlows]


@dataclass(frozen=True)
class PassedOver:
    """A rule above the deciding one, and the first of its fields that did not match; `monitored`, `jump` or
    `jumped` where another reason was."""

    rule: int
    name: str
    field: str


@dataclass(frozen=True)
class Explanation:
    """What the policy says about a packet, by reading the rules in order; `rule` is null when none matches,
    its MAC address or SpoofGuard is against it, or the vNIC is closed or excluded. `frame_rule`: the Ethernet
    rule that its frame matches, which comes before; null where none does. Of Ethernet rules, `passed_over`
    has the monitored one that is first to match."""

    vnic: str
    vm_name: str
    action: str
    rule: int | None
    name: str
    section: str
    passed_over: list[PassedOver]
    frame_rule: int | None = None


@dataclass(frozen=True)
class PacketSpec:
    """The first packet of a session. `direction` is in or out, `protocol` a name or a number; `port` is the
    destination port of TCP and UDP, type and code are of ICMP. `midstream`: TCP from the middle of a
    connection that the host does not know. `source_port` matters where rules name source ports; MAC addresses
    and the id of a VLAN tag where rules are for frames (not given: what the policy knows, and no tag)."""

    direction: str
    protocol: str
    source: str
    destination: str
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    midstream: bool = False
    source_port: int | None = None
    source_mac: str | None = None
    destination_mac: str | None = None
    vlan: int | None = None


@dataclass(frozen=True)
class GuestInfo:
    """What is known of a VM beside its id. `power_state` in NSX's words: VM_RUNNING, VM_STOPPED,
    VM_SUSPENDED."""

    name: str | None = None
    os_name: str | None = None
    computer_name: str | None = None
    power_state: str | None = None


@dataclass(frozen=True)
class Reloaded:
    """Settings that differ from those that were in force: those that are in force now, and those that will be
    after a restart."""

    taken: list[str]
    needs_restart: list[str]


class HostInterface(VarlinkInterface, name=NAME):
    """vNICs are named by their id, or by their VM's id or name."""

    errors = (NotFound, Refused)

    @varlinkmethod(return_parameter="status")
    async def Status(self) -> HostStatus:
        raise NotImplementedError

    @varlinkmethod(return_parameter="part")
    async def Rules(self, *, vnic: str | None = None) -> AsyncIterator[VnicRules]:
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="part")
    async def Addrsets(self) -> AsyncIterator[list[Addrset]]:
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="part")
    async def Flows(self, *, vnic: str | None = None) -> AsyncIterator[list[FlowRow]]:
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="part")
    async def Addresses(self, *, vnic: str | None = None) -> AsyncIterator[list[AddressRow]]:
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="part")
    async def Timers(self, *, vnic: str | None = None) -> AsyncIterator[list[TimersRow]]:
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="stats")
    async def Stats(self) -> HostStats:
        raise NotImplementedError

    @varlinkmethod(return_parameter="explanation")
    async def Explain(self, *, vnic: str, packet: PacketSpec) -> Explanation:
        raise NotImplementedError

    @varlinkmethod
    async def AnnounceVnic(
        self,
        *,
        vnic: str,
        vm: str,
        mac: str,
        device: str,
        guest: GuestInfo | None = None,
        segment: str | None = None,
        addresses: list[str] | None = None,
    ) -> None:
        """When the device is there, its programs are attached before the reply. The manager is told the rest,
        and again whenever it is announced otherwise: `segment` is the id of the one the vNIC is on,
        `addresses` are those that the guest's tools say."""
        raise NotImplementedError

    @varlinkmethod
    async def WithdrawVnic(self, *, vnic: str) -> None:
        """The device is let go: closed where it is a guarded port, else not filtered any more."""
        raise NotImplementedError

    @varlinkmethod(return_parameter="early")
    async def EarlyDrops(self) -> list[EarlyDrop]:
        raise NotImplementedError

    @varlinkmethod
    async def AttachEarlyDrop(self, *, device: str, blocked: list[str], rate: int, burst: int) -> None:
        """`blocked` and the limit replace those in force; `rate` and `burst` 0: no limit."""
        raise NotImplementedError

    @varlinkmethod
    async def DetachEarlyDrop(self, *, device: str) -> None:
        raise NotImplementedError

    @varlinkmethod(return_parameter="reloaded")
    async def Reload(self) -> Reloaded:
        """Reads the configuration again; one with a mistake is refused, and what was in force stays."""
        raise NotImplementedError
