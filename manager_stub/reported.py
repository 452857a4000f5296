"""The inventory as hosts report it: VMs and vNICs that nobody has to type. Pure.

A host says what it knows of the VMs plugged there: their names and operating systems, the MAC address and the
segment of each vNIC. What it says takes the place of what was known; what it does not say stays, and so does
what only the manager decides (tags, addresses set by hand, SpoofGuard). A VM that is not plugged anywhere
stays in the inventory until it is deleted there.
"""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from manager_stub.model import MAX_VNICS, Vm, Vnic
from manager_stub.world import World
from vsfwd.protocol.messages import Binding, PowerState

UNKNOWN_MAC = "00:00:00:00:00:00"


def reported(world: World, bindings: Sequence[Binding]) -> tuple[Mapping[str, Vm], list[str]]:
    """VMs, by path, that are there or are otherwise now; and what is left out because it cannot be, and
    why."""
    found: dict[str, Vm] = {}
    wrong: list[str] = []
    owners: dict[str, str] = {}
    macs = _Macs(world, {each.vnic: each.mac for each in bindings if each.mac != UNKNOWN_MAC})
    for binding in bindings:
        path = f"/vsfw/vms/{binding.vm}"
        if not binding.vm or binding.mac == UNKNOWN_MAC:
            continue  # recognised by its alias alone: the host knows no more
        known = world.vnics.get(binding.vnic)
        owner = known.path if known else owners.setdefault(binding.vnic, path)
        before = found.get(path) or (world.vms[path].body if path in world.vms else None)
        try:
            if owner != path:
                raise ValueError(f"it is of {owner}, not of {path}")
            after = _with(world, before or Vm(), binding, macs)
        except ValueError as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            wrong.append(f"vNIC {binding.vnic}: {reason}")
            continue
        if binding.segment and _segment(binding) not in world.segments:
            wrong.append(f"vNIC {binding.vnic}: there is no segment {binding.segment}")
        if after != before:
            found[path] = after
    return found, wrong


class _Macs:
    """Whose MAC addresses are. `said`: what the report says of each vNIC, so that two can change places."""

    def __init__(self, world: World, said: Mapping[str, str]) -> None:
        self._world = world
        self._said = said
        self._holders: dict[tuple[str, str], str] = {}

    def give(self, vnic: Vnic) -> None:
        """Raises ValueError where another of the segment has it."""
        if vnic.segment_path is None:
            return
        key = vnic.segment_path, vnic.mac
        if key not in self._holders:
            other = self._world.mac_holder(vnic)
            self._holders[key] = other if other and self._said.get(other, vnic.mac) == vnic.mac else vnic.id
        if self._holders[key] != vnic.id:
            raise ValueError(f"{vnic.mac} is that of vNIC {self._holders[key]} in {vnic.segment_path}")


def _with(world: World, vm: Vm, binding: Binding, macs: _Macs) -> Vm:
    cards = {card.id: card for card in vm.vnics}
    if binding.vnic not in cards and len(cards) >= MAX_VNICS:
        raise ValueError(f"its VM has {MAX_VNICS} vNICs already")
    said: dict[str, object] = {"id": binding.vnic, "mac": binding.mac}
    if _segment(binding) in world.segments:
        said["segment_path"] = _segment(binding)
    card = cards.get(binding.vnic)
    new = Vnic.model_validate((card.model_dump(exclude_unset=True) if card else {}) | said)
    if card is None or (card.segment_path, card.mac) != (new.segment_path, new.mac):
        macs.give(new)
    cards[binding.vnic] = new
    guest = binding.guest
    names = {
        "display_name": guest.name or (None if vm.display_name else binding.vm),
        "os_name": guest.os_name,
        "computer_name": guest.computer_name,
        "power_state": "" if guest.power_state is PowerState.UNKNOWN else str(guest.power_state),
    }
    known = vm.model_dump(exclude_unset=True, by_alias=True)
    told = {field: text for field, text in names.items() if text}
    return Vm.model_validate(known | told | {"vnics": list(cards.values())})


def _segment(binding: Binding) -> str:
    return f"/infra/segments/{binding.segment}"
