"""Whom a change concerns. Pure.

What a host needs is asked of `span`, which takes time for every host. Most changes are nothing to most hosts,
and that can be told from what came, went or changed and from what the host was to have. It is never said of a
host that would need something else; of some it is not said though they would need the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from manager_stub.hosts import Host
from manager_stub.span import Card, Realised


@dataclass(frozen=True)
class Difference:
    """`everybody`: rules have changed, or what they apply to. `groups`: those that changed themselves or in
    their members. `vnics`: those that changed, and those that share an address with one that did."""

    everybody: bool
    groups: Set[str]
    vnics: Set[str]

    def concerns(self, host: Host) -> bool:
        if self.everybody or host.problem:
            return True
        had = host.level.wanted.objects
        return (
            not had["vnics"].keys().isdisjoint(self.vnics)
            or not had["groups"].keys().isdisjoint(self.groups)
            or not host.vnics.isdisjoint(self.vnics)
        )


def concerned(before: Realised, after: Realised, hosts: Iterable[Host]) -> Iterator[Host]:
    """Of hosts with the same vNICs as before."""
    difference = between(before, after)
    return (host for host in hosts if difference.concerns(host))


def between(before: Realised, after: Realised) -> Difference:
    groups = _changed(before.groups, after.groups)
    if after.rules is not before.rules or not groups.isdisjoint(after.rules.scopes):
        return Difference(True, set(), set())
    vnics = _changed(before.cards, after.cards)
    sharing: set[str] = set()
    for vnic in vnics:
        old, new = before.cards.get(vnic), after.cards.get(vnic)
        groups |= _memberships(old) ^ _memberships(new)
        for address in _claims(old) ^ _claims(new):
            for claims in (before.claims, after.claims):
                sharing |= claims.get(address, frozenset())
    return Difference(False, groups, vnics | sharing)


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """By identity: what a change leaves alone stays the same object."""
    if before is after:
        return set()
    return {id for id in before.keys() | after.keys() if before.get(id) is not after.get(id)}


def _memberships(card: Card | None) -> frozenset[str]:
    return card.memberships if card else frozenset()


def _claims(card: Card | None) -> frozenset[str]:
    return frozenset(card.claimed()) if card else frozenset()
