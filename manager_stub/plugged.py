"""Which host has which vNIC, where hosts do not agree. Pure.

A vNIC, and the VM it is of, are the host's that said first that they are plugged there, until it withdraws
them or an operator gives them to another. What another host says of them meanwhile is disputed: kept and
shown, and it counts for nothing - no policy, no name, no address.

Nobody gets anything by waiting. Once the host has withdrawn a vNIC, a claim counts by itself if it is new, or
was raised at most a minute before: a VM that moves. An older one waits for an operator, also if it is raised
again. While the host is away (`publisher`) a claim counts that was raised since: a VM that was started again
elsewhere. It is the first host's again when that is back and still says so. Of several claims that could
count none does, until the others are withdrawn.

Nor does a host get into a VM with a vNIC that nobody knows: that says nothing about who has the VM, unless
the VM has no vNIC yet.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from manager_stub.hosts import Host
from manager_stub.world import World
from vsfwd.protocol.messages import Binding

MOVES_WITHIN_MS: Final = 60_000
"""From the claim of a VM's new host to the withdrawal by the old one."""

Said = Mapping[str, Sequence[Binding]]
"""By host."""
Away = Mapping[str, int]
"""Hosts that are away, and since when (ms)."""


@dataclass(frozen=True)
class Tenure:
    """Whose a vNIC or a VM is. The last of `hosts` has it, or had it last; the others are away, and the first
    that is back and still claims it has it again. `left_ms`: when the last one withdrew it, 0 if it did not.
    `raised`: the hosts that have claimed it meanwhile, and when first."""

    hosts: tuple[str, ...]
    left_ms: int = 0
    raised: Mapping[str, int] = field(default_factory=dict)


Tenures = Mapping[str, Tenure]
"""By vNIC, and by the path of a VM."""


def held(world: World, taken: Said) -> dict[str, str]:
    """The hosts of vNICs and of VMs, by what counts of what they say. The first, in a database of a release
    that let several have one."""
    found: dict[str, str] = {}
    for host, bindings in taken.items():
        for binding in bindings:
            for each in _about(world, binding):
                found.setdefault(each, host)
    return found


def given(world: World, tenures: Tenures, vnic: str, host: str, said: Iterable[Binding]) -> dict[str, Tenure]:
    """What becomes a host's that is given a vNIC: its VM, with all the vNICs the host says it has of it."""
    bindings = list(said)
    wanted = {each for binding in bindings if binding.vnic == vnic for each in _about(world, binding)}
    whole = wanted.union(
        *(_about(world, binding) for binding in bindings if not wanted.isdisjoint(_about(world, binding)))
    )
    return {each: _taken(tenures.get(each), host) for each in whole}


def decided(
    world: World, said: Said, tenures: Tenures, away: Away, now_ms: int
) -> tuple[dict[str, tuple[Binding, ...]], dict[str, Tenure]]:
    """What counts of all that hosts say, the rest is disputed; and whose everything is then."""
    claimants: dict[str, set[str]] = {}
    for host, bindings in said.items():
        for binding in bindings:
            for each in _claimed(world, tenures, host, binding):
                claimants.setdefault(each, set()).add(host)
    known = tenures.keys() & (claimants.keys() | world.vnics.keys() | world.vms.keys())
    after = {each: _going_on(tenures[each], claimants.get(each, set()), said, now_ms) for each in known}
    hosts = {each: _host(claiming, after.get(each), away) for each, claiming in claimants.items()}
    taken = {
        host: tuple(
            binding for binding in bindings if all(hosts.get(each) == host for each in _about(world, binding))
        )
        for host, bindings in said.items()
    }
    after |= {
        each: _taken(after.get(each), host, claimants[each]) for each, host in held(world, taken).items()
    }
    return taken, after


def disputes(world: World, hosts: Collection[Host]) -> Iterator[tuple[str, Binding, str]]:
    """The host that claims, what it says, and the host that has it: none where several claim it."""
    if not any(host.disputed for host in hosts):
        return
    holders = held(world, {host.id: host.bindings for host in hosts})
    for host in hosts:
        for binding in host.disputed:
            has = next((holders[each] for each in _about(world, binding) if each in holders), "")
            yield host.id, binding, has


def _about(world: World, binding: Binding) -> tuple[str, ...]:
    """Of whom a binding speaks: a vNIC, and its VM by its path. Whose a vNIC is the inventory knows best."""
    known = world.vnics.get(binding.vnic)
    if known:
        return binding.vnic, known.path
    return (binding.vnic, f"/vsfw/vms/{binding.vm}") if binding.vm else (binding.vnic,)


def _claimed(world: World, tenures: Tenures, host: str, binding: Binding) -> tuple[str, ...]:
    """What a host says that it has: of a VM that has others, no vNIC that nobody knows brings it to a host
    that has not got it."""
    about = _about(world, binding)
    vm = world.vms.get(about[-1])
    if binding.vnic in world.vnics or vm is None or not vm.body.vnics:
        return about
    tenure = tenures.get(vm.path)
    return about if tenure and host in tenure.hosts else (binding.vnic,)


def _going_on(before: Tenure, claiming: Set[str], said: Said, now_ms: int) -> Tenure:
    """With what hosts claim now. What they claimed once stays, or it would be new whenever it is raised
    again."""
    there = tuple(host for host in before.hosts if host in claiming)
    left_ms = before.left_ms or (0 if before.hosts[-1] in claiming else now_ms)
    raised = {host: since for host, since in before.raised.items() if host in said}
    raised |= {host: raised.get(host, now_ms) for host in claiming - set(there)}
    after = Tenure(there or before.hosts[-1:], left_ms, raised)
    return before if after == before else after


def _host(claiming: Set[str], tenure: Tenure | None, away: Away) -> str | None:
    there = [host for host in tenure.hosts if host in claiming] if tenure else []
    if back := next((host for host in there if host not in away), None):
        return back
    entitled = claiming - set(there)
    if tenure:
        since = max([tenure.left_ms - MOVES_WITHIN_MS, *(away[host] for host in there)])
        entitled = {host for host in entitled if tenure.raised[host] >= since}
    present = entitled - away.keys() or entitled
    if len(present) == 1:
        return next(iter(present))
    return there[-1] if there else None


def _taken(before: Tenure | None, host: str, claiming: Set[str] = frozenset()) -> Tenure:
    """By a host that gets it, or goes on having it. Of those that had it before only those get it back that
    go on claiming it."""
    if before is None:
        return Tenure((host,))
    earlier = [each for each in takewhile(host.__ne__, before.hosts) if each in claiming]
    raised = {each: since for each, since in before.raised.items() if each != host}
    after = Tenure((*earlier, host), 0, raised)
    return before if after == before else after
