"""What context agents tell of guests: operating system and computer name go into the inventory like what
vsfwd reports of a VM, and before it, for they come from inside; users who are logged on are kept beside it.
No rule asks for them yet.

A host speaks for the VMs that are plugged there. What it tells of another is kept, for the agent may be ahead
of vsfwd, and counts when the VM is."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from manager_stub.clock import now_ms
from manager_stub.components.switchboard import Declined, Switchboard
from manager_stub.register import Register
from manager_stub.reports import plain
from manager_stub.store import Store
from manager_stub.vnics import Vnics
from vsfwd.protocol.components import Body
from vsfwd.protocol.context import COMPONENT, GONE, START, VM, Guest, VmGone, VmGuest
from vsfwd.protocol.messages import Binding

MAX_GUESTS: Final = 4096
"""Of one host,"""
MAX_BYTES: Final = 4 * 1024 * 1024
"""and of all of them together, as they are stored: 1,024 guests with some fifty users each."""
T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """`size` is in bytes, as it is stored."""

    guest: Guest
    time_ms: int
    size: int


class GuestContext:
    def __init__(self, store: Store, register: Register, vnics: Vnics, switchboard: Switchboard) -> None:
        self._store = store
        self._register = register
        self._vnics = vnics
        self._known: dict[str, dict[str, Known]] = {}
        """By host and VM."""
        for row in store.guests():
            text = row["guest"].encode()
            known = Known(msgspec.json.decode(text, type=Guest), row["time_ms"], len(text))
            self._known.setdefault(row["host"], {})[row["vm"]] = known
        vnics.as_told_inside = self.as_told
        switchboard.listeners |= {
            (COMPONENT, START): self._start,
            (COMPONENT, VM): self._told,
            (COMPONENT, GONE): self._gone,
        }

    def of(self, vm: str) -> tuple[str, Known] | None:
        """The host on which it is plugged and that told of it, and what; the newest word."""
        told = [
            (host, guests[vm])
            for host, guests in self._known.items()
            if vm in guests and self._is_plugged(host, vm)
        ]
        return max(told, key=lambda each: each[1].time_ms, default=None)

    def as_told(self, host: str, binding: Binding) -> Binding:
        known = self._known.get(host, {}).get(binding.vm)
        if known is None:
            return binding
        inside = {"os_name": known.guest.os_name, "computer_name": known.guest.computer_name}
        told = {field: text for field, text in inside.items() if text}
        return msgspec.structs.replace(binding, guest=msgspec.structs.replace(binding.guest, **told))

    def _is_plugged(self, host: str, vm: str) -> bool:
        there = self._register.hosts.get(host)
        return there is not None and any(binding.vm == vm for binding in there.bindings)

    def _start(self, host: str, body: Body) -> None:
        with self._store.begin() as transaction:
            transaction.delete_guests(host)
        self._known.pop(host, None)

    def _told(self, host: str, body: Body) -> None:
        said = _converted(body, VmGuest)
        of_host = self._known.setdefault(host, {})
        if said.vm not in of_host and len(of_host) >= MAX_GUESTS:
            raise Declined(f"more than {MAX_GUESTS} guests of one host")
        guest = Guest(said.os_name, said.computer_name, said.users)
        text = msgspec.json.encode(guest)
        known, before = Known(guest, now_ms(), len(text)), of_host.get(said.vm)
        if before is not None and before.guest == guest:
            of_host[said.vm] = known
            return
        others = sum(each.size for vm, each in of_host.items() if vm != said.vm)
        if others + known.size > MAX_BYTES:
            raise Declined(
                f"VM {said.vm}: with the {others} bytes of the host's other guests over {MAX_BYTES}"
            )
        row = {"host": host, "vm": said.vm, "time_ms": known.time_ms, "guest": text.decode()}
        with self._store.begin() as transaction:
            transaction.put_guest(row)
        of_host[said.vm] = known
        self._vnics.guest_changed(host, said.vm)

    def _gone(self, host: str, body: Body) -> None:
        said = _converted(body, VmGone)
        with self._store.begin() as transaction:
            transaction.delete_guests(host, said.vm)
        self._known.get(host, {}).pop(said.vm, None)


def _converted(body: Body, kind: type[T]) -> T:
    found: Any
    try:
        found = msgspec.convert(body, kind)
    except ValueError as error:
        raise Declined(plain(str(error))) from None
    return found  # type: ignore[no-any-return]
