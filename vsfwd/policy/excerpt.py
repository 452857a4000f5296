"""The part of a state that one question is about, for who asks ten thousand of them.

`evaluate` is written for reading: every answer looks through all rules, groups and vNICs. What it says of an
excerpt is what it says of the whole state, but for rules passed over; a test holds it to that. Pure, but it
remembers what it found."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Address, Packet, near_rules
from vsfwd.policy.model import Direction, Rule, parse_address


class Excerpts:
    """Of one state."""

    def __init__(self, state: DesiredState) -> None:
        self._state = state
        self._claims: dict[Address, list[str]] = defaultdict(list)
        self._having: dict[str, list[str]] = defaultdict(list)
        for id, vnic in state.vnics.items():
            self._having[vnic.mac].append(id)
            for text in vnic.addresses:
                self._claims[ip_address(text)].append(id)
        self._listing: dict[tuple[int, int], dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        """Groups by family and length of a prefix, and its bits."""
        self._listing_macs: dict[str, list[str]] = defaultdict(list)
        for id, group in state.groups.items():
            for mac in group.macs:
                self._listing_macs[mac].append(id)
            for prefix in (each for text in group.addresses for each in parse_address(text)):
                self._listing[prefix.family, prefix.length][prefix.bits].append(id)
        self._rules: dict[tuple[str, Direction, Address], Mapping[int, Rule]] = {}

    def about(self, packet: Packet, vnic: str, direction: Direction) -> DesiredState:
        """A state that says of this packet what the whole says, in the frame that follows from the policy."""
        there = self._about([packet.source, packet.destination], vnic)
        near = packet.source if direction is Direction.OUT else packet.destination
        key = (vnic, direction, near)
        if key not in self._rules:
            self._rules[key] = near_rules(there, near, vnic, direction)
        return replace(there, rules=self._rules[key])

    def _about(self, addresses: Iterable[Address], vnic: str) -> DesiredState:
        """All rules, and of vNICs and groups those that matter to these addresses at this vNIC."""
        state = self._state
        having = {vnic}.union(*(self._claims.get(address, ()) for address in addresses))
        macs = {state.vnics[id].mac for id in having}
        # A MAC address of two is nobody's, however many more have it.
        having = having.union(*(self._having[mac][:2] for mac in macs))
        own = map(ip_address, state.vnics[vnic].addresses)
        listing = {id for address in (*addresses, *own) for id in self._groups(address)}
        listing.update(id for mac in macs for id in self._listing_macs.get(mac, ()))
        return replace(
            state,
            groups={id: state.groups[id] for id in listing},
            vnics={id: state.vnics[id] for id in having},
        )

    def _groups(self, address: Address) -> Iterable[str]:
        """Those that list a prefix around it."""
        for (family, length), groups in self._listing.items():
            if family == address.version:
                shift = address.max_prefixlen - length
                yield from groups.get(int(address) >> shift << shift, ())
