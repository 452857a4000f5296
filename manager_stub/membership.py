"""Which vNICs are members of a group, and why. Pure.

A vNIC is a member through itself, its VM, its segment, or the cluster or datacenter of the host where it is
plugged. AND binds tighter than OR. Addresses, of IP or of Ethernet, make nobody a member; as scope those of
IP select the vNICs that have one of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from manager_stub.conditions import Asked, Owner, in_words, owner
from manager_stub.groups import Groups, Part, Reason, covers
from manager_stub.model import (
    Cluster,
    Condition,
    Datacenter,
    Entity,
    ExcludedMembers,
    Expression,
    ExternalIDExpression,
    NestedExpression,
    PathExpression,
    Segment,
    Vm,
    Vnic,
)
from manager_stub.world import Stored, World, id_of, kind_of, vnic_path
from vsfwd.policy.model import parse_address


@dataclass(frozen=True)
class Candidate:
    """A vNIC, or a segment by itself, with all that a group asks about. Its addresses are those set by hand:
    what a workload says of itself makes it no exception."""

    vm: Stored[Vm] | None = None
    vnic: Vnic | None = None
    segment: Stored[Segment] | None = None
    clusters: tuple[Stored[Cluster], ...] = ()
    datacenters: tuple[Stored[Datacenter], ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """All that it is a part of, by path; the vNIC itself too."""
        owners = (self.vm, self.segment, *self.clusters, *self.datacenters)
        own = {vnic_path(self.vnic.id)} if self.vnic else set()
        return frozenset(own | {owner.path for owner in owners if owner})

    def stands_where(self, other: "Candidate") -> bool:
        """On the same segment and in the same places, none of them changed."""
        mine = (self.segment, *self.clusters, *self.datacenters)
        others = (other.segment, *other.clusters, *other.datacenters)
        return len(mine) == len(others) and all(one is two for one, two in zip(mine, others, strict=True))


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
        self._owners: dict[str, list[Owner]] = {}
        self._paths = candidate.paths

    def __contains__(self, path: str) -> bool:
        known = self._known.get(path)
        if known is None:
            known = self._settled(path)
            if known is None:
                terms = self._groups.terms[path]
                known = any(all(map(self._holds, term)) for term in terms)
            self._known[path] = known
        return known

    def reasons(self, path: str) -> list[list[Reason]]:
        """Each list is enough by itself."""
        holding = [term for term in self._groups.terms[path] if all(map(self._holds, term))]
        return [[reason for part in term for reason in self._why(part.index, part.item)] for term in holding]

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

    def _holds(self, part: Part) -> bool:
        if part.conditions:
            return all(self._meets(condition, asked) for condition, asked in part.conditions)
        match part.item:
            case PathExpression():
                return any(self._is_in(path) for path in part.item.paths)
            case ExternalIDExpression():
                return self._external_id(part.item) in part.item.external_ids
        return False

    def _is_in(self, path: str) -> bool:
        return path in (self if kind_of(path) == "groups" else self._paths)

    def _external_id(self, item: ExternalIDExpression) -> str | None:
        vm, vnic = self._candidate.vm, self._candidate.vnic
        if item.member_type == "VirtualMachine":
            return id_of(vm.path) if vm else None
        return vnic.id if vnic else None

    def _meets(self, condition: Condition, asked: Asked) -> bool:
        owners = self._owners.get(condition.member_type)
        if owners is None:
            owners = self._owners[condition.member_type] = _owners(self._candidate, condition.member_type)
        if not any(map(asked, owners)):
            return False
        return condition.exclude is None or not self._excluded(condition.exclude)

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
        vnic = self._candidate.vnic
        return vnic is not None and any(covers(prefixes, address) for address in vnic.addresses)


def _owners(candidate: Candidate, member_type: str) -> list[Owner]:
    vm, vnic, segment = candidate.vm, candidate.vnic, candidate.segment
    match member_type:
        case "VirtualMachine" if vm:
            guest = {"OSName": vm.body.os_name, "ComputerName": vm.body.computer_name}
            return [owner({"Name": vm.name, **guest}, vm.body.tags)]
        case "SegmentPort" if vnic:
            return [owner({"Name": vnic.display_name}, vnic.tags)]
        case "Segment" if segment:
            return [_named(segment)]
        case "Cluster":
            return [_named(cluster) for cluster in candidate.clusters]
        case "Datacenter":
            return [_named(datacenter) for datacenter in candidate.datacenters]
    return []


def _named(stored: Stored[Entity]) -> Owner:
    return owner({"Name": stored.name}, stored.body.tags)


def candidate(world: World, vm: Stored[Vm], vnic: Vnic) -> Candidate:
    segment = world.segments[vnic.segment_path] if vnic.segment_path else None
    return Candidate(vm, vnic, segment, *world.place(vnic.id))
