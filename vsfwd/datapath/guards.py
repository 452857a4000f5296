"""What vNICs may say about themselves, in the kernel: the GUARD_ bits of `vnics` and the map `bindings`.

Guards are in no bank. They are changed around the store that shows a new bank: what is newly trusted before
it, what is no longer trusted after it. So no packet that the new policy trusts is dropped; one it does not
trust may pass until the end of the change, which raises `policy_seq`, and flows are asked again."""

import struct
from collections.abc import Mapping, Set
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs, constant
from vsfwd.image import Guard

Binding = tuple[int, int]
"""Slot and address."""
_TRUSTED: Final = struct.pack("<I", constant("BINDING_TRUSTED"))


def guard_bits(guard: Guard) -> int:
    return (
        guard.spoof * constant("GUARD_SPOOF")
        | guard.router * constant("GUARD_ROUTER")
        | guard.dhcp_server * constant("GUARD_DHCP_SERVER")
    )


class Bindings:
    """Owns the map; what an earlier daemon left in it is read back."""

    def __init__(self, programs: Programs) -> None:
        self._fd = programs.fd("bindings")
        self._key = programs.layouts("bindings")[0]
        self._there = {
            self._binding(key) for key, _ in bpf.items(self._fd, self._key.size, 4, constant("BINDINGS"))
        }

    def add(self, guards: Mapping[int, Guard]) -> set[Binding]:
        """All addresses of `guards`, and which of them are new. Raises DatapathError, and then none is."""
        new, added = wanted(guards) - self._there, set[Binding]()
        try:
            for binding in new:
                bpf.update(self._fd, self._packed(binding), _TRUSTED)
                added.add(binding)
        except OSError as error:
            self.remove(added)
            raise DatapathError(f"bind {len(new)} more addresses to vNICs: {error}") from None
        self._there |= added
        return added

    def keep(self, guards: Mapping[int, Guard]) -> bool:
        """No address but those of `guards`; whether there was one."""
        gone = self._there - wanted(guards)
        self.remove(gone)
        return bool(gone)

    def clear(self, slot: int) -> None:
        self.remove({binding for binding in self._there if binding[0] == slot})

    def remove(self, bindings: Set[Binding]) -> None:
        for binding in bindings:
            bpf.delete(self._fd, self._packed(binding))
        self._there -= bindings

    def _packed(self, binding: Binding) -> bytes:
        return self._key.pack(slot=binding[0], address=binding[1].to_bytes(16, "big"))

    def _binding(self, raw: bytes) -> Binding:
        key = self._key.unpack(raw)
        return key["slot"], int.from_bytes(key["address"], "big")


def wanted(guards: Mapping[int, Guard]) -> set[Binding]:
    return {(slot, address) for slot, guard in guards.items() for address in guard.addresses}
