"""How many classes of addresses a host must tell apart. Pure.

A class is what an address is known by: the groups of the vNIC that has it, and the prefixes around it that
groups and rules list, of which the longest says all. Each class is two rows of bits in the tables of the host
(vsfwd/policy/compile.py), so classes, not addresses, are what its memory is for."""

from collections.abc import Iterable, Iterator

import msgspec

from manager_stub.span import Objects
from vsfwd.policy.model import Prefix, parse_address

WIDTH = {4: 32, 6: 128}


class _Listing(msgspec.Struct):
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class _Ends(msgspec.Struct):
    sources: _Listing | None = None
    destinations: _Listing | None = None


def classes(objects: Objects, limit: int) -> int:
    """At most so many, of what a host is sent. Exact only if it may be over the limit: addresses are counted
    sooner, and there are no more classes than addresses."""
    vnics = list(_listings(objects["vnics"].values()))
    prefixes = {prefix for text in _listed(objects) for prefix in parse_address(text)}
    prefixes |= {Prefix(4, 0, 0), Prefix(6, 0, 0)}  # everything else is a class, too
    most = len(prefixes) + sum(len(vnic.addresses) for vnic in vnics)
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
