"""Which vNICs are members of a group, why, and which literal addresses it has. Pure.

A vNIC is a member through itself, its VM, its segment, or the cluster or datacenter of the host where it is
plugged. AND binds tighter than OR. A group that another one names gives it its members and its addresses.
Addresses, of IP or of Ethernet, make nobody a member; as scope those of IP select the vNICs that have one of
them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from manager_stub.conditions import in_words, meets
from manager_stub.model import (
    Cluster,
    Condition,
    ConjunctionOperator,
    Datacenter,
    Entity,
    ExcludedMembers,
    Expression,
    ExternalIDExpression,
    Group,
    IPAddressExpression,
    MACAddressExpression,
    NestedExpression,
    PathExpression,
    Segment,
    Tag,
    Vm,
    Vnic,
)
from manager_stub.world import Stored, World, id_of, kind_of
from vsfwd.policy.model import Prefix, parse_address


class Lists(NamedTuple):
    """The literal addresses of a group and of the groups in it, each once, in a stable order."""

    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True)
class Groups:
    """All groups, since they name each other. `fresh`: those that changed, or have one that changed in them,
    since the Groups these were made from."""

    stored: Mapping[str, Stored[Group]]
    lists: Mapping[str, Lists]
    fresh: frozenset[str] = frozenset()


NONE: Final = Groups({}, {})


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
    return Groups(stored, lists, fresh)


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


@dataclass(frozen=True)
class Candidate:
    """A vNIC with all that a group asks about. Its addresses are those set by hand: what a workload says of
    itself makes it no exception."""

    vm: Stored[Vm]
    vnic: Vnic
    segment: Stored[Segment] | None = None
    clusters: tuple[Stored[Cluster], ...] = ()
    datacenters: tuple[Stored[Datacenter], ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """All that it is a part of, by path; the vNIC itself too."""
        owners = (self.vm, self.segment, *self.clusters, *self.datacenters)
        return frozenset((vnic_path(self.vnic.id), *(owner.path for owner in owners if owner)))

    def stands_where(self, other: "Candidate") -> bool:
        """On the same segment and in the same places, none of them changed."""
        mine = (self.segment, *self.clusters, *self.datacenters)
        others = (other.segment, *other.clusters, *other.datacenters)
        return len(mine) == len(others) and all(one is two for one, two in zip(mine, others, strict=True))


def vnic_path(vnic: str) -> str:
    return f"/vsfw/vnics/{vnic}"


@dataclass(frozen=True)
class Reason:
    """Why somebody is a member: the parts of the expression that hold together. `group`: the one in which
    that vNIC is a member, if it is one through another group."""

    where: str
    what: str
    group: str | None = None


class Membership:
    """What one vNIC is a member of. `settled` says it of groups of which it is known already, None of the
    others."""

    def __init__(
        self, groups: Groups, candidate: Candidate, settled: Callable[[str], bool | None] = lambda _: None
    ) -> None:
        self._groups = groups
        self._candidate = candidate
        self._settled = settled
        self._known: dict[str, bool] = {}
        self._paths = candidate.paths

    def __contains__(self, path: str) -> bool:
        known = self._known.get(path)
        if known is None:
            known = self._settled(path)
            if known is None:
                terms = _terms(self._groups.stored[path].body)
                known = any(all(self._holds(item) for _, item in term) for term in terms)
            self._known[path] = known
        return known

    def reasons(self, path: str) -> list[list[Reason]]:
        """Each list is enough by itself."""
        terms = _terms(self._groups.stored[path].body)
        holding = [term for term in terms if all(self._holds(item) for _, item in term)]
        return [[reason for index, item in term for reason in self._why(index, item)] for term in holding]

    def _why(self, index: int, item: Expression) -> Iterator[Reason]:
        where = f"expression.{index}"
        match item:
            case NestedExpression():
                for place, inner in enumerate(item.expressions):
                    if isinstance(inner, Condition):
                        yield Reason(f"{where}.expressions.{place}", in_words(inner))
            case Condition():
                yield Reason(where, in_words(item))
            case PathExpression():
                for place, path in enumerate(item.paths):
                    if self._is_in(path):
                        group = path if kind_of(path) == "groups" else None
                        yield Reason(f"{where}.paths.{place}", path, group)
            case ExternalIDExpression():
                for place, id in enumerate(item.external_ids):
                    if id == self._external_id(item):
                        yield Reason(f"{where}.external_ids.{place}", id)

    def _holds(self, item: Expression) -> bool:
        match item:
            case Condition():
                return self._meets(item)
            case NestedExpression():
                return all(self._meets(condition) for condition in item.conditions)
            case PathExpression():
                return any(self._is_in(path) for path in item.paths)
            case ExternalIDExpression():
                return self._external_id(item) in item.external_ids
        return False

    def _is_in(self, path: str) -> bool:
        return path in (self if kind_of(path) == "groups" else self._paths)

    def _external_id(self, item: ExternalIDExpression) -> str:
        candidate = self._candidate
        return id_of(candidate.vm.path) if item.member_type == "VirtualMachine" else candidate.vnic.id

    def _meets(self, condition: Condition) -> bool:
        owners = _owners(self._candidate, condition.member_type)
        if not any(meets(condition, name, tags) for name, tags in self._texts(condition, owners)):
            return False
        return condition.exclude is None or not self._excluded(condition.exclude)

    def _texts(
        self, condition: Condition, owners: Iterable[Stored[Entity] | Vnic]
    ) -> Iterator[tuple[str | None, list[Tag]]]:
        for owner in owners:
            if isinstance(owner, Vnic):
                yield owner.display_name, owner.tags
            elif condition.key == "OSName":
                yield self._candidate.vm.body.os_name, []
            elif condition.key == "ComputerName":
                yield self._candidate.vm.body.computer_name, []
            else:
                yield owner.name, owner.body.tags

    def _excluded(self, exclude: ExcludedMembers) -> bool:
        addresses, paths = exclude.ip_address_expression, exclude.path_expression
        prefixes = [
            prefix for text in (addresses.ip_addresses if addresses else ()) for prefix in parse_address(text)
        ]
        for path in paths.paths if paths else ():
            if self._is_in(path):
                return True
            if kind_of(path) == "groups":
                prefixes += self._groups.lists[path].prefixes
        return any(covers(prefixes, address) for address in self._candidate.vnic.addresses)


def _owners(candidate: Candidate, member_type: str) -> Iterable[Stored[Entity] | Vnic]:
    match member_type:
        case "VirtualMachine":
            return (candidate.vm,)
        case "Segment":
            return (candidate.segment,) if candidate.segment else ()
        case "SegmentPort":
            return (candidate.vnic,)
        case "Cluster":
            return candidate.clusters
    return candidate.datacenters


def _terms(group: Group) -> Iterator[list[tuple[int, Expression]]]:
    """What stands between the ORs, with its place."""
    term: list[tuple[int, Expression]] = []
    for index, item in enumerate(group.expression):
        if not isinstance(item, ConjunctionOperator):
            term.append((index, item))
        elif item.conjunction_operator == "OR":
            yield term
            term = []
    if term:
        yield term


def covers(prefixes: Iterable[Prefix], address: str) -> bool:
    """Whether the address of a host is in one of the prefixes."""
    parsed = ip_address(address)
    return any(
        prefix.family == parsed.version
        and int(parsed) >> (parsed.max_prefixlen - prefix.length)
        == prefix.bits >> (parsed.max_prefixlen - prefix.length)
        for prefix in prefixes
    )


def candidate(world: World, vm: Stored[Vm], vnic: Vnic) -> Candidate:
    segment = world.segments[vnic.segment_path] if vnic.segment_path else None
    return Candidate(vm, vnic, segment, *world.place(vnic.id))
