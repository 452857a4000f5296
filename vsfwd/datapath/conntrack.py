"""The flow tables of each vNIC: made at attach, read for people, swept of what has expired.

Owns the maps `flows`, `ring` and `halfopen`. The programs need none of this to keep going: they reclaim by
themselves, and an expired flow does not exist for them."""

import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath.loader import DIRECTIONS, Programs, State, constant

TABLES: Final = ("flows", "ring", "halfopen")
_EPHEMERAL: Final = bpf.F_MMAPABLE | bpf.F_INNER_MAP


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
    }


class FlowTables:
    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._key, self._value = programs.layouts("flows")
        self._halfopen = programs.layouts("halfopen")[1]

    def make(self, slot: int, places: int) -> None:
        """Empty tables for `slot`, in place of those a former vNIC had there."""
        key, value, halfopen = self._key.size, self._value.size, self._halfopen.size
        inner = {
            "flows": bpf.create_map(bpf.MapType.HASH, key, value, places, 0, "flows"),
            "ring": bpf.create_map(bpf.MapType.ARRAY, 4, key, places, _EPHEMERAL, "ring"),
            "halfopen": bpf.create_map(
                bpf.MapType.ARRAY, 4, halfopen, constant("HALFOPEN_ENTRIES"), _EPHEMERAL, "halfopen"
            ),
        }
        try:
            with ThreadPoolExecutor(len(TABLES)) as pool:
                list(
                    pool.map(
                        lambda table: bpf.put_inner(self._programs.fd(table), slot, inner[table]), TABLES
                    )
                )
        finally:
            for fd in inner.values():
                os.close(fd)

    def drop(self, slot: int) -> None:
        """Gives the memory back."""
        for table in TABLES:
            bpf.delete(self._programs.fd(table), struct.pack("<I", slot))

    def flows(self, slot: int) -> list[Flow]:
        """What lives now, half-open flows too."""
        now = self._programs.jiffies()
        return [
            flow
            for key, value in (*self._answered(slot), *self._half_open(slot))
            if (flow := self._flow(key, value, now)).expires_s > 0
        ]

    def sweep(self, slot: int) -> int:
        """Deletes expired flows and says how many. A flow that comes back to life between the second look and
        the deletion is lost; its next packet is treated as that of an expired flow would have been a moment
        before."""
        fd, swept = bpf.inner_map(self._programs.fd("flows"), slot), 0
        if fd is None:
            return 0
        now = self._programs.jiffies()
        expired = [key for key, value in self._answered(slot) if self._value.unpack(value)["expires"] <= now]
        for key in expired:
            again = bpf.lookup(fd, key, self._value.size)
            if again is not None and self._value.unpack(again)["expires"] <= now:
                swept += bpf.delete(fd, key)
        os.close(fd)
        return swept

    def _answered(self, slot: int) -> Iterator[tuple[bytes, bytes]]:
        fd = bpf.inner_map(self._programs.fd("flows"), slot)
        if fd is not None:
            try:
                yield from bpf.items(fd, self._key.size, self._value.size, bpf.sizes_of(fd)[2])
            finally:
                os.close(fd)

    def _half_open(self, slot: int) -> Iterator[tuple[bytes, bytes]]:
        fd = bpf.inner_map(self._programs.fd("halfopen"), slot)
        if fd is not None:
            try:
                for _, raw in bpf.items(fd, 4, self._halfopen.size, bpf.sizes_of(fd)[2]):
                    entry = self._halfopen.unpack(raw)
                    if entry["check"]:
                        yield entry["key"], entry["flow"]
            finally:
                os.close(fd)

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
