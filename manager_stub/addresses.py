"""What a claim of an address is worth: whether a vNIC that was seen with an address has it. Pure.

An address belongs to one vNIC of a segment. What somebody typed comes first, then what somebody approved,
then leases of servers we know, then what else was seen: what workloads say of themselves (ARP, neighbour
discovery) and leases of others; among equals the first that was seen. So no workload takes an address from
another by claiming it: the second claim is refused, and told.

A server we know is a vNIC of the same segment that is marked as one: the datapath lets no other vNIC answer
as a server does. One that is no vNIC (a router's relay, a machine beside the hosts) may be anybody: its
leases neither outrank nor replace anything, and no answer ends one of them sooner. And that a server answered
is the word of a host, which may be an attacker's: a lease outranks no claim that another host has told
earlier of a vNIC it has.

An address that several segments have belongs to nobody seen from a third (`vsfwd.policy.evaluate`). So where
a vNIC of another segment has it already, a claim waits until somebody approves it; who wants overlapping
addresses types or approves them. Link-local addresses are of their segment only (RFC 3927, RFC 4291), so of
them none waits for that.

A claim that nobody disputes is trusted as the vNIC's SpoofGuard says. MANUAL: once it is approved. TOFU: the
first IPv4, the first link-local and the first other IPv6 address, unless such a one was typed. DISABLED:
always, but only of a vNIC for which nothing was typed: who types addresses wants those and no others.

A trusted address is the vNIC's like a typed one: it is sent to hosts, counts in groups, and SpoofGuard lets
the vNIC send from it."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import Final

from manager_stub.model import Segment, SpoofGuard, Vnic
from manager_stub.world import Claimed, Stored, World
from vsfwd.protocol.messages import Addresses, Binding, Claim, Source, has_room


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
    anywhere = {address: vnic.id for vnic in cards.values() for address in vnic.addresses}
    pinned = {(vnic.id, _scope(address)) for vnic in cards.values() for address in vnic.addresses}
    claims = [(cards[vnic], address, claimed) for vnic, address, claimed in _claims(world) if vnic in cards]
    servers, told = _servers(world), _told(world, claims)
    judged: dict[str, list[Judged]] = {}
    for vnic, address, claimed in sorted(claims, key=partial(_precedence, servers, told)):
        vnic_id = vnic.id
        owner = owners.get((vnic.segment_path, address))
        segment = world.segments[vnic.segment_path] if vnic.segment_path else None
        if owner is not None and owner != vnic_id:
            state, reason = State.REFUSED, f"it belongs to vNIC {owner}"
        elif owner == vnic_id:
            state, reason = State.TRUSTED, "typed"
        else:
            pin = (vnic_id, _scope(address)) not in pinned
            state, reason = _trust(claimed, spoofguard(vnic, segment), pin, bool(vnic.addresses))
            other = anywhere.get(address)
            if (
                state is State.TRUSTED
                and other
                and not (claimed.approved or ip_address(address).is_link_local)
            ):
                state, reason = State.WAITING, f"vNIC {other} of another segment has it"
        if state is State.TRUSTED:
            owners[vnic.segment_path, address] = vnic_id
            anywhere.setdefault(address, vnic_id)
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
Servers = Mapping[str, Set[str]]
"""By vNIC, the MAC addresses of its segment's DHCP servers that we know."""
Told = Mapping[tuple[str | None, str], Mapping[str, int]]
"""When each host told first of an address of a segment, for vNICs that are plugged there."""


def told(world: World, host: str, plugged: frozenset[str], said: Addresses, now_ms: int) -> Claims:
    """What is known after a host said what it saw. It can speak only for vNICs that are plugged there; what
    it does not repeat stays, since a vNIC that moves is the same vNIC. A host that says more than there is
    room for is not believed."""
    after = dict(world.claims)
    servers = _servers(world)
    for vnic in said.vnics.keys() & plugged:
        known = dict(after.get(vnic, {}))
        for claim in said.vnics[vnic]:
            before = known.get(claim.address)
            if before is not None:
                known[claim.address] = replace(_again(before, claim, servers.get(vnic, set())), host=host)
            elif _has_room(known, claim.source):
                known[claim.address] = Claimed(claim.source, claim.expires, host, now_ms, server=claim.server)
        after[vnic] = known
    return after


def _again(before: Claimed, claim: Claim, servers: Set[str]) -> Claimed:
    """What is known of an address that is claimed once more at its vNIC. What a workload says itself never
    ends."""
    if claim.server in servers:
        return replace(before, source=claim.source, expires=claim.expires, server=claim.server)
    if before.server in servers:
        return before
    return replace(before, expires=_later(before.expires, claim.expires))


def _later(*expires: int) -> int:
    return 0 if 0 in expires else max(expires)


def _servers(world: World) -> Servers:
    cards = [vnic for vm in world.vms.values() for vnic in vm.body.vnics]
    marked: dict[str | None, set[str]] = {}
    for vnic in cards:
        if vnic.dhcp_server:
            marked.setdefault(vnic.segment_path, set()).add(vnic.mac)
    return {vnic.id: marked[vnic.segment_path] for vnic in cards if vnic.segment_path in marked}


def _has_room(known: Mapping[str, Claimed], source: Source) -> bool:
    return has_room((each.source for each in known.values()), source)


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
            if _has_room(known, Source.TOOLS):
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


def _told(world: World, claims: Iterable[tuple[Vnic, str, Claimed]]) -> Told:
    found: dict[tuple[str | None, str], dict[str, int]] = {}
    for vnic, address, claimed in claims:
        hosts = found.setdefault((vnic.segment_path, address), {})
        if claimed.host in world.plugged.get(vnic.id, ()):
            hosts[claimed.host] = min(claimed.first_seen_ms, hosts.get(claimed.host, claimed.first_seen_ms))
    return found


def _precedence(
    servers: Servers, told: Told, claim: tuple[Vnic, str, Claimed]
) -> tuple[bool, bool, int, str, str]:
    vnic, address, claimed = claim
    when, hosts = claimed.first_seen_ms, told[vnic.segment_path, address]
    given = claimed.server in servers.get(vnic.id, ())
    given = given and not any(host != claimed.host and earlier < when for host, earlier in hosts.items())
    return not claimed.approved, not given, when, vnic.id, address


def _scope(text: str) -> str:
    """Of an address in its usual form, by its letters: all that is claimed is judged whenever something
    is."""
    if ":" not in text:
        return "ipv4"
    first = text.partition(":")[0]
    return "link-local" if len(first) == 4 and first[:3] in _LINK_LOCAL else "ipv6"


_LINK_LOCAL: Final = ("fe8", "fe9", "fea", "feb")
"""fe80::/10 (RFC 4291): what the first four digits begin with."""
