"""Groups as a whole: which are in which, and the literal addresses that each has. Pure.

A group that another one names gives it its members and its addresses. Who is a member is `membership`.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from manager_stub.conditions import Asked, asked
from manager_stub.model import (
    Condition,
    ConjunctionOperator,
    Expression,
    ExternalIDExpression,
    Group,
    IPAddressExpression,
    MACAddressExpression,
    NestedExpression,
    PathExpression,
)
from manager_stub.world import Stored, kind_of
from vsfwd.policy.model import Prefix, parse_address


class Lists(NamedTuple):
    """The literal addresses of a group and of the groups in it, each once, in a stable order."""

    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True)
class Reason:
    """Why somebody is a member: the parts of the expression that hold together. `group`: the one in which
    that vNIC is a member, if it is one through another group."""

    where: str
    what: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an expression that makes members, with its place, and the conditions in it as questions."""

    index: int
    item: Expression
    conditions: tuple[tuple[Condition, Asked], ...] = ()


Terms = tuple[tuple[Part, ...], ...]
"""What stands between the ORs, and what is joined by AND there. Addresses make no members, and are left
out."""


@dataclass(frozen=True)
class Groups:
    """All groups, since they name each other. `fresh`: those that changed, or have one that changed in them,
    since the Groups these were made from."""

    stored: Mapping[str, Stored[Group]]
    terms: Mapping[str, Terms]
    lists: Mapping[str, Lists]
    fresh: frozenset[str] = frozenset()


NONE: Final = Groups({}, {}, {})


def grouped(stored: Mapping[str, Stored[Group]], before: Groups = NONE) -> Groups:
    fresh = _fresh(stored, before.stored)
    lists: dict[str, Lists] = {}

    def of(path: str) -> Lists:
        if path not in lists:
            body = stored[path].body
            lists[path] = _lists(body, map(of, _groups_in(body))) if path in fresh else before.lists[path]
        return lists[path]

    for path in stored:
        of(path)
    terms = {
        path: before.terms[path] if before.stored.get(path) is group else _terms(group.body)
        for path, group in stored.items()
    }
    return Groups(stored, terms, lists, fresh)


def _terms(group: Group) -> Terms:
    terms: list[list[Part]] = [[]]
    for index, item in enumerate(group.expression):
        match item:
            case ConjunctionOperator(conjunction_operator="OR"):
                terms.append([])
            case Condition():
                terms[-1].append(Part(index, item, ((item, asked(item)),)))
            case NestedExpression():
                questions = tuple((condition, asked(condition)) for condition in item.conditions)
                terms[-1].append(Part(index, item, questions))
            case PathExpression() | ExternalIDExpression():
                terms[-1].append(Part(index, item))
    return tuple(tuple(term) for term in terms if term)


def _fresh(stored: Mapping[str, Stored[Group]], before: Mapping[str, Stored[Group]]) -> frozenset[str]:
    having: dict[str, list[str]] = {}
    for path, group in stored.items():
        for inner in nested(group.body):
            having.setdefault(inner, []).append(path)
    waiting = [path for path, group in stored.items() if before.get(path) is not group]
    fresh: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path not in fresh:
            fresh.add(path)
            waiting += having.get(path, ())
    return frozenset(fresh)


def nested(group: Group) -> list[str]:
    """Paths of the groups it names: as members, or to exclude their members."""
    return [reference.path for reference in group.references() if reference.kind == "groups"]


def _groups_in(group: Group) -> list[str]:
    """Whose members and addresses are its own."""
    named = (path for item in group.expression if isinstance(item, PathExpression) for path in item.paths)
    return [path for path in named if kind_of(path) == "groups"]


def _lists(group: Group, inner: Iterable[Lists]) -> Lists:
    addresses, macs = set[str](), set[str]()
    for item in group.expression:
        match item:
            case IPAddressExpression():
                addresses.update(item.ip_addresses)
            case MACAddressExpression():
                macs.update(item.mac_addresses)
    for each in inner:
        addresses.update(each.addresses)
        macs.update(each.macs)
    return Lists(
        tuple(sorted(addresses)),
        tuple(sorted(macs)),
        tuple(prefix for text in sorted(addresses) for prefix in parse_address(text)),
    )


def covers(prefixes: Iterable[Prefix], address: str) -> bool:
    """Whether the address of a host is in one of the prefixes."""
    parsed = ip_address(address)
    return any(
        prefix.family == parsed.version
        and int(parsed) >> (parsed.max_prefixlen - prefix.length)
        == prefix.bits >> (parsed.max_prefixlen - prefix.length)
        for prefix in prefixes
    )


def naming(groups: Mapping[str, Stored[Group]], paths: Set[str]) -> frozenset[str]:
    """These, and the groups that name one of them, directly or through each other."""
    found = set(paths)
    while more := {
        path
        for path, group in groups.items()
        if path not in found and any(reference.path in found for reference in group.body.references())
    }:
        found |= more
    return frozenset(found)


def literals(groups: Groups, path: str) -> Iterator[tuple[str, Reason]]:
    """The addresses that a group lists, or has from a group in it, and where."""
    for index, item in enumerate(groups.stored[path].body.expression):
        if isinstance(item, IPAddressExpression):
            for place, address in enumerate(item.ip_addresses):
                yield address, Reason(f"expression.{index}.ip_addresses.{place}", address)
        elif isinstance(item, PathExpression):
            for inner in dict.fromkeys(item.paths):
                if kind_of(inner) == "groups":
                    where = f"expression.{index}.paths.{item.paths.index(inner)}"
                    for address in groups.lists[inner].addresses:
                        yield address, Reason(where, inner, inner)
