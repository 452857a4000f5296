"""What a claim of an address is worth: whether a vNIC that was seen with an address has it. Pure.

An address belongs to one vNIC of a segment. What somebody typed comes first, then what somebody approved,
then leases, then what workloads say of themselves (ARP, neighbour discovery); among equals the first that was
seen. So no workload takes an address from another by claiming it: the second claim is refused, and told.

A claim that nobody disputes is trusted as the vNIC's SpoofGuard says. MANUAL: once it is approved. TOFU: the
first IPv4, the first link-local and the first other IPv6 address, unless such a one was typed. DISABLED:
always, but only of a vNIC for which nothing was typed: who types addresses wants those and no others.

A trusted address is the vNIC's like a typed one: it is sent to hosts, counts in groups, and SpoofGuard lets
the vNIC send from it."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from manager_stub.model import Segment, SpoofGuard, Vnic
from manager_stub.world import Claimed, Stored, World
from vsfwd.protocol.messages import Addresses, Binding, Source

MAX_CLAIMS: Final = 128
"""Of one vNIC: what a host sends (NSX). A host that says more is not believed."""
_LEASED: Final = (Source.DHCP, Source.DHCPV6)


class State(StrEnum):
    TRUSTED = "TRUSTED"
    WAITING = "WAITING"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Judged:
    """`reason` is for people."""

    vnic: str
    address: str
    claimed: Claimed
    state: State
    reason: str


Judgements = Mapping[str, tuple[Judged, ...]]
"""By vNIC, all that is claimed there."""


def spoofguard(vnic: Vnic, segment: Stored[Segment] | None) -> SpoofGuard:
    """A vNIC's own mode, or its segment's, or none."""
    return vnic.spoofguard or (segment.body.spoofguard if segment else "DISABLED")


def judge(world: World) -> Judgements:
    cards = {vnic.id: vnic for vm in world.vms.values() for vnic in vm.body.vnics}
    owners = {(vnic.segment_path, address): vnic.id for vnic in cards.values() for address in vnic.addresses}
    pinned = {(vnic.id, _scope(address)) for vnic in cards.values() for address in vnic.addresses}
    judged: dict[str, list[Judged]] = {}
    for vnic_id, address, claimed in sorted(_claims(world), key=_precedence):
        if vnic_id not in cards:
            continue
        vnic = cards[vnic_id]
        owner = owners.get((vnic.segment_path, address))
        segment = world.segments[vnic.segment_path] if vnic.segment_path else None
        if owner is not None and owner != vnic_id:
            state, reason = State.REFUSED, f"it belongs to vNIC {owner}"
        elif owner == vnic_id:
            state, reason = State.TRUSTED, "typed"
        else:
            pin = (vnic_id, _scope(address)) not in pinned
            state, reason = _trust(claimed, spoofguard(vnic, segment), pin, bool(vnic.addresses))
        if state is State.TRUSTED:
            owners[vnic.segment_path, address] = vnic_id
            pinned.add((vnic_id, _scope(address)))
        judged.setdefault(vnic_id, []).append(Judged(vnic_id, address, claimed, state, reason))
    return {vnic_id: tuple(found) for vnic_id, found in judged.items()}


def _trust(claimed: Claimed, mode: SpoofGuard, first: bool, typed: bool) -> tuple[State, str]:
    if claimed.approved:
        return State.TRUSTED, "approved"
    if mode == "MANUAL":
        return State.WAITING, "nobody has approved it"
    if mode == "TOFU":
        return (State.TRUSTED, "first use") if first else (State.WAITING, "not the first of its kind")
    return (State.WAITING, "others are typed") if typed else (State.TRUSTED, "seen")


def trusted(judgements: Judgements, vnic: str) -> tuple[str, ...]:
    return tuple(sorted(each.address for each in judgements.get(vnic, ()) if each.state is State.TRUSTED))


Claims = Mapping[str, Mapping[str, Claimed]]


def told(claims: Claims, host: str, plugged: frozenset[str], said: Addresses, now_ms: int) -> Claims:
    """What is known after a host said what it saw. It can speak only for vNICs that are plugged there; what
    it does not repeat stays, since a vNIC that moves is the same vNIC."""
    after = dict(claims)
    for vnic in said.vnics.keys() & plugged:
        known = dict(after.get(vnic, {}))
        for claim in said.vnics[vnic]:
            before = known.get(claim.address)
            if before is not None:
                leased = claim.source in _LEASED
                source, expires = (claim.source, claim.expires) if leased else (before.source, before.expires)
                known[claim.address] = replace(before, source=source, expires=expires, host=host)
            elif len(known) < MAX_CLAIMS:
                known[claim.address] = Claimed(claim.source, claim.expires, host, now_ms)
        after[vnic] = known
    return after


def told_by_tools(claims: Claims, host: str, bindings: Iterable[Binding], now_ms: int) -> Claims:
    """What is known after a host said which vNICs are plugged there. All that a guest's tools say is said
    each time, so what they do not repeat has gone."""
    after = dict(claims)
    for binding in bindings:
        known = {
            address: claimed
            for address, claimed in after.get(binding.vnic, {}).items()
            if claimed.source is not Source.TOOLS or claimed.approved or address in binding.addresses
        }
        for address in binding.addresses:
            if len(known) < MAX_CLAIMS:
                known.setdefault(address, Claimed(Source.TOOLS, 0, host, now_ms))
        if known != after.get(binding.vnic, {}):
            after[binding.vnic] = known
    return after


def alive(claims: Claims, vnics: Set[str], now_s: int) -> Claims:
    """Of these vNICs, without leases that have ended."""
    return {
        vnic: {
            address: claimed
            for address, claimed in known.items()
            if claimed.approved or not 0 < claimed.expires <= now_s
        }
        for vnic, known in claims.items()
        if vnic in vnics
    }


def _claims(world: World) -> Iterator[tuple[str, str, Claimed]]:
    for vnic, known in world.claims.items():
        for address, claimed in known.items():
            yield vnic, address, claimed


def _precedence(claim: tuple[str, str, Claimed]) -> tuple[bool, bool, int, str, str]:
    vnic, address, claimed = claim
    return not claimed.approved, claimed.source not in _LEASED, claimed.first_seen_ms, vnic, address


def _scope(text: str) -> str:
    address = ip_address(text)
    return "ipv4" if address.version == 4 else "link-local" if address.is_link_local else "ipv6"
