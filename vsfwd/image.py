"""What the BPF maps should hold, as plain values, and what to do to get there.

`Image` is the content of one bank; `diff` says how the kernel gets from one image to the next. Both are pure; rows are
Python integers (bit r is rule r), addresses are 128-bit integers with IPv4 at ::ffff:0:0/96, numbers are host order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vsfwd.policy.model import Action

OWNER_NONE: Final = 0
"""No vNIC owns this address: it counts for whoever sends from it."""
OWNER_REMOTE: Final = 0xFFFF_FFFF
"""A vNIC on another host owns it. An owner on this host is its slot + 1."""


class HostKey(NamedTuple):
    """`segment` is 0 unless the same address exists on several segments."""

    segment: int
    address: int


class HostEntry(NamedTuple):
    """Rows (indices into `Image.rows`) of one host address: as source, as destination, and as a source by its literal
    prefixes only, which is what counts when a vNIC sends from an address that another one owns."""

    source: int
    destination: int
    literal: int
    owner: int = OWNER_NONE


class PrefixKey(NamedTuple):
    """`family` is 4 or 6; `length` is that of the family (0-32, 0-128); `address` as everywhere, host bits zero."""

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
    """Rules applied to a vNIC, by direction and family, and the segment its addresses are looked up in (0 when no
    address of its segment is ambiguous)."""

    in_ipv4: int
    in_ipv6: int
    out_ipv4: int
    out_ipv6: int
    segment: int = 0


class RuleEntry(NamedTuple):
    id: int
    action: Action
    logged: bool


POINTS_TCP: Final = 0
POINTS_UDP: Final = 65536
POINTS_ICMP: Final = 2 * 65536
POINTS_ICMPV6: Final = 3 * 65536
POINTS_PROTOCOL: Final = 4 * 65536
POINTS: Final = POINTS_PROTOCOL + 256
"""Service points are one array: TCP and UDP by destination port, ICMP and ICMPv6 by type << 8 | code, everything else
by protocol number. The datapath computes the same index (`service_point` in bpf/classify.h)."""


@dataclass(frozen=True)
class Image:
    """The content of one bank. `services` covers every point once, in order; `vnics` is by slot; `rules` is by bit."""

    rows: tuple[int, ...]
    hosts: Mapping[HostKey, HostEntry]
    prefixes: Mapping[PrefixKey, PrefixEntry]
    services: tuple[ServiceRange, ...]
    vnics: Mapping[int, VnicRows]
    rules: tuple[RuleEntry, ...]


@dataclass(frozen=True)
class Flip:
    """Write the whole image into the bank no packet sees, then let every packet see it with one store."""

    image: Image


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
