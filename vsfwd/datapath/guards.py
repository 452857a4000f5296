"""What vNICs may say about themselves, in the kernel: the GUARD_ bits of `vnics` and the map `bindings`.

Guards are in no bank. They are changed around the store that shows a new bank: what is newly trusted before
it, what is no longer trusted after it. So no packet that the new policy trusts is dropped; one it does not
trust may pass until the end of the change, which raises `policy_seq`, and flows are asked again.

A vNIC without a policy has no address yet (`NO_POLICY`): it may say what needs nobody's trust, and so cannot
take an address of its neighbours in the moment before its policy is in."""

import struct
from collections.abc import Mapping, Set
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import constant
from vsfwd.image import Guard

Binding = tuple[int, int]
"""Slot and address."""
NO_POLICY: Final = Guard(spoof=True)
_TRUSTED: Final = constant("BINDING_TRUSTED")
_KNOWN: Final = constant("BINDING_KNOWN")


def guard_bits(guard: Guard) -> int:
    return (
        guard.spoof * constant("GUARD_SPOOF")
        | guard.router * constant("GUARD_ROUTER")
        | guard.dhcp_server * constant("GUARD_DHCP_SERVER")
    )


class Bindings:
    """Owns the map; what an earlier daemon left in it is read back. At a vNIC an address is trusted,
    known to be claimed, or both."""

    def __init__(self, programs: Programs) -> None:
        self._fd = programs.fd("bindings")
        self._key = programs.layouts("bindings")[0]
        self._trusted: set[Binding] = set()
        self._known: set[Binding] = set()
        for key, value in bpf.items(self._fd, self._key.size, 4, constant("BINDINGS")):
            flags = int.from_bytes(value, "little")
            self._trusted |= {self._binding(key)} if flags & _TRUSTED else set()
            self._known |= {self._binding(key)} if flags & _KNOWN else set()

    def add(self, guards: Mapping[int, Guard]) -> set[Binding]:
        """All addresses of `guards`, and which of them are new. Raises DatapathError, and then none is."""
        new, added = wanted(guards) - self._trusted, set[Binding]()
        try:
            for binding in new:
                self._trusted.add(binding)
                added.add(binding)
                self._write(binding)
        except OSError as error:
            self.remove(added)
            raise DatapathError(f"bind {len(new)} more addresses to vNICs: {error}") from None
        return added

    def keep(self, guards: Mapping[int, Guard]) -> bool:
        """No address but those of `guards` is trusted; whether there was one."""
        gone = self._trusted - wanted(guards)
        self.remove(gone)
        return bool(gone)

    def remove(self, bindings: Set[Binding]) -> None:
        self._trusted -= bindings
        for binding in bindings:
            self._write(binding)

    def know(self, slot: int, addresses: Set[int]) -> None:
        """What is known to be claimed at `slot`, all of it. Raises DatapathError."""
        before = {binding for binding in self._known if binding[0] == slot}
        now = {(slot, address) for address in addresses}
        self._known = self._known - before | now
        try:
            for binding in before ^ now:
                self._write(binding)
        except OSError as error:
            raise DatapathError(f"note what slot {slot} claims: {error}") from None

    def clear(self, slot: int) -> None:
        self.know(slot, set())
        self.remove({binding for binding in self._trusted if binding[0] == slot})

    def _write(self, binding: Binding) -> None:
        flags = (binding in self._trusted) * _TRUSTED | (binding in self._known) * _KNOWN
        if flags:
            bpf.update(self._fd, self._packed(binding), struct.pack("<I", flags))
        else:
            bpf.delete(self._fd, self._packed(binding))

    def _packed(self, binding: Binding) -> bytes:
        return self._key.pack(slot=binding[0], address=binding[1].to_bytes(16, "big"))

    def _binding(self, raw: bytes) -> Binding:
        key = self._key.unpack(raw)
        return key["slot"], int.from_bytes(key["address"], "big")


def wanted(guards: Mapping[int, Guard]) -> set[Binding]:
    return {(slot, address) for slot, guard in guards.items() for address in guard.addresses}
