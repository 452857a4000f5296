"""All objects at one moment, by kind and path. Immutable: a change makes a new World that shares what
stayed, so that readers can tell by identity what a change left alone, and a refused change leaves nothing
behind."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Generic, TypeVar, cast

from manager_stub.model import (
    Cluster,
    Datacenter,
    Entity,
    ExcludeList,
    FirewallScheduler,
    Group,
    Reference,
    Rule,
    SecurityPolicy,
    Segment,
    Service,
    SessionTimerBinding,
    SessionTimerProfile,
    Vm,
    Vnic,
)
from vsfwd.protocol.messages import Source

T = TypeVar("T", bound=Entity, covariant=True)

MODELS: Final[dict[str, type[Entity]]] = {
    "groups": Group,
    "services": Service,
    "security-policies": SecurityPolicy,
    "rules": Rule,
    "segments": Segment,
    "vms": Vm,
    "clusters": Cluster,
    "datacenters": Datacenter,
    "security": ExcludeList,
    "firewall-schedulers": FirewallScheduler,
    "firewall-session-timer-profiles": SessionTimerProfile,
    "firewall-session-timer-profile-binding-maps": SessionTimerBinding,
}
"""By kind: the word before the id in a path."""
INVENTORY: Final = ("segments", "vms", "clusters", "datacenters")


def kind_of(path: str) -> str:
    return path.rsplit("/", 2)[1]


def is_policy(path: str) -> bool:
    """Whether it belongs to the policy, which is published, saved and rolled back; the rest is inventory,
    users and hosts."""
    return path.startswith("/infra/") and kind_of(path) in MODELS and kind_of(path) not in INVENTORY


def id_of(path: str) -> str:
    return path.rsplit("/", 1)[1]


def parent_of(path: str) -> str:
    """The section of a rule, the group of a binding."""
    return path.rsplit("/", 2)[0]


def vnic_path(vnic: str) -> str:
    return f"/vsfw/vnics/{vnic}"


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """An object and what the manager adds to it."""

    path: str
    body: T
    unique_id: str
    number: int
    revision: int
    system_owned: bool
    created_ms: int
    modified_ms: int

    @property
    def name(self) -> str:
        return self.body.display_name or id_of(self.path)


@dataclass(frozen=True)
class Claimed:
    """How an address came to be known at a vNIC, and whether somebody approved it. Of a lease `expires` is in
    seconds since 1970, 0: never, and `server` the MAC address from which its answer came."""

    source: Source
    expires: int
    host: str
    first_seen_ms: int
    approved: bool = False
    server: str = ""


@dataclass(frozen=True)
class World:
    """`claims`: the addresses that vNICs were seen with, by vNIC. `plugged`: the hosts that have a
    vNIC."""

    kinds: Mapping[str, Mapping[str, Stored[Entity]]] = field(
        default_factory=lambda: {kind: {} for kind in MODELS}
    )
    hosts: frozenset[str] = frozenset()
    claims: Mapping[str, Mapping[str, Claimed]] = field(default_factory=dict)
    plugged: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def changed(self, put: Iterable[Stored[Entity]], delete: Iterable[str]) -> "World":
        kinds: dict[str, dict[str, Stored[Entity]]] = {}

        def writable(path: str) -> dict[str, Stored[Entity]]:
            kind = kind_of(path)
            if kind not in kinds:
                kinds[kind] = dict(self.kinds[kind])
            return kinds[kind]

        for path in delete:
            writable(path).pop(path, None)
        for stored in put:
            writable(stored.path)[stored.path] = stored
        return replace(self, kinds={**self.kinds, **kinds})

    def get(self, path: str) -> Stored[Entity] | None:
        return self.kinds.get(kind_of(path), {}).get(path)

    def has(self, reference: Reference) -> bool:
        if reference.kind == "hosts":
            return id_of(reference.path) in self.hosts
        if reference.kind == "vnics":
            return id_of(reference.path) in self.vnics
        return kind_of(reference.path) == reference.kind and self.get(reference.path) is not None

    def referrers(self, paths: set[str]) -> Iterator[tuple[str, Reference]]:
        """Who names one of `paths`, and where."""
        for objects in self.kinds.values():
            for stored in objects.values():
                for reference in stored.body.references():
                    if reference.path in paths:
                        yield stored.path, reference
        for path in self.timer_bindings:
            if parent_of(path) in paths:
                yield path, Reference("", parent_of(path), "groups")

    def rules_of(self, section: str) -> list[Stored[Rule]]:
        return list(self._by_section.get(section, ()))

    @cached_property
    def _by_section(self) -> Mapping[str, list[Stored[Rule]]]:
        """Rules by their section, in order."""
        found: dict[str, list[Stored[Rule]]] = {}
        for path, stored in self.rules.items():
            found.setdefault(parent_of(path), []).append(stored)
        for rules in found.values():
            rules.sort(key=lambda stored: (stored.body.sequence_number or 0, stored.number))
        return found

    def has_policy_of(self, other: "World") -> bool:
        """Whether no object of the policy is another; the inventory may be."""
        return all(self.kinds[kind] is other.kinds[kind] for kind in MODELS if kind not in INVENTORY)

    def place(self, vnic: str) -> tuple[tuple[Stored[Cluster], ...], tuple[Stored[Datacenter], ...]]:
        """Clusters and datacenters in which it is plugged."""
        hosts = self.plugged.get(vnic, frozenset())
        clusters = {each.path: each for host in hosts for each in self._clusters_of.get(host, ())}
        datacenters = {
            each.path: each for path in clusters for each in self._datacenters_of.get(id_of(path), ())
        }
        return (
            tuple(clusters[path] for path in sorted(clusters)),
            tuple(datacenters[path] for path in sorted(datacenters)),
        )

    @cached_property
    def _clusters_of(self) -> Mapping[str, list[Stored[Cluster]]]:
        """By host."""
        found: dict[str, list[Stored[Cluster]]] = {}
        for stored in cast(Mapping[str, Stored[Cluster]], self.kinds["clusters"]).values():
            for host in stored.body.hosts:
                found.setdefault(host, []).append(stored)
        return found

    @cached_property
    def _datacenters_of(self) -> Mapping[str, list[Stored[Datacenter]]]:
        """By the id of a cluster."""
        found: dict[str, list[Stored[Datacenter]]] = {}
        for stored in cast(Mapping[str, Stored[Datacenter]], self.kinds["datacenters"]).values():
            for cluster in stored.body.clusters:
                found.setdefault(cluster, []).append(stored)
        return found

    @cached_property
    def vnics(self) -> Mapping[str, Stored[Vm]]:
        """Their VMs, by vNIC."""
        return {vnic.id: vm for vm in self.vms.values() for vnic in vm.body.vnics}

    def card(self, vnic: str) -> tuple[Stored[Vm], Vnic]:
        """A vNIC and its VM."""
        vm = self.vnics[vnic]
        return vm, next(each for each in vm.body.vnics if each.id == vnic)

    @cached_property
    def _by_mac(self) -> Mapping[tuple[str | None, str], list[str]]:
        """vNICs by segment and MAC address."""
        found: dict[tuple[str | None, str], list[str]] = {}
        for vm in self.vms.values():
            for vnic in vm.body.vnics:
                found.setdefault((vnic.segment_path, vnic.mac), []).append(vnic.id)
        return found

    def mac_holder(self, vnic: Vnic) -> str | None:
        """Another vNIC of its segment that has its MAC address. One that is plugged nowhere is not in the way
        of one that is: it may be what is left of a VM that was made anew."""
        if vnic.segment_path is None:
            return None
        others = (id for id in self._by_mac.get((vnic.segment_path, vnic.mac), ()) if id != vnic.id)
        return next((id for id in others if id in self.plugged or vnic.id not in self.plugged), None)

    @property
    def groups(self) -> Mapping[str, Stored[Group]]:
        return cast(Mapping[str, Stored[Group]], self.kinds["groups"])

    @property
    def services(self) -> Mapping[str, Stored[Service]]:
        return cast(Mapping[str, Stored[Service]], self.kinds["services"])

    @property
    def sections(self) -> Mapping[str, Stored[SecurityPolicy]]:
        return cast(Mapping[str, Stored[SecurityPolicy]], self.kinds["security-policies"])

    @property
    def rules(self) -> Mapping[str, Stored[Rule]]:
        return cast(Mapping[str, Stored[Rule]], self.kinds["rules"])

    @property
    def segments(self) -> Mapping[str, Stored[Segment]]:
        return cast(Mapping[str, Stored[Segment]], self.kinds["segments"])

    @property
    def excluded(self) -> frozenset[str]:
        """Paths of the VMs and groups on the exclusion list."""
        lists = cast(Mapping[str, Stored[ExcludeList]], self.kinds["security"])
        return frozenset(member for stored in lists.values() for member in stored.body.members)

    @property
    def schedulers(self) -> Mapping[str, Stored[FirewallScheduler]]:
        return cast(Mapping[str, Stored[FirewallScheduler]], self.kinds["firewall-schedulers"])

    @property
    def timer_profiles(self) -> Mapping[str, Stored[SessionTimerProfile]]:
        return cast(Mapping[str, Stored[SessionTimerProfile]], self.kinds["firewall-session-timer-profiles"])

    @property
    def timer_bindings(self) -> Mapping[str, Stored[SessionTimerBinding]]:
        kind = "firewall-session-timer-profile-binding-maps"
        return cast(Mapping[str, Stored[SessionTimerBinding]], self.kinds[kind])

    @property
    def vms(self) -> Mapping[str, Stored[Vm]]:
        return cast(Mapping[str, Stored[Vm]], self.kinds["vms"])
