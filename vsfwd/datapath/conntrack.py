"""The flow table of each vNIC: made at attach, given back at detach, read for people.

Owns the map `flows`. The programs need nobody to keep it going: an expired flow does not exist for them, and
its place is the next one's."""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import DIRECTIONS, State, constant

_SAMPLE: Final = 32
"""Buckets that tell how full a table is: 256 places, so that nine tenths are known to 2 %."""


@dataclass(frozen=True)
class Flow:
    """One flow of a vNIC, seen from the workload. An ICMP echo has its identifier as remote port."""

    protocol: int
    local: IPv4Address | IPv6Address
    local_port: int
    remote: IPv4Address | IPv6Address
    remote_port: int
    initiator: str
    """"in" or "out": the direction of its first packet."""
    state: str
    rule_id: int
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    expires_s: float
    policy_seq: int
    vlan: int | None = None
    """Id of the tag that its packets bear."""


def address_of(raw: bytes) -> IPv4Address | IPv6Address:
    """From the datapath's form, with IPv4 at ::ffff:0:0/96."""
    address = IPv6Address(raw)
    return address.ipv4_mapped or address


def key_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """What a flow key says, in the words of `Flow`."""
    return {
        "protocol": raw["protocol"],
        "local": address_of(raw["local"]),
        "local_port": int.from_bytes(raw["local_port"].to_bytes(2, "little"), "big"),
        "remote": address_of(raw["remote"]),
        "remote_port": int.from_bytes(raw["remote_port"].to_bytes(2, "little"), "big"),
        "vlan": raw["vlan"] or None,
    }


class FlowTables:
    def __init__(self, programs: Programs) -> None:
        self._outer = programs.outer("flows")
        self._programs = programs
        self._bucket = programs.layouts("flows")[1]
        self._place = self._bucket.parts["place"]
        self._key, self._value = self._place.parts["key"], self._place.parts["flow"]

    def make(self, slot: int, buckets: int) -> None:
        """An empty table for `slot`, in place of the one a former vNIC had there."""
        with bpf.closing(self._create(buckets)) as inner:
            self._outer.put(slot, inner)

    def _create(self, buckets: int) -> int:
        flags = bpf.F_MMAPABLE | bpf.F_INNER_MAP
        return bpf.create_map(bpf.MapType.ARRAY, 4, self._bucket.size, buckets, flags, "flows")

    def put(self, slot: int, content: bytes) -> None:
        """A table with this in its buckets, in place of the one there; when this returns, no program uses
        that."""
        with bpf.closing(self._create(len(content) // self._bucket.size)) as inner:
            with mmap.mmap(inner, len(content)) as pages:
                pages[:] = content
            self._outer.put(slot, inner)

    def mapped(self, slot: int) -> mmap.mmap:
        """The table itself, to read and to write, as long as somebody holds this."""
        with bpf.closing(self.held_open(slot)) as inner:
            return mmap.mmap(inner, bpf.shape_of(inner).entries * self._bucket.size)

    def settle(self, slot: int) -> None:
        """Until packets that have begun by now are done with the table."""
        with bpf.closing(self.held_open(slot)) as inner:
            self._outer.put(slot, inner)

    def buckets(self, slot: int) -> int:
        """How many the table of `slot` has. One that was taken over may have another size than a new one."""
        with bpf.closing(self.held_open(slot)) as inner:
            return bpf.shape_of(inner).entries

    def held_open(self, slot: int) -> int:
        """A descriptor of the table, which is the caller's."""
        inner = self._outer.get(slot)
        if inner is None:
            raise DatapathError(f"slot {slot} has no flow table")
        return inner

    def drop(self, slot: int) -> None:
        """Gives the memory back."""
        self._outer.empty(slot)

    def flows(self, slot: int) -> list[Flow]:
        """What lives now, half-open flows too."""
        now = self._programs.jiffies()
        return [
            flow for key, value in self._taken(slot) if (flow := self._flow(key, value, now)).expires_s > 0
        ]

    def seen(
        self, slot: int, lifetimes_s: Mapping[str, float], within_s: float
    ) -> Iterator[tuple[Flow, float]]:
        """Flows of which a packet passed in the last seconds, and how long ago: live ones, and ended ones
        whose place nobody has taken."""
        now = self._programs.jiffies()
        for key, value in self._taken(slot):
            flow = self._flow(key, value, now)
            # A packet starts the lifetime anew. Of flows that were forbidden since, nothing is known.
            age_s = max(0.0, lifetimes_s[flow.state] - flow.expires_s)
            if age_s <= within_s:
                yield flow, age_s

    def held(self, slot: int) -> float:
        """The share of its places that live flows hold which give way to nobody: of some buckets, since the
        hash spreads flows evenly over all."""
        now, held = self._programs.jiffies(), 0
        with bpf.closing(self.held_open(slot)) as inner:
            buckets = min(_SAMPLE, bpf.shape_of(inner).entries)
            for _, raw in islice(bpf.items(inner, 4, self._bucket.size, buckets), buckets):
                for _, value in self._taken_in(raw):
                    flow = self._value.unpack(value)
                    held += bool(flow["answered"] and flow["expires"] > now)
        return held / (buckets * constant("WAYS"))

    def _taken(self, slot: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and flows of all places that are not free."""
        inner = self._outer.get(slot)
        if inner is None:
            return
        with bpf.closing(inner):
            for _, raw in bpf.items(inner, 4, self._bucket.size, bpf.shape_of(inner).entries):
                yield from self._taken_in(raw)

    def _taken_in(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        size, ways = self._place.size, constant("WAYS")
        for way, check in enumerate(struct.unpack_from(f"<{ways}Q", bucket)):
            if check:
                place = bucket[8 * ways + way * size :][:size]
                yield place[: self._key.size], place[self._key.size :]

    def _flow(self, key: bytes, value: bytes, now: int) -> Flow:
        flow = self._value.unpack(value)
        packets, octets = struct.unpack("<2Q", flow["packets"]), struct.unpack("<2Q", flow["bytes"])
        return Flow(
            **key_fields(self._key.unpack(key)),
            initiator=DIRECTIONS[flow["initiator"] & 1],
            state=State(flow["state"]).name.lower(),
            rule_id=flow["rule_id"],
            packets_in=packets[0],
            packets_out=packets[1],
            bytes_in=octets[0],
            bytes_out=octets[1],
            expires_s=(flow["expires"] - now) / self._programs.hz,
            policy_seq=flow["policy_seq"],
        )
