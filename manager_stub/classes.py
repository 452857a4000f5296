"""How many classes of addresses a host must tell apart. Pure.

A class is what an address is known by: the groups of the vNIC that has it, and the prefixes around it that
groups and rules list, of which the longest says all. MAC addresses have classes of their own where there
are Ethernet rules: the groups these name that list one, and those of the vNIC that alone has it. Each class
is two rows of bits in the tables of the host (vsfwd/policy/compile.py, ethernet.py), so classes, not
addresses, are what its memory is for."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from manager_stub.span import Objects
from vsfwd.policy.model import Prefix, parse_address

WIDTH = {4: 32, 6: 128}


class _Listing(msgspec.Struct):
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class _Card(msgspec.Struct):
    mac: str
    groups: tuple[str, ...] = ()


class _Macs(msgspec.Struct):
    macs: tuple[str, ...] = ()


class _Ends(msgspec.Struct):
    sources: _Listing | None = None
    destinations: _Listing | None = None


def classes(objects: Objects, limit: int) -> int:
    """At most so many, of what a host is sent. Exact only if it may be over the limit: addresses are counted
    sooner, and there are no more classes than addresses."""
    vnics = list(_listings(objects["vnics"].values()))
    prefixes = {prefix for text in _listed(objects) for prefix in parse_address(text)}
    prefixes |= {Prefix(4, 0, 0), Prefix(6, 0, 0)}  # everything else is a class, too
    macs = _mac_classes(objects)
    most = len(prefixes) + sum(len(vnic.addresses) for vnic in vnics) + macs
    if most <= limit:
        return most
    known: set[tuple[Prefix, tuple[str, ...]]] = {(prefix, ()) for prefix in prefixes}
    lengths = {
        family: sorted({p.length for p in prefixes if p.family == family}, reverse=True) for family in WIDTH
    }
    for vnic in vnics:
        for text in vnic.addresses:
            (host,) = parse_address(text)
            around = (_widened(host, length) for length in lengths[host.family])
            known.add((next(prefix for prefix in around if prefix in prefixes), vnic.groups))
    return len(known) + macs


def _mac_classes(objects: Objects) -> int:
    """Of MAC addresses, the one of all that no rule knows among them; none without Ethernet rules."""
    rules = [raw for raw in objects["rules"].values() if b'"frames"' in raw]
    if not rules:
        return 0
    ends = (msgspec.json.decode(raw, type=_Ends) for raw in rules)
    named = {
        group for each in ends for end in (each.sources, each.destinations) if end for group in end.groups
    }
    listed: dict[str, set[str]] = defaultdict(set)
    for id in named & objects["groups"].keys():
        for mac in msgspec.json.decode(objects["groups"][id], type=_Macs).macs:
            listed[mac].add(id)
    members: dict[str, list[frozenset[str]]] = defaultdict(list)
    for raw in objects["vnics"].values():
        card = msgspec.json.decode(raw, type=_Card)
        members[card.mac].append(frozenset(card.groups) & named)
    known = {(frozenset[str](), frozenset[str]())}
    for mac in listed.keys() | members.keys():
        of = members.get(mac, [])
        known.add((frozenset(listed.get(mac, ())), of[0] if len(of) == 1 else frozenset()))
    return len(known)


def _listed(objects: Objects) -> Iterator[str]:
    """The addresses of groups and rules, as texts."""
    for group in _listings(objects["groups"].values()):
        yield from group.addresses
    for raw in objects["rules"].values():
        if b'"addresses"' in raw:
            rule = msgspec.json.decode(raw, type=_Ends)
            for end in (rule.sources, rule.destinations):
                yield from end.addresses if end else ()


def _listings(raws: Iterable[bytes]) -> Iterator[_Listing]:
    return (msgspec.json.decode(raw, type=_Listing) for raw in raws if b'"addresses"' in raw)


def _widened(prefix: Prefix, length: int) -> Prefix:
    shift = WIDTH[prefix.family] - length
    return Prefix(prefix.family, prefix.bits >> shift << shift, length)
