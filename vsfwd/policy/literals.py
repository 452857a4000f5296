"""What the policy names by address.

A group's addresses and a rule's own are all prefixes, a host being the longest; an address is hit by every
prefix that covers it. This module follows the addresses of groups as they change; who owns an address is
`compile`'s matter."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from vsfwd.image import PrefixKey
from vsfwd.policy.bits import IPV4_MAPPED, NO_HITS, Hits, RuleBits, prefixes_of, union
from vsfwd.policy.layered import different
from vsfwd.policy.model import Group

WIDTH: Final = {4: 32, 6: 128}
ROOTS: Final = (PrefixKey(4, 0, IPV4_MAPPED), PrefixKey(6, 0, 0))
"""Always there, so that every address has an entry that covers it."""


def family_of(address: int) -> int:
    """The family of an address or prefix as the image writes it: no IPv6 prefix begins inside
    ::ffff:0:0/96."""
    return 4 if address >> 32 == 0xFFFF else 6


class Literals:
    """What the policy names by address: hosts and prefixes, with the rules an address hits through them."""

    def __init__(self, bits: RuleBits, groups: Mapping[str, Group]) -> None:
        self.bits = bits
        self._hits: dict[PrefixKey, Hits] = {root: NO_HITS for root in ROOTS} | dict(bits.literals)
        # Which group that a rule names lists a prefix, and by which text: two texts can mean the same prefix.
        self._listed: dict[PrefixKey, set[tuple[str, str]]] = defaultdict(set)
        for id in groups.keys() & bits.groups.keys():
            for text in groups[id].addresses:
                for key in prefixes_of(text):
                    self._listed[key].add((id, text))
        for key in self._listed:
            self._refresh(key)
        self._lengths = {
            family: sorted({key.length for key in self._hits if key.family == family} | {width})
            for family, width in WIDTH.items()
        }

    def covering(self, address: int, longest: int = 128) -> Hits:
        """The hits of an address through all prefixes that cover it, up to a length."""
        family = family_of(address)
        found = []
        for length in self._lengths[family]:
            if length > longest:
                break
            shift = WIDTH[family] - length
            hits = self._hits.get(PrefixKey(family, length, address >> shift << shift))
            if hits:
                found.append(hits)
        return union(found)

    def lists(self, address: int) -> bool:
        """Whether this very address is named, not only a prefix around it."""
        family = family_of(address)
        return PrefixKey(family, WIDTH[family], address) in self._hits

    def hosts(self) -> set[int]:
        return {key.address for key in self._hits if _is_host(key)}

    def prefixes(self) -> list[PrefixKey]:
        return [key for key in self._hits if not _is_host(key)]

    def change(self, before: Mapping[str, Group], after: Mapping[str, Group]) -> set[int] | None:
        """Follow a change of groups; the host addresses it concerns, or None if it concerns a prefix, under
        which any number of hosts may lie."""
        touched: set[PrefixKey] = set()
        for id in different(before, after) & self.bits.groups.keys():
            old, new = (set(groups[id].addresses) if id in groups else set() for groups in (before, after))
            for text in old ^ new:
                for key in prefixes_of(text):
                    if not _is_host(key):
                        return None
                    self._listed[key].symmetric_difference_update({(id, text)})
                    touched.add(key)
        for key in touched:
            self._refresh(key)
        return {key.address for key in touched}

    def _refresh(self, key: PrefixKey) -> None:
        named = [self.bits.groups.get(group, NO_HITS) for group in {group for group, _ in self._listed[key]}]
        if key in self.bits.literals:
            named.append(self.bits.literals[key])
        if named or key in ROOTS:
            self._hits[key] = union(named)
        else:
            self._hits.pop(key, None)


def _is_host(key: PrefixKey) -> bool:
    return key.length == WIDTH[key.family]
