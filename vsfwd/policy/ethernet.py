"""MAC addresses as the image has them: what Ethernet rules know a frame's ends by.

A MAC address is known by the groups that list it and, where one vNIC alone has it, by that vNIC's groups. All
MAC addresses that no Ethernet rule asks about are one. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from vsfwd.image import MAC_SEGMENT, OTHER_MAC, OWNER_NONE, HostEntry, HostKey
from vsfwd.policy.bits import NO_HITS, FrameBits, Hits, union
from vsfwd.policy.model import Group, Vnic


def mac_entries(
    bits: FrameBits,
    groups: Mapping[str, Group],
    vnics: Mapping[str, Vnic],
    owner: Callable[[str], int],
    number: Callable[[int], int],
) -> dict[HostKey, HostEntry]:
    """Entries of all MAC addresses that Ethernet rules ask about, and the one of all others; none where there
    are no such rules. `owner` answers the place of a vNIC, `number` that of a row."""
    if not bits.services:
        return {}

    def entry(hits: Hits, literal: Hits, owner: int) -> HostEntry:
        return HostEntry(
            source=number(bits.source_row(hits)),
            destination=number(bits.destination_row(hits)),
            literal=number(bits.source_row(literal)),
            owner=owner,
        )

    listed = _listed(bits, groups)
    claims: dict[str, list[str]] = defaultdict(list)
    for id, vnic in vnics.items():
        claims[vnic.mac].append(id)
    entries = {HostKey(MAC_SEGMENT, OTHER_MAC): entry(NO_HITS, NO_HITS, OWNER_NONE)}
    for mac in sorted(listed.keys() | claims.keys()):
        literal, claimants = listed.get(mac, NO_HITS), claims.get(mac, [])
        hits = literal
        if len(claimants) == 1:
            hits = union((literal, *_named(bits, vnics[claimants[0]].groups)))
        if hits != NO_HITS:
            there = owner(claimants[0]) if len(claimants) == 1 else OWNER_NONE
            entries[HostKey(MAC_SEGMENT, int(mac.replace(":", ""), 16))] = entry(hits, literal, there)
    return entries


def _listed(bits: FrameBits, groups: Mapping[str, Group]) -> dict[str, Hits]:
    """Hits of MAC addresses through the groups that list them."""
    found: dict[str, list[Hits]] = defaultdict(list)
    for id in bits.groups.keys() & groups.keys():
        for mac in groups[id].macs:
            found[mac].append(bits.groups[id])
    return {mac: union(hits) for mac, hits in found.items()}


def _named(bits: FrameBits, groups: Iterable[str]) -> list[Hits]:
    return [bits.groups[group] for group in groups if group in bits.groups]
