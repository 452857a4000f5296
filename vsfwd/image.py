"""What the BPF maps should hold, as plain values, and what to do to get there.

`Image` is the content of one bank; `diff` says how the kernel gets from one image to the next. Both are pure;
rows are Python integers (bit r is rule r), addresses are 128-bit integers with IPv4 at ::ffff:0:0/96, numbers
are host order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import eq
from typing import Final, NamedTuple, overload

from vsfwd.policy.layered import different
from vsfwd.policy.model import Action, ExistingFlows, Tracking
from vsfwd.protocol.messages import Refusal

OWNER_NONE: Final = 0
"""No vNIC owns this address: it counts for whoever sends from it."""
OWNER_REMOTE: Final = 0xFFFF_FFFF
"""A vNIC on another host owns it. An owner on this host is its slot + 1."""


MAC_SEGMENT: Final = 0xFFFF_FFFF
OTHER_MAC: Final = 1 << 96
"""Stands for every MAC address that has no entry."""


class HostKey(NamedTuple):
    """`segment` is 0 unless the same address exists on several segments, MAC_SEGMENT for a MAC address."""

    segment: int
    address: int


class HostEntry(NamedTuple):
    """Rows (indices into `Image.rows`) of one host address: as source, as destination, and as a source by its
    literal prefixes only, which is what counts when a vNIC sends from an address that another one owns."""

    source: int
    destination: int
    literal: int
    owner: int = OWNER_NONE


class PrefixKey(NamedTuple):
    """`family` is 4 or 6; `length` is that of the family (0-32, 0-128); `address` as everywhere, host bits
    zero."""

    family: int
    length: int
    address: int


class PrefixEntry(NamedTuple):
    source: int
    destination: int


class ServiceRange(NamedTuple):
    """Service points `first`..`last` (inclusive; see `service_point`) select `row`."""

    first: int
    last: int
    row: int


class VnicRows(NamedTuple):
    """Rules applied to a vNIC, by direction and family, and the segment its addresses are looked up in (0
    when no address of its segment is ambiguous). `excluded`: nothing is enforced there, whatever the rows
    say. `frames_in`, `frames_out`: its Ethernet rules. `alg`, `source_ports`: some of its rules have an ALG,
    name source ports.

    `again`: the first four without monitored rules, without those before the category Application, and
    without both; empty where no rule is monitored or jumps. `frames_again`: both of Ethernet rules without
    monitored ones; empty where none is."""

    in_ipv4: int
    in_ipv6: int
    out_ipv4: int
    out_ipv6: int
    segment: int = 0
    excluded: bool = False
    frames_in: int = 0
    frames_out: int = 0
    alg: bool = False
    source_ports: bool = False
    again: tuple[int, ...] = ()
    frames_again: tuple[int, ...] = ()

    @property
    def ahead(self) -> bool:
        """Whether there is something to be done with a frame before it is parsed."""
        return self.excluded or bool(self.frames_in or self.frames_out)


class RuleEntry(NamedTuple):
    """One line of a rule, see `Rule.lines`. `ftp` and `tftp`: the ports of its ALGs, 0: none."""

    id: int
    action: Action
    logged: bool
    tracking: Tracking = Tracking.STRICT
    existing_flows: ExistingFlows = ExistingFlows.RECHECK
    ftp: int = 0
    tftp: int = 0
    monitored: bool = False


class Guard(NamedTuple):
    """What a vNIC may say about itself. With `spoof` it sends from `addresses` only, and from the link-local
    address that its MAC makes; without, they are empty."""

    spoof: bool = False
    router: bool = False
    dhcp_server: bool = False
    addresses: frozenset[int] = frozenset()


POINTS_TCP: Final = 0
POINTS_UDP: Final = 65536
POINTS_ICMP: Final = 2 * 65536
POINTS_ICMPV6: Final = 3 * 65536
POINTS_PROTOCOL: Final = 4 * 65536
POINTS_ETHERTYPE: Final = POINTS_PROTOCOL + 256
POINTS_VLAN: Final = POINTS_ETHERTYPE + 65536
UNTAGGED: Final = 4096
"""Where a VLAN id would stand."""
POINTS_SOURCE: Final = POINTS_VLAN + UNTAGGED + 1
POINTS: Final = POINTS_SOURCE + 65536
"""Service points are one array: TCP and UDP by destination port, ICMP and ICMPv6 by type << 8 | code,
everything else by protocol number; where there are Ethernet rules, EtherTypes, and VLAN ids with one
more for frames without a tag; and where rules name source ports, those, of TCP and UDP alike. The datapath
computes the same index (bpf/classify.h)."""


class Rows(Sequence[int]):
    """As many rows as there are now in a list that only grows: images that follow each other share it."""

    __slots__ = ("_length", "_list")

    def __init__(self, growing: list[int]) -> None:
        self._list, self._length = growing, len(growing)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[int, ...]: ...
    def __getitem__(self, place: int | slice) -> int | tuple[int, ...]:
        if isinstance(place, slice):
            return tuple(self._list[number] for number in range(self._length)[place])
        return self._list[range(self._length)[place]]

    def __iter__(self) -> Iterator[int]:
        return islice(self._list, self._length)

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(eq, self, other))

    def grew_to(self, others: Sequence[int]) -> bool:
        """Whether these are the first of others, by the list they share."""
        return isinstance(others, Rows) and others._list is self._list and self._length <= others._length


@dataclass(frozen=True)
class Image:
    """The content of one bank. `services` covers every point once, in order, those of frames and of source
    ports only where a rule asks for them; `vnics` is by slot; `rules` is by bit."""

    rows: Sequence[int]
    hosts: Mapping[HostKey, HostEntry]
    prefixes: Mapping[PrefixKey, PrefixEntry]
    services: tuple[ServiceRange, ...]
    vnics: Mapping[int, VnicRows]
    rules: tuple[RuleEntry, ...]
    guards: Mapping[int, Guard] = field(default_factory=dict)
    """By slot, of the vNICs that have a policy. Not in the bank: see `datapath.guards`."""
    warnings: tuple[Refusal, ...] = field(default=(), compare=False)
    """What of the policy is not in the image, for people; no part of the bank."""


@dataclass(frozen=True)
class Flip:
    """Write the whole image into the bank no packet sees, then let every packet see it with one store."""

    image: Image
    same_policy: bool = False
    """The bank that packets see is made of the same policy: no flow is asked again."""


@dataclass(frozen=True)
class InPlace:
    """Append rows to the live bank, then write or delete the one host entry that commits the change."""

    image: Image
    new_rows: tuple[int, ...]
    key: HostKey
    entry: HostEntry | None
    """None: the entry is deleted."""


@dataclass(frozen=True)
class Nothing:
    """The kernel has it already."""

    image: Image = field(repr=False)


Plan = Flip | InPlace | Nothing


def diff(actual: Image | None, wanted: Image) -> Plan:
    """How to get from what a bank holds to what it should hold.

    In place only where one host entry commits the change, so that a packet sees all of it or nothing. Any
    field of the entry may change, the owner too: a packet reads the entry once. When it is deleted, packets
    fall through to entries that are right already: the address in segment 0, or the prefix, whose rows always
    hold those of all prefixes around it. Two writes would show packets a policy nobody wrote: R1 drops what
    is applied to A, R2 drops source B, R3 allows; a tag moves from A to B; between the write of the vNIC and
    that of the address R3 allows."""
    if actual is None:
        return Flip(wanted)
    if not _differ_in_hosts_only(actual, wanted):
        return Nothing(actual) if _means_the_same(actual, wanted) else Flip(wanted)
    hosts = [
        key for key in different(actual.hosts, wanted.hosts) if actual.hosts.get(key) != wanted.hosts.get(key)
    ]
    if not hosts:
        return Nothing(actual) if actual.guards == wanted.guards else Flip(wanted)
    if len(hosts) > 1:
        return Flip(wanted)
    (key,) = hosts
    return InPlace(wanted, tuple(wanted.rows[len(actual.rows) :]), key, wanted.hosts.get(key))


def canonical(image: Image) -> Image:
    """The same image with rows numbered in the order they are first used and none unused, and services in the
    longest ranges: two images that mean the same are equal."""
    used = [0]
    numbers = {0: 0}

    def renumber(number: int) -> int:
        row = image.rows[number]
        if numbers.setdefault(row, len(used)) == len(used):
            used.append(row)
        return numbers[row]

    hosts = {
        key: HostEntry(renumber(source), renumber(destination), renumber(literal), owner)
        for key, (source, destination, literal, owner) in sorted(image.hosts.items())
    }
    prefixes = {
        key: PrefixEntry(renumber(source), renumber(destination))
        for key, (source, destination) in sorted(image.prefixes.items())
    }
    services: list[ServiceRange] = []
    for first, last, number in image.services:
        row = renumber(number)
        if services and services[-1].row == row and services[-1].last + 1 == first:
            first = services.pop().first
        services.append(ServiceRange(first, last, row))
    vnics = {
        slot: rows._replace(
            in_ipv4=renumber(rows.in_ipv4),
            in_ipv6=renumber(rows.in_ipv6),
            out_ipv4=renumber(rows.out_ipv4),
            out_ipv6=renumber(rows.out_ipv6),
            frames_in=renumber(rows.frames_in),
            frames_out=renumber(rows.frames_out),
            again=tuple(map(renumber, rows.again)),
            frames_again=tuple(map(renumber, rows.frames_again)),
        )
        for slot, rows in sorted(image.vnics.items())
    }
    return replace(
        image, rows=tuple(used), hosts=hosts, prefixes=prefixes, services=tuple(services), vnics=vnics
    )


def _differ_in_hosts_only(actual: Image, wanted: Image) -> bool:
    """Whether `wanted` has all rows of `actual` at their numbers, perhaps more, and everything but hosts the
    same. Images that follow each other share what did not change, so this compares identities."""
    return _goes_on(actual.rows, wanted.rows) and all(
        ours is theirs or ours == theirs
        for ours, theirs in (
            (actual.rules, wanted.rules),
            (actual.prefixes, wanted.prefixes),
            (actual.services, wanted.services),
            (actual.vnics, wanted.vnics),
        )
    )


def _goes_on(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether the rows before are those after, or the first of them."""
    if isinstance(before, Rows) and before.grew_to(after):
        return True
    return len(before) <= len(after) and all(map(eq, before, after))


def _means_the_same(actual: Image, wanted: Image) -> bool:
    return (
        actual.rules == wanted.rules
        and actual.guards == wanted.guards
        and actual.hosts.keys() == wanted.hosts.keys()
        and actual.prefixes.keys() == wanted.prefixes.keys()
        and canonical(actual) == canonical(wanted)
    )
