"""VMs that appear at a host without anybody having said so: their state is pulled from where they last were.

A host that asks for it gets nothing by asking. The VM has to be its own by the rules of `plugged`: the host
that had it has let it go, a moment ago. Otherwise a host could have others' flows, and stop others' VMs, by
saying that they are here."""

import time
from collections.abc import Mapping
from typing import Final

from manager_stub.checks import Refused
from manager_stub.clock import now_ms
from manager_stub.moves.move import State
from manager_stub.moves.moves import Moves
from manager_stub.register import Register
from manager_stub.reports import BadReport, is_of_another
from manager_stub.vnics import Vnics
from vsfwd.protocol.migration import MAX_VNICS, MoveWanted

PATIENCE_S: Final = 5.0
"""For both hosts to say that the VM has changed: the new one may ask before."""
MAX_WANTED: Final = 64
"""Of one host, as many as may move at once: what one invents takes no other's place."""


class Pulls:
    def __init__(self, register: Register, vnics: Vnics, moves: Moves) -> None:
        self._register = register
        self._moves = moves
        self._wanted: dict[tuple[str, str], float] = {}
        """By host and VM, until when."""
        self._had: dict[str, tuple[str, float]] = {}
        """By vNIC: the host that had it before the one that has it now, and until when that counts."""
        vnics.came = self._came
        moves.wanted = self._want

    def expire(self) -> None:
        now = time.monotonic()
        for (host, vm), until in list(self._wanted.items()):
            if until < now:
                self._decline(host, vm, "nobody has let the VM go")
        self._had = {vnic: had for vnic, had in self._had.items() if had[1] >= now}

    def _want(self, host: str, said: MoveWanted) -> None:
        if sum(wanting == host for wanting, _ in self._wanted) >= MAX_WANTED:
            raise BadReport(f"{MAX_WANTED} VMs have appeared unannounced already", host)
        self._wanted[host, said.vm] = time.monotonic() + PATIENCE_S
        self._pull(host, said.vm)

    def _came(self, host: str, had: Mapping[str, str]) -> None:
        until = time.monotonic() + PATIENCE_S
        self._had |= {vnic: (source, until) for vnic, source in had.items()}
        for wanting, vm in list(self._wanted):
            if wanting == host:
                self._pull(host, vm)

    def _pull(self, host: str, vm: str) -> None:
        """If it is known where from; the host is told if it cannot be."""
        since = now_ms() - int(PATIENCE_S * 1000)
        moves = [each for each in self._moves.moves.values() if each.vm == vm]
        brought = [each for each in moves if each.is_open or each.state is State.ACTIVE][-1:]
        if any(each.target == host and each.changed_ms >= since for each in brought):
            del self._wanted[host, vm]  # it asked when the VM first came; now it has come by a move
            return
        world = self._register.world
        here = [each for each in self._register.hosts[host].bindings if each.vm == vm]
        vnics = tuple(each for each in here if not is_of_another(world, each))[:MAX_VNICS]
        sources = {self._had[each.vnic][0] for each in vnics if each.vnic in self._had} - {host}
        if len(sources) != 1:
            return
        try:
            self._moves.pull(vm, sources.pop(), host, vnics)
        except Refused as refused:
            self._decline(host, vm, str(refused))
        else:
            del self._wanted[host, vm]

    def _decline(self, host: str, vm: str, reason: str) -> None:
        del self._wanted[host, vm]
        self._moves.decline(host, vm, reason)
