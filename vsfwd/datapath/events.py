"""What logged rules did, from the programs' ring buffer.

The ring belongs to the programs: a daemon that takes them over reads on. A full ring loses events and counts
them; it never holds a packet up."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath.conntrack import key_fields
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.ring import Ring
from vsfwd.datapath.schema import ACTIONS, DIRECTIONS, Reason, constant


@dataclass(frozen=True)
class Ether:
    """What an Ethernet rule was asked about; `vlan` is None without a tag."""

    source: str
    destination: str
    ethertype: int
    vlan: int | None


@dataclass(frozen=True)
class Event:
    """The first packet of a session that a logged rule allows, or any packet it denies. Source and
    destination are the packet's; of an Ethernet rule, `ether` has them. `reason` is "none" when it passed;
    `suppressed` are the events of this rule and vNIC between the last one and this that the rate did not
    allow. `monitored`: nothing came of it, the rule is only monitored. `icmp_type`: of an echo."""

    time_ns: int
    slot: int
    ifindex: int
    rule_id: int
    action: str
    reason: str
    direction: str
    protocol: int
    source: IPv4Address | IPv6Address
    source_port: int
    destination: IPv4Address | IPv6Address
    destination_port: int
    length: int
    suppressed: int = 0
    monitored: bool = False
    ether: Ether | None = None
    vlan: int | None = None
    icmp_type: int | None = None


_ECHO: Final = {1: (8, 0), 58: (128, 129)}
"""Request and reply, of ICMP and ICMPv6."""


class Events:
    def __init__(self, programs: Programs) -> None:
        self._layout = programs.layouts("event_draft")[1]
        self._key = self._layout.parts["key"]
        self._ether = self._layout.parts["ether"]
        self._lost = programs.fd("events_lost")
        self.ring = Ring(programs.fd("events"), self._layout.size, self._event)

    def lost(self) -> int:
        raw = bpf.lookup(self._lost, bytes(4), 8 * bpf.possible_cpus()) or b""
        return sum(int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8))

    def _event(self, raw: bytes) -> Event:
        event = self._layout.unpack(raw)
        raw_key = self._key.unpack(event["key"])
        key = key_fields(raw_key)
        source, destination = ("remote", "local") if event["direction"] == 0 else ("local", "remote")
        return Event(
            time_ns=event["time_ns"],
            slot=event["slot"],
            ifindex=event["ifindex"],
            rule_id=event["rule_id"],
            action=ACTIONS[event["action"]],
            reason=Reason(event["reason"]).name.lower(),
            direction=DIRECTIONS[event["direction"]],
            protocol=key["protocol"],
            source=key[source],
            source_port=key[f"{source}_port"],
            destination=key[destination],
            destination_port=key[f"{destination}_port"],
            length=event["length"],
            suppressed=event["suppressed"],
            monitored=bool(event["monitored"]),
            ether=self._ether_of(event["ether"]),
            vlan=key["vlan"],
            icmp_type=_echo_type(raw_key, event["direction"]),
        )

    def _ether_of(self, raw: bytes) -> Ether | None:
        ether = self._ether.unpack(raw)
        if not ether["type"]:
            return None
        vlan = None if ether["vlan"] == constant("UNTAGGED") else ether["vlan"]
        return Ether(ether["source"].hex(":"), ether["destination"].hex(":"), ether["type"], vlan)


def _echo_type(key: dict[str, Any], direction: int) -> int | None:
    """The ICMP type of an echo, told from other ICMP by its identifier (which some echoes have not)."""
    if key["protocol"] not in _ECHO or not key["remote_port"]:
        return None
    request, reply = _ECHO[key["protocol"]]
    return request if key["query_in"] == (direction == 0) else reply
