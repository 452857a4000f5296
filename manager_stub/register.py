"""The register: all objects, all hosts, and the one way to change them.

A change is one transaction: the objects, the generation every host concerned should reach, and the messages
that take it there. What a change would make impossible (a reference to nothing, more rules than a host
holds) refuses it whole. The register is the only writer of the store, belongs to one thread, and never
waits: its methods are not coroutines, so nothing comes between.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from uuid import uuid4

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub import addresses, audit, catalogue, levels, plugged
from manager_stub.addresses import Claims, Judgements, State
from manager_stub.checks import (
    Conflict,
    Refused,
    check_groups,
    check_layers,
    check_macs,
    check_nesting,
    check_references,
    check_system_owned,
    check_unused,
    gone,
)
from manager_stub.levels import Level, Outgoing, Position, TooMuch
from manager_stub.locks import check_locks, signed
from manager_stub.model import (
    Entity,
    SecurityPolicy,
    Segment,
    Vm,
)
from manager_stub.reported import reported
from manager_stub.reports import believable
from manager_stub.rows import (
    claim_rows,
    claims_by_vnic,
    object_row,
    outbox_row,
    outgoing,
    stored_object,
    tenure_rows,
    tenures_of,
)
from manager_stub.span import Realised, realise
from manager_stub.store import HostRow, Row, Store, Transaction
from manager_stub.world import Stored, World, is_policy, kind_of
from vsfwd.policy.model import MAX_HOST_VNICS
from vsfwd.protocol.messages import (
    Addresses,
    Applied,
    Binding,
    Bindings,
    Hello,
    Refusal,
    Reply,
    Request,
    digest_text,
)

log = structlog.get_logger()

NUMBERED = {"rules": 1000, "segments": 0, "security-policies": 0}
"""Kinds whose objects get a number of their own, and the number before the first: rule ids begin at 1001."""
MAX_LEFT = 8 * MAX_HOST_VNICS
"""VMs that a host told of and that are plugged nowhere any more: they stay until somebody deletes them, so a
host could fill the inventory with one report after another."""
REQUEST_LIVES_S = 60
"""That the broker keeps a request for a host that does not take it."""
MAX_ATTEMPTS = 64
"""Changes refused on the way to the VMs of one report that can be."""


@dataclass(frozen=True)
class Host:
    id: str
    display_name: str
    level: Level
    bindings: tuple[Binding, ...] = ()
    """The vNICs it has."""
    disputed: tuple[Binding, ...] = ()
    """Those it says it has, while others have them (`plugged`)."""
    disputes: int = 0
    """How many it claimed that others had, since the manager was started."""
    left_out: tuple[str, ...] = ()
    """What of its last report, or that all of it, does not count, and why."""
    reports_refused: int = 0
    """Since the manager was started."""
    refusals: tuple[Refusal, ...] = ()
    vsfwd: str = ""
    last_seen_ms: int = 0
    problem: str = ""
    """Why the host is kept at an older state than its bindings ask for."""


class Register:
    def __init__(self, store: Store, key: Ed25519PrivateKey, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called after every change that leaves something to send."""
        self._store = store
        self._key = key
        self.wake = wake
        self.check_publish: Callable[[], None] = lambda: None
        """Called before a change of the policy; raises Refused where somebody else's is not done yet."""
        self.requests: deque[tuple[str, Request]] = deque()
        """What hosts are to be asked, by host."""
        self.replied: Callable[[str, Reply], None] = lambda host, reply: None
        self.unreadable: Callable[[str, str], None] = lambda host, reason: None
        """Called with what a host answers, or with why its answer cannot be read."""
        self._heard: dict[str, tuple[str, int]] = {}
        """By host: what it was asked to say again, and when it said last which vNICs it has."""
        self._asked_at: dict[str, float] = {}
        """When each host that has not answered was asked to report."""
        self._discovered: dict[str, str] = {}
        """Which host told of a VM that nobody knew, since the manager was started."""
        self._numbers = NUMBERED | store.numbers()
        host_rows = store.hosts()
        bindings = {row.id: msgspec.json.decode(row.bindings, type=tuple[Binding, ...]) for row in host_rows}
        world = World(
            hosts=frozenset(bindings), claims=claims_by_vnic(store.claims()), plugged=_plugged(bindings)
        )
        self._realised: Realised = realise(world.changed((stored_object(row) for row in store.objects()), ()))
        outbox = {row.host: outgoing(row) for row in store.outbox()}
        self._hosts = {row.id: self._load(row, outbox.get(row.id)) for row in host_rows}
        self._resume()
        begun = {each: plugged.Tenure((id,)) for each, id in plugged.held(self.world, bindings).items()}
        self._tenures: plugged.Tenures = begun | tenures_of(store.tenures())
        # Who had something before its host has been away ever since, until it is seen.
        self._away = {host: _now_ms() for each in self._tenures.values() for host in each.hosts[:-1]}
        self._plug(self._said())
        self.write(
            put={path: body for path, body in catalogue.objects().items() if self.world.get(path) is None},
            system=True,
        )

    @property
    def world(self) -> World:
        return self._realised.world

    @property
    def realised(self) -> Realised:
        return self._realised

    @property
    def hosts(self) -> Mapping[str, Host]:
        return self._hosts

    def excluded_vnics(self, vm: str) -> list[str]:
        """Those of a VM, by its path, on which nothing is enforced."""
        cards = self._realised.cards
        return [vnic.id for vnic in self.world.vms[vm].body.vnics if cards[vnic.id].excluded]

    def frozen(self) -> "Register":
        """As it is now, for a thread that asks `check` of it while this one goes on. Not to be written to."""
        found = copy(self)
        found._hosts = dict(self._hosts)
        return found

    # Objects

    def write(self, *, put: Mapping[str, Entity], delete: Collection[str] = (), system: bool = False) -> None:
        """Put and delete objects, all or nothing. Raises Refused."""
        now = _now_ms()
        numbers = dict(self._numbers)
        stored = [self._next(path, body, numbers, system, now) for path, body in put.items()]
        realised, hosts = self._possible(stored, list(delete), system)
        rows = [object_row(each) for each in stored]
        changes = audit.changes(self.world, rows, delete, now)
        published = any(is_policy(change["path"]) for change in changes)
        if published and not system:
            self.check_publish()
        with self._store.begin() as transaction:
            transaction.put_objects(rows)
            transaction.delete_objects(list(delete))
            transaction.put_numbers(numbers)
            transaction.add_changes(changes)
            if published:
                transaction.add_configuration(audit.configuration("", now, automatic=True))
            _save(transaction, self._hosts, hosts)
        self._numbers, self._realised = numbers, realised
        self._take(hosts)

    def after(self, put: Mapping[str, Entity], delete: Collection[str]) -> Realised:
        """What `write` would lead to. Raises Refused where it would."""
        numbers = dict(self._numbers)
        stored = [self._next(path, body, numbers, False, 0) for path, body in put.items()]
        realised, _ = self._possible(stored, list(delete), False)
        return realised

    def _possible(
        self, stored: list[Stored[Entity]], delete: list[str], system: bool
    ) -> tuple[Realised, dict[str, Host]]:
        """What a change would lead to. Raises Refused."""
        world = self.world.changed(stored, delete)
        if not system:
            check_system_owned(self.world, stored, delete)
            check_locks(self.world, [*(each.path for each in stored), *delete])
        self._check_unique(stored)
        check_references(world, stored, gone(self.world, world, set(delete)))
        check_macs(self.world, world, stored)
        check_groups(world, stored)
        check_nesting(world, stored)
        check_layers(world, stored)
        realised = realise(world, self._realised)
        return realised, self._advanced(realised, self._hosts.values())

    def _check_unique(self, stored: list[Stored[Entity]]) -> None:
        for each in stored:
            if isinstance(each.body, Vm):
                for index, vnic in enumerate(each.body.vnics):
                    card = self._realised.cards.get(vnic.id)
                    if card is not None and card.vm.path != each.path:
                        raise Conflict(f"vnics.{index}.id", f"{vnic.id} is a vNIC of {card.vm.path}")
            if isinstance(each.body, Segment) and each.body.overlay_id is not None:
                for path, other in self.world.segments.items():
                    if other.body.overlay_id == each.body.overlay_id and path != each.path:
                        raise Conflict("overlay_id", f"{each.body.overlay_id} is {path}'s")

    def _next(
        self, path: str, body: Entity, numbers: dict[str, int], system: bool, now: int
    ) -> Stored[Entity]:
        before = self.world.get(path)
        body = body.model_copy(update={"id": None, "revision": None})
        if isinstance(body, SecurityPolicy):
            body = signed(body, self.world.sections[path].body if before else None, now)
        if before is not None:
            return replace(before, body=body, revision=before.revision + 1, modified_ms=now)
        kind = kind_of(path)
        if kind in NUMBERED:
            numbers[kind] += 1
        return Stored(path, body, str(uuid4()), numbers.get(kind, 0), 0, system, now, now)

    # Hosts

    def _resume(self) -> None:
        """Send what was wanted, but not sent, when the last process ended."""
        levelled = {
            id: replace(host, level=levels.advance(host.level, self._key))
            for id, host in self._hosts.items()
            if not host.problem
        }
        self._store_hosts(
            {id: host for id, host in levelled.items() if host.level is not self._hosts[id].level}
        )

    def add_host(self, id: str, display_name: str) -> None:
        level = Level(id, 1, 1, levels.EMPTY, 0, "", None, Position(0, 0, digest_text(0)))
        host = {id: Host(id, display_name, level)}
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, host)
            transaction.add_changes(
                [audit.change(f"/vsfw/hosts/{id}", None, {"display_name": display_name}, _now_ms())]
            )
        self._take(host)
        self._realised = replace(self._realised, world=replace(self.world, hosts=self.world.hosts | {id}))

    def check_removable(self, id: str) -> None:
        """Raises InUse when a cluster names it."""
        check_unused(self.world, {f"/vsfw/hosts/{id}"})

    def remove_host(self, id: str) -> None:
        """No such host afterwards; of two requests that wait for the broker, one comes too late."""
        if id not in self._hosts:
            return
        self.check_removable(id)
        name = {"display_name": self._hosts[id].display_name}
        with self._store.begin() as transaction:
            transaction.delete_host(id)
            transaction.add_changes([audit.change(f"/vsfw/hosts/{id}", name, None, _now_ms())])
        del self._hosts[id]
        self._heard.pop(id, None)
        self._asked_at.pop(id, None)
        self._away.pop(id, None)
        self._realised = replace(self._realised, world=replace(self.world, hosts=self.world.hosts - {id}))
        self._plug(self._said())

    # vNICs

    def bound(self, id: str, bindings: Bindings) -> None:
        """The host says which vNICs are plugged there. A host for which what counts of that is too much keeps
        its last state."""
        if self._is_overtaken(id, bindings):
            return
        self._away.pop(id, None)
        self._hosts[id] = replace(self._hosts[id], last_seen_ms=_now_ms())
        good, wrong = believable(self.world, bindings.vnics)
        wrong += self._plug({**self._said(), id: good}, reporter=id)
        self._leave_out(id, wrong)

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
        self._ask_to_report(id)
        return True

    def _ask_to_report(self, id: str) -> None:
        """Not while it may still answer: a host decides how often there is a reason."""
        now = time.monotonic()
        if now < self._asked_at.get(id, -inf) + REQUEST_LIVES_S:
            return
        request = Request(str(uuid4()), "report")
        _, newest_ns = self._heard.get(id, ("", 0))
        self._heard[id], self._asked_at[id] = (request.id, newest_ns), now
        self.requests.append((id, request))
        self.wake()

    def disbelieved(self, id: str, reason: str) -> None:
        """The host said what cannot be; what it said before stays."""
        host = self._hosts[id]
        self._hosts[id] = replace(host, reports_refused=host.reports_refused + 1)
        self._leave_out(id, [reason])

    def _leave_out(self, id: str, wrong: list[str]) -> None:
        if wrong and tuple(wrong) != self._hosts[id].left_out:
            log.error("a report is not believed", host=id, count=len(wrong), reasons=wrong[:10])
        self._hosts[id] = replace(self._hosts[id], left_out=tuple(wrong))

    def settle(self, vnic: str, host: str) -> None:
        """An operator says which of the hosts that claim a vNIC, and its VM, has them."""
        was = next((each.id for each in self._hosts.values() if vnic in _ids(each.bindings)), None)
        log.warning("dispute settled", vnic=vnic, host=host, was=was)
        said = self._said()
        given = plugged.given(self.world, self._tenures, vnic, host, said[host])
        before = {"host": was} if was else None
        changed = audit.change(f"/vsfw/vnics/{vnic}", before, {"host": host}, _now_ms())
        self._plug(said, given, logged=[changed])

    def stay_away(self, gone: Mapping[str, float], connected: Set[str] = frozenset()) -> None:
        """These hosts have been away for so many seconds that others may have their vNICs. One is away until
        it is seen again: not to know is no reason to take back what another has got meanwhile."""
        now = _now_ms()
        away = {host: now - int(seconds * 1000) for host, seconds in gone.items()}
        away |= {host: since for host, since in self._away.items() if host not in connected}
        if away.keys() != self._away.keys():
            self._away = away
            self._plug(self._said())

    def _said(self) -> dict[str, tuple[Binding, ...]]:
        return {host.id: (*host.bindings, *host.disputed) for host in self._hosts.values()}

    def _plug(
        self,
        said: Mapping[str, tuple[Binding, ...]],
        given: plugged.Tenures = MappingProxyType({}),
        reporter: str = "",
        logged: Sequence[Row] = (),
    ) -> list[str]:
        """Decide what counts of all that hosts say, and what follows. Why VMs of the reporter cannot be."""
        before = {**self._tenures, **given}
        taken, tenures = plugged.decided(self.world, said, before, self._away, _now_ms())
        hosts = {id: _placed(host, said[id], taken[id]) for id, host in self._hosts.items()}
        moved = {id: host for id, host in hosts.items() if host is not self._hosts[id]}
        gained = {id for id in moved if not _ids(moved[id].bindings) <= _ids(self._hosts[id].bindings)}
        where = _plugged({host.id: host.bindings for host in hosts.values()})
        if where != self.world.plugged:
            self._realised = realise(replace(self.world, plugged=where), self._realised)
            moved |= self._advanced(self._realised, hosts.values(), refuse=False)
        if reporter:
            moved.setdefault(reporter, hosts[reporter])
        self._store_hosts(moved, logged, tenures)
        for id in gained - {reporter}:
            # What it said of the names and addresses there counted for nothing until now.
            self._ask_to_report(id)
        return self._inventory(reporter) if reporter else []

    def _inventory(self, host: str) -> list[str]:
        """Take VMs and addresses as their host says them; what cannot be, and why."""
        bindings = self._hosts[host].bindings
        wrong = self._discover(host, bindings)
        self._claim(addresses.told_by_tools(self.world.claims, host, bindings, _now_ms()))
        return wrong

    def _discover(self, host: str, bindings: Sequence[Binding]) -> list[str]:
        """VMs as a host reports them, together if that is possible; what is not, and why. One that is not
        stops no other: it is looked for by halves, but not for ever, since every attempt costs a change."""
        found, wrong = reported(self.world, bindings)
        new = found.keys() - self.world.vms.keys()
        if new and (too_many := self._too_many(host, len(new))):
            found = {path: vm for path, vm in found.items() if path not in new}
            wrong.append(too_many)
        self._discovered |= dict.fromkeys(new & found.keys(), host)
        waiting, refusals = [list(found)] if found else [], 0
        before = audit.actor.set(f"host {host}")
        try:
            while waiting and refusals < MAX_ATTEMPTS:
                paths = waiting.pop()
                try:
                    self.write(put={path: found[path] for path in paths})
                except Refused as refused:
                    refusals += 1
                    half = len(paths) // 2
                    if half:
                        waiting += [paths[half:], paths[:half]]
                    else:
                        wrong.append(f"VM {paths[0]}: {refused}")
        finally:
            audit.actor.reset(before)
        wrong += [f"VM {path}: too many beside it cannot be" for paths in waiting for path in paths]
        return wrong

    def _too_many(self, host: str, count: int) -> str:
        """Why the inventory takes no more new VMs from a host; empty if it does."""
        vms = self.world.vms
        self._discovered = {path: by for path, by in self._discovered.items() if path in vms}
        told = (vms[path].body for path, by in self._discovered.items() if by == host)
        left = sum(not any(card.id in self.world.plugged for card in vm.vnics) for vm in told)
        if left + count <= MAX_LEFT:
            return ""
        return f"{count} new VMs: it told of {left} that are plugged nowhere, and {MAX_LEFT} is the limit"

    # Addresses

    @property
    def judgements(self) -> Judgements:
        return self._realised.judgements

    def claimed(self, id: str, said: Addresses) -> None:
        """The host says which addresses vNICs plugged there were seen with."""
        plugged = frozenset(binding.vnic for binding in self._hosts[id].bindings)
        self._claim(addresses.told(self.world, id, plugged, said, _now_ms()))

    def approve(self, vnic: str, address: str, approved: bool) -> None:
        known = self.world.claims[vnic]
        log.warning("address decided", vnic=vnic, address=address, approved=approved)
        claim = replace(known[address], approved=approved)
        was, now = {"approved": known[address].approved}, {"approved": approved}
        changed = [audit.change(f"/vsfw/addresses/{vnic}/{address}", was, now, _now_ms())]
        self._claim({**self.world.claims, vnic: {**known, address: claim}}, changed)

    def forget(self, vnic: str, address: str) -> None:
        """As if it had not been seen; if it is seen again, it is the newest."""
        known = {seen: claim for seen, claim in self.world.claims[vnic].items() if seen != address}
        was = {"approved": self.world.claims[vnic][address].approved}
        changed = [audit.change(f"/vsfw/addresses/{vnic}/{address}", was, None, _now_ms())]
        self._claim({**self.world.claims, vnic: known}, changed)
        for host in self._hosts.values():
            if any(binding.vnic == vnic for binding in host.bindings):
                self.requests.append((host.id, Request(str(uuid4()), "forget", vnic, address)))
        self.wake()

    def expire(self) -> None:
        """Leases that have ended; vNICs that are neither in the inventory nor plugged anywhere."""
        plugged = {binding.vnic for host in self._hosts.values() for binding in host.bindings}
        there = self._realised.cards.keys() | plugged
        self._claim(addresses.alive(self.world.claims, there, _now_ms() // 1000))

    def _claim(self, claims: Claims, logged: Sequence[Row] = ()) -> None:
        before = self.world.claims
        changed = {vnic for vnic in before.keys() | claims.keys() if before.get(vnic) != claims.get(vnic)}
        if not changed:
            return
        realised = realise(replace(self.world, claims=claims), self._realised)
        try:
            hosts = self._advanced(realised, self._hosts.values())
        except Refused as refused:
            log.error("addresses are not taken", vnics=sorted(changed), reason=str(refused))
            return
        with self._store.begin() as transaction:
            for vnic in changed:
                transaction.replace_claims(vnic, claim_rows(vnic, claims.get(vnic, {})))
            transaction.add_changes([*logged])
            _save(transaction, self._hosts, hosts)
        disputed = _disputed(realised) - _disputed(self._realised)
        self._realised = realised
        self._take(hosts)
        for vnic, address, reason in sorted(disputed):
            log.warning("a vNIC claims another's address", vnic=vnic, address=address, reason=reason)

    def reported(self, id: str, said: Hello | Applied) -> None:
        """The host says what it has applied."""
        host = self._hosts[id]
        position = Position(said.epoch, said.generation, said.digest)
        level = replace(host.level, applied=position)
        if not host.problem:
            level = levels.report(
                host.level,
                position,
                self._key,
                resync=isinstance(said, Applied) and said.resync,
                refused=frozenset(refusal.id for refusal in said.refusals if refusal.kind == "message"),
            )
        vsfwd = said.vsfwd if isinstance(said, Hello) else host.vsfwd
        host = replace(host, level=level, refusals=said.refusals, vsfwd=vsfwd, last_seen_ms=_now_ms())
        self._store_hosts({id: host})

    def _advanced(self, realised: Realised, hosts: Iterable[Host], *, refuse: bool = True) -> dict[str, Host]:
        """Those of the hosts that want something else than before. One that could not hold it raises Refused,
        or has a problem."""
        moved: dict[str, Host] = {}
        for host in hosts:
            needs = realised.needs(binding.vnic for binding in host.bindings)
            wanted = levels.state(needs, host.level.wanted)
            if wanted.digest == host.level.wanted.digest and not host.problem:
                continue
            try:
                levels.check_size(wanted)
            except TooMuch as error:
                if host.problem:  # as before this change, which may be a step of the cure
                    continue
                reason = f"host {host.display_name} ({host.id}): {error}"
                if refuse:
                    raise Refused("", reason) from None
                log.error("a host keeps its last state", host=host.id, reason=reason)
                moved[host.id] = replace(host, problem=reason)
                continue
            moved[host.id] = replace(host, level=levels.want(host.level, wanted, self._key), problem="")
        return moved

    def _store_hosts(
        self,
        hosts: Mapping[str, Host],
        logged: Sequence[Row] = (),
        tenures: plugged.Tenures | None = None,
    ) -> None:
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, hosts)
            if tenures is not None:
                transaction.put_tenures(tenure_rows(tenures, self._tenures))
                transaction.delete_tenures(list(self._tenures.keys() - tenures.keys()))
            transaction.add_changes([*logged])
        if tenures is not None:
            self._tenures = tenures
        self._take(hosts)

    def _take(self, hosts: Mapping[str, Host]) -> None:
        self._hosts.update(hosts)
        if any(host.level.outgoing for host in hosts.values()):
            self.wake()

    def _load(self, row: HostRow, outgoing: Outgoing | None) -> Host:
        bindings, disputed = (
            msgspec.json.decode(text, type=tuple[Binding, ...]) for text in (row.bindings, row.disputed)
        )
        wanted, problem = levels.state(self._realised.needs(binding.vnic for binding in bindings)), ""
        try:
            levels.check_size(wanted)
        except TooMuch as error:
            wanted, problem = levels.EMPTY, str(error)  # never sent: a host with a problem is sent nothing
        level = Level(
            row.id,
            row.epoch,
            # A release that renders the same objects otherwise wants something new.
            row.generation + (wanted.text != row.digest),
            wanted,
            row.sent_generation,
            row.sent_digest,
            wanted if wanted.text == row.sent_digest else None,
            Position(row.applied_epoch, row.applied_generation, row.applied_digest),
            outgoing,
        )
        refusals = msgspec.json.decode(row.refusals, type=tuple[Refusal, ...])
        return Host(
            row.id,
            row.display_name,
            level,
            bindings,
            disputed,
            refusals=refusals,
            vsfwd=row.vsfwd,
            last_seen_ms=row.last_seen_ms,
            problem=problem,
        )


def _ids(bindings: Iterable[Binding]) -> frozenset[str]:
    return frozenset(binding.vnic for binding in bindings)


def _placed(host: Host, said: Iterable[Binding], taken: tuple[Binding, ...]) -> Host:
    """The host with what counts of what it says, and what does not. The same one if that is as it was."""
    mine = _ids(taken)
    disputed = tuple(binding for binding in said if binding.vnic not in mine)
    if (taken, disputed) == (host.bindings, host.disputed):
        return host
    new = _ids(disputed) - _ids(host.disputed)
    if new:
        log.warning("a host claims vNICs of others", host=host.id, count=len(new), vnics=sorted(new)[:10])
    return replace(host, bindings=taken, disputed=disputed, disputes=host.disputes + len(new))


def _plugged(bindings: Mapping[str, Iterable[Binding]]) -> Mapping[str, frozenset[str]]:
    """Hosts by the vNICs they have."""
    found: dict[str, set[str]] = {}
    for host, there in bindings.items():
        for binding in there:
            found.setdefault(binding.vnic, set()).add(host)
    return {vnic: frozenset(hosts) for vnic, hosts in found.items()}


def _disputed(realised: Realised) -> set[tuple[str, str, str]]:
    every = (each for judged in realised.judgements.values() for each in judged)
    return {(each.vnic, each.address, each.reason) for each in every if each.state is State.REFUSED}


def _save(transaction: Transaction, before: Mapping[str, Host], hosts: Mapping[str, Host]) -> None:
    transaction.put_hosts([_host_row(host) for host in hosts.values()])
    for host in hosts.values():
        then = before[host.id].level.outgoing if host.id in before else None
        now = host.level.outgoing
        if now is None and then is not None:
            transaction.clear_outbox(host.id)
        elif now is not None and now is not then:
            transaction.put_outbox(outbox_row(host.id, now))


def _host_row(host: Host) -> HostRow:
    level = host.level
    return HostRow(
        host.id,
        host.display_name,
        level.epoch,
        level.generation,
        level.wanted.text,
        level.sent_generation,
        level.sent_digest,
        level.applied.epoch,
        level.applied.generation,
        level.applied.digest,
        msgspec.json.encode(host.refusals).decode(),
        msgspec.json.encode(host.bindings).decode(),
        host.vsfwd,
        host.last_seen_ms,
        msgspec.json.encode(host.disputed).decode(),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
