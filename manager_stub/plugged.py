"""Which host has which vNIC, where hosts do not agree. Pure.

A vNIC, and the VM it is of, are the host's that said first that they are plugged there: until it says
otherwise, is away (`publisher`), or an operator gives them to another. What another host says of them
meanwhile is disputed: kept and shown, and it counts for nothing - no policy, no name, no address. It counts
by itself as soon as nobody is in its way, so a VM that moves is its new host's once the old one has withdrawn
it. Of several that claim what nobody has, none gets it until the others withdraw or an operator decides.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from manager_stub.world import World
from vsfwd.protocol.messages import Binding

Said = Mapping[str, Sequence[Binding]]
"""By host."""


def held(world: World, taken: Said) -> dict[str, str]:
    """The hosts of vNICs and of VMs, by what counts of what they say. The first, in a database of a release
    that let several have one."""
    found: dict[str, str] = {}
    for host, bindings in taken.items():
        for binding in bindings:
            for each in _about(world, binding):
                found.setdefault(each, host)
    return found


def given(world: World, vnic: str, said: Iterable[Binding]) -> set[str]:
    """What becomes a host's that is given a vNIC: its VM, with all the vNICs the host says it has of it."""
    bindings = list(said)
    wanted = {each for binding in bindings if binding.vnic == vnic for each in _about(world, binding)}
    return wanted.union(
        *(_about(world, binding) for binding in bindings if not wanted.isdisjoint(_about(world, binding)))
    )


def taken(
    world: World, said: Said, held: Mapping[str, str], away: Set[str] = frozenset()
) -> dict[str, tuple[Binding, ...]]:
    """What counts of all that hosts say; the rest is disputed. `held`: who had what before."""
    claimants: dict[str, set[str]] = {}
    for host, bindings in said.items():
        for binding in bindings:
            for each in _about(world, binding):
                claimants.setdefault(each, set()).add(host)
    hosts = {each: _host(claiming, held.get(each), away) for each, claiming in claimants.items()}
    return {
        host: tuple(
            binding for binding in bindings if all(hosts[each] == host for each in _about(world, binding))
        )
        for host, bindings in said.items()
    }


def disputes(world: World, taken: Said, disputed: Said) -> Iterator[tuple[str, Binding, str]]:
    """The host that claims, what it says, and the host that has it: none where several claim it."""
    hosts = held(world, taken) if any(disputed.values()) else {}
    for host, bindings in disputed.items():
        for binding in bindings:
            yield host, binding, next((hosts[each] for each in _about(world, binding) if each in hosts), "")


def _about(world: World, binding: Binding) -> tuple[str, ...]:
    """Of whom a binding speaks: a vNIC, and its VM by its path. Whose a vNIC is the inventory knows best."""
    known = world.vnics.get(binding.vnic)
    if known:
        return binding.vnic, known.path
    return (binding.vnic, f"/vsfw/vms/{binding.vm}") if binding.vm else (binding.vnic,)


def _host(claimants: Set[str], holder: str | None, away: Set[str]) -> str | None:
    if holder in claimants and holder not in away:
        return holder
    present = (claimants - away) or claimants
    if len(present) == 1:
        return next(iter(present))
    return holder if holder in claimants else None
