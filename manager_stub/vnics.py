"""What hosts report of vNICs, and what follows: which host has which, the VMs they are of, and the addresses
they were seen with.

Who is believed is decided elsewhere, without I/O (`plugged`, `reported`, `addresses`); stored it is by the
register. Here is what only a running manager knows: who is away, and who was asked to report again.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from math import inf
from types import MappingProxyType
from uuid import uuid4

import structlog

from manager_stub import addresses, audit, plugged
from manager_stub.checks import Refused
from manager_stub.clock import now_ms
from manager_stub.hosts import Host, placed, vnics_of
from manager_stub.register import Register
from manager_stub.reported import reported
from manager_stub.reports import believable
from manager_stub.transaction import Row
from vsfwd.policy.model import MAX_HOST_VNICS
from vsfwd.protocol.messages import Addresses, Binding, Bindings, Request

log = structlog.get_logger()

MAX_LEFT = 8 * MAX_HOST_VNICS
"""VMs that a host told of and that are plugged nowhere any more: they stay until somebody deletes them, so a
host could fill the inventory with one report after another."""
REQUEST_LIVES_S = 60
"""That the broker keeps a request for a host that does not take it."""
MAX_ATTEMPTS = 64
"""Changes refused on the way to the VMs of one report that can be."""


class Vnics:
    def __init__(self, register: Register) -> None:
        self._register = register
        register.removed = self._removed
        self._heard: dict[str, tuple[str, int]] = {}
        """By host: what it was asked to say again, and when it said last which vNICs it has."""
        self._asked_at: dict[str, float] = {}
        """When each host that has not answered was asked to report."""
        makers = {path: audit.host_of(actor) for path, actor in register.makers("/vsfw/vms").items()}
        self._discovered = {path: host for path, host in makers.items() if host}
        """Which host told of a VM that nobody knew."""
        self.as_told_inside: Callable[[str, Binding], Binding] = lambda host, binding: binding
        """A binding with what guests say of themselves, by host."""
        self.came: Callable[[str, Mapping[str, str]], None] = lambda host, had: None
        """Called with a host that has vNICs now that it had not, and who had each last."""
        # Who had something before its host has been away ever since, until it is seen.
        self._away = {host: now_ms() for each in register.tenures.values() for host in each.hosts[:-1]}
        self._plug(self._said())

    # Which host has them

    def bound(self, id: str, bindings: Bindings) -> None:
        """The host says which vNICs are plugged there. A host for which what counts of that is too much keeps
        its last state."""
        if self._is_overtaken(id, bindings):
            return
        was_away = self._away.pop(id, None) is not None
        self._register.seen(id)
        good, wrong = believable(self._register.world, bindings.vnics)
        if was_away or not self._is_decided(id, good):
            self._plug({**self._said(), id: good}, reporter=id)
        self._register.leave_out(id, wrong + self._inventory(id))

    def _is_decided(self, id: str, said: Sequence[Binding]) -> bool:
        """The host says what it said before, and the inventory is what it was: who has what is what it was. A
        thousand hosts say so at once after the broker was away."""
        return said == _said(self._register.hosts[id]) and self._register.world.vms is self._decided_for

    def _is_overtaken(self, id: str, said: Bindings) -> bool:
        """Whether the host has said something later already. It is asked: its clock may have been set."""
        asked, newest_ns = self._heard.get(id, ("", 0))
        answered = said.answers and said.answers == asked
        if answered:
            self._asked_at.pop(id, None)
        if answered or not said.said_ns or said.said_ns >= newest_ns:
            self._heard[id] = "", said.said_ns
            return False
        log.warning("an old report of vNICs is left out", host=id, older_by_ns=newest_ns - said.said_ns)
        self.ask_to_report(id)
        return True

    def ask_to_report(self, id: str) -> None:
        """Not while it may still answer: a host decides how often there is a reason."""
        now = time.monotonic()
        if now < self._asked_at.get(id, -inf) + REQUEST_LIVES_S:
            return
        request = Request(str(uuid4()), "report")
        _, newest_ns = self._heard.get(id, ("", 0))
        self._heard[id], self._asked_at[id] = (request.id, newest_ns), now
        self._register.requests.add(id, request)
        self._register.wake()

    def settle(self, vnic: str, host: str) -> None:
        """An operator says which of the hosts that claim a vNIC, and its VM, has them."""
        hosts = self._register.hosts.values()
        was = next((each.id for each in hosts if vnic in vnics_of(each.bindings)), None)
        log.warning("dispute settled", vnic=vnic, host=host, was=was)
        said = self._said()
        given = plugged.given(self._register.world, self._register.tenures, vnic, host, said[host])
        before = {"host": was} if was else None
        changed = audit.change(f"/vsfw/vnics/{vnic}", before, {"host": host}, now_ms())
        self._plug(said, given, logged=[changed])

    def arrived(self, host: str, vnics: Set[str]) -> None:
        """These vNICs, and the VM they are of, have moved to a host: what it says of them counts, whatever
        others still say."""
        if host not in self._register.hosts:
            return  # removed since
        said = self._said()
        here = {each.vnic for each in self._register.hosts[host].disputed} & vnics
        if here:
            world, tenures = self._register.world, self._register.tenures
            self._plug(said, plugged.given(world, tenures, min(here), host, said[host]))

    def stay_away(self, gone: Mapping[str, float], connected: Set[str] = frozenset()) -> None:
        """These hosts have been away for so many seconds that others may have their vNICs. One is away until
        it is seen again: not to know is no reason to take back what another has got meanwhile."""
        now = now_ms()
        away = {host: now - int(seconds * 1000) for host, seconds in gone.items()}
        away |= {host: since for host, since in self._away.items() if host not in connected}
        if away.keys() != self._away.keys():
            self._away = away
            self._plug(self._said())

    def _removed(self, id: str) -> None:
        """There is no such host any more."""
        self._heard.pop(id, None)
        self._asked_at.pop(id, None)
        self._away.pop(id, None)
        self._plug(self._said())

    def _said(self) -> dict[str, tuple[Binding, ...]]:
        return {host.id: _said(host) for host in self._register.hosts.values()}

    def _plug(
        self,
        said: Mapping[str, tuple[Binding, ...]],
        given: plugged.Tenures = MappingProxyType({}),
        reporter: str = "",
        logged: Sequence[Row] = (),
    ) -> None:
        """Decide what counts of all that hosts say, and what follows."""
        before = {**self._register.tenures, **given}
        taken, tenures = plugged.decided(self._register.world, said, before, self._away, now_ms())
        hosts = self._register.hosts
        after = {id: placed(host, said[id], taken[id]) for id, host in hosts.items()}
        moved = {id: host for id, host in after.items() if host is not hosts[id] or id == reporter}
        gained = {id for id in moved if not vnics_of(moved[id].bindings) <= vnics_of(hosts[id].bindings)}
        came = {id: self._came(id, moved[id], before) for id in gained}
        self._register.place(moved, tenures, logged)
        self._decided_for = self._register.world.vms
        for id in gained - {reporter}:
            # What it said of the names and addresses there counted for nothing until now.
            self.ask_to_report(id)
        for id, from_ in came.items():
            self.came(id, from_)

    def _came(self, id: str, after: Host, tenures: plugged.Tenures) -> dict[str, str]:
        """By vNIC that the host has now, and had not before, which host had it last."""
        new = vnics_of(after.bindings) - vnics_of(self._register.hosts[id].bindings)
        return {vnic: tenures[vnic].hosts[-1] for vnic in new if vnic in tenures}

    # The inventory

    def _inventory(self, host: str) -> list[str]:
        """Take VMs and addresses as their host says them; what cannot be, and why."""
        bindings = self._register.hosts[host].bindings
        wrong = self._discover(host, bindings)
        self._register.claim(addresses.told_by_tools(self._register.world.claims, host, bindings, now_ms()))
        return wrong

    def _discover(self, host: str, bindings: Sequence[Binding]) -> list[str]:
        """VMs as a host reports them, together if that is possible; what is not, and why. One that is not
        stops no other: it is looked for by halves, but not for ever, since every attempt costs a change."""
        world = self._register.world
        found, wrong = reported(world, [self.as_told_inside(host, binding) for binding in bindings])
        new = found.keys() - world.vms.keys()
        if new and (too_many := self._too_many(host, len(new))):
            found = {path: vm for path, vm in found.items() if path not in new}
            wrong.append(too_many)
        self._discovered |= dict.fromkeys(new & found.keys(), host)
        waiting, refusals = [list(found)] if found else [], 0
        with audit.as_host(host):
            while waiting and refusals < MAX_ATTEMPTS:
                paths = waiting.pop()
                try:
                    self._register.write(put={path: found[path] for path in paths})
                except Refused as refused:
                    refusals += 1
                    half = len(paths) // 2
                    if half:
                        waiting += [paths[half:], paths[:half]]
                    else:
                        wrong.append(f"VM {paths[0]}: {refused}")
        wrong += [f"VM {path}: too many beside it cannot be" for paths in waiting for path in paths]
        return wrong

    def guest_changed(self, host: str, vm: str) -> None:
        """What a guest there says of itself is otherwise now. Others of the host are not looked at: it may
        have a thousand, and each of them something to say."""
        there = self._register.hosts.get(host)
        if there is not None:
            self._discover(host, [binding for binding in there.bindings if binding.vm == vm])

    def _too_many(self, host: str, count: int) -> str:
        """Why the inventory takes no more new VMs from a host; empty if it does."""
        world = self._register.world
        self._discovered = {path: by for path, by in self._discovered.items() if path in world.vms}
        told = (world.vms[path].body for path, by in self._discovered.items() if by == host)
        left = sum(not any(card.id in world.plugged for card in vm.vnics) for vm in told)
        if left + count <= MAX_LEFT:
            return ""
        return f"{count} new VMs: it told of {left} that are plugged nowhere, and {MAX_LEFT} is the limit"

    # Addresses

    def claimed(self, id: str, said: Addresses) -> None:
        """The host says which addresses vNICs plugged there were seen with."""
        there = vnics_of(self._register.hosts[id].bindings)
        self._register.claim(addresses.told(self._register.world, id, there, said, now_ms()))

    def approve(self, vnic: str, address: str, approved: bool) -> None:
        claims = self._register.world.claims
        known = claims[vnic]
        log.warning("address decided", vnic=vnic, address=address, approved=approved)
        claim = replace(known[address], approved=approved)
        was, now = {"approved": known[address].approved}, {"approved": approved}
        changed = [audit.change(f"/vsfw/addresses/{vnic}/{address}", was, now, now_ms())]
        self._register.claim({**claims, vnic: {**known, address: claim}}, changed)

    def forget(self, vnic: str, address: str) -> None:
        """As if it had not been seen; if it is seen again, it is the newest."""
        claims = self._register.world.claims
        known = {seen: claim for seen, claim in claims[vnic].items() if seen != address}
        was = {"approved": claims[vnic][address].approved}
        changed = [audit.change(f"/vsfw/addresses/{vnic}/{address}", was, None, now_ms())]
        self._register.claim({**claims, vnic: known}, changed)
        for host in self._register.hosts.values():
            if vnic in vnics_of(host.bindings):
                self._register.requests.add(host.id, Request(str(uuid4()), "forget", vnic, address))
        self._register.wake()

    def expire(self) -> None:
        """Leases that have ended; vNICs that are neither in the inventory nor plugged anywhere."""
        world = self._register.world
        there = self._register.realised.cards.keys() | world.plugged.keys()
        self._register.claim(addresses.alive(world.claims, there, now_ms() // 1000))


def _said(host: Host) -> tuple[Binding, ...]:
    return *host.bindings, *host.disputed
