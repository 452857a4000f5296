"""The register: all objects, all hosts, and the one way to change them.

A change is one transaction: the objects, the generation every host concerned should reach, and the messages
that take it there. What a change would make impossible (a reference to nothing, more rules than a host
holds) refuses it whole. The register is the only writer of the store, belongs to one thread, and never
waits: its methods are not coroutines, so nothing comes between.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from uuid import uuid4

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub import audit, catalogue, levels, plugged
from manager_stub.addresses import Claims, Judgements, State
from manager_stub.checks import (
    Refused,
    check_groups,
    check_layers,
    check_macs,
    check_names,
    check_nesting,
    check_references,
    check_system_owned,
    check_unique,
    check_unused,
    gone,
)
from manager_stub.clock import now_ms
from manager_stub.concerned import concerned
from manager_stub.hosts import Host, advanced, bindings_of, heard, host_row, plugged_at, resumed, stored_host
from manager_stub.levels import Level, Position
from manager_stub.locks import check_locks, signed
from manager_stub.model import Entity, SecurityPolicy
from manager_stub.moves.move import arriving, expected, stored_move
from manager_stub.rounds import Rounds
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
from manager_stub.store import Store
from manager_stub.transaction import Row, Transaction
from manager_stub.world import Stored, World, is_policy, kind_of
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Applied, Hello, Reply, Request, digest_text
from vsfwd.protocol.order import REQUEST, seal_order

log = structlog.get_logger()

NUMBERED = {"rules": 1000, "segments": 0, "security-policies": 0}
"""Kinds whose objects get a number of their own, and the number before the first: rule ids begin at 1001."""


class Register:
    def __init__(self, store: Store, key: Ed25519PrivateKey, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called after every change that leaves something to send."""
        self._store = store
        self._key = key
        self.wake = wake
        self.check_publish: Callable[[], None] = lambda: None
        """Called before a change of the policy; raises Refused where somebody else's is not done yet."""
        self.requests: Rounds[Request] = Rounds()
        """What hosts are to be asked."""
        self.replied: Callable[[str, Reply], None] = lambda host, reply: None
        self.unreadable: Callable[[str, str], None] = lambda host, reason: None
        """Called with what a host answers, or with why its answer cannot be read."""
        self.applied: Callable[[Collection[str]], None] = lambda hosts: None
        """Called with hosts that have said what they have applied."""
        self.removed: Callable[[str], None] = lambda host: None
        """Called when there is a host less."""
        self.audit_shares = audit.Shares()
        self._numbers = NUMBERED | store.numbers()
        host_rows = store.hosts()
        objects = [stored_object(row) for row in store.objects()]
        claims = claims_by_vnic(store.claims())
        bindings = {row.id: bindings_of(row) for row in host_rows}
        world = World(hosts=frozenset(bindings), claims=claims, plugged=plugged_at(bindings))
        self._realised: Realised = realise(world.changed(objects, ()))
        outbox = {row.host: outgoing(row) for row in store.outbox()}
        moves = {row["id"]: stored_move(row) for row in store.moves()}
        coming = expected(moves, arriving(moves, bindings, now_ms()))
        self._hosts = {
            row.id: stored_host(row, outbox.get(row.id), self._realised, coming.get(row.id, frozenset()))
            for row in host_rows
        }
        begun = {each: plugged.Tenure((id,)) for each, id in plugged.held(self.world, bindings).items()}
        self._tenures: plugged.Tenures = begun | tenures_of(store.tenures())
        resuming = {id: resumed(host, self._key) for id, host in self._hosts.items()}
        self._store_hosts({id: host for id, host in resuming.items() if host is not self._hosts[id]})
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

    @property
    def tenures(self) -> plugged.Tenures:
        return self._tenures

    def makers(self, above: str) -> Mapping[str, str]:
        """By path, of what is or was below a path: who made it."""
        return self._store.makers(above)

    @property
    def judgements(self) -> Judgements:
        return self._realised.judgements

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
        now = now_ms()
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
            transaction.add_changes(self.audit_shares.kept(changes, now))
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
        check_unique(self.world, stored)
        check_references(world, stored, gone(self.world, world, set(delete)))
        check_macs(self.world, world, stored)
        check_names(self.world, world, stored)
        check_groups(world, stored)
        check_nesting(world, stored)
        check_layers(world, stored)
        realised = realise(world, self._realised)
        return realised, self._advanced(realised)

    def _advanced(self, realised: Realised) -> dict[str, Host]:
        """The hosts that a change moves. Raises Refused where one could not hold what it would need."""
        return advanced(realised, concerned(self._realised, realised, self._hosts.values()), self._key)

    def _next(
        self, path: str, body: Entity, numbers: dict[str, int], system: bool, now: int
    ) -> Stored[Entity]:
        before = self.world.get(path)
        body = body.model_copy(update={"id": None, "revision": None})
        if isinstance(body, SecurityPolicy):
            body = signed(body, self.world.sections[path].body if before else None, now)
        if before is not None and before.body == body:
            return before  # as in NSX, whose clients tell by the revision whether they changed something
        if before is not None:
            return replace(before, body=body, revision=before.revision + 1, modified_ms=now)
        kind = kind_of(path)
        if kind in NUMBERED:
            numbers[kind] += 1
        return Stored(path, body, str(uuid4()), numbers.get(kind, 0), 0, system, now, now)

    # Hosts

    def add_host(
        self, id: str, display_name: str, also: Callable[[Transaction], None] = lambda _: None
    ) -> None:
        """`also`: what is stored with it, or not at all."""
        level = Level(id, 1, 1, levels.EMPTY, 0, "", None, Position(0, 0, digest_text(0)))
        host = {id: Host(id, display_name, level)}
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, host)
            also(transaction)
            transaction.add_changes(
                [audit.change(f"/vsfw/hosts/{id}", None, {"display_name": display_name}, now_ms())]
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
            transaction.add_changes([audit.change(f"/vsfw/hosts/{id}", name, None, now_ms())])
        del self._hosts[id]
        self._realised = replace(self._realised, world=replace(self.world, hosts=self.world.hosts - {id}))
        self.removed(id)

    def seen(self, id: str) -> None:
        """The host says something."""
        self._hosts[id] = replace(self._hosts[id], last_seen_ms=now_ms())

    def reported(self, said: Mapping[str, Hello | Applied]) -> None:
        """These hosts say what they have applied: all of it is stored, or nothing."""
        after = {id: heard(self._hosts[id], each, self._key, now_ms()) for id, each in said.items()}
        # Most hosts say every half a minute what they said before: that is not written down each time.
        same = {id for id, host in after.items() if host == _seen(self._hosts[id], host.last_seen_ms)}
        self._store_hosts({id: host for id, host in after.items() if id not in same})
        self._hosts.update({id: after[id] for id in same})
        self.applied(said.keys())

    def force_sync(self, id: str) -> None:
        """Send the host everything anew, as NSX's forceSync does."""
        host = self._hosts[id]
        if host.problem:
            raise Refused("", host.problem)
        level = levels.resend(host.level, self._key)
        before, after = ({"generation": each.generation} for each in (host.level, level))
        again = {id: replace(host, level=level)}
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, again)
            transaction.add_changes([audit.change(f"/vsfw/hosts/{id}", before, after, now_ms())])
        self._take(again)

    def signed(self, host: str, request: Request, lives_s: int) -> Message:
        """What the host is asked, as it goes out."""
        return self.order(host, request.id, REQUEST, msgspec.json.encode(request), lives_s)

    def order(self, host: str, id: str, kind: str, json: bytes, lives_s: int) -> Message:
        expires = int(time.time()) + lives_s
        return seal_order(self._key, host=host, id=id, kind=kind, expires=expires, json=json)

    def disbelieved(self, id: str, reason: str) -> None:
        """The host said what cannot be; what it said before stays."""
        host = self._hosts[id]
        self._hosts[id] = replace(host, reports_refused=host.reports_refused + 1, refused_because=reason)
        self.leave_out(id, [reason])

    def component_refused(self, id: str, component: str, reason: str) -> None:
        """One of the host's components did; that is no trouble of the host's."""
        log.warning("what a component says is refused", host=id, component=component, reason=reason)
        self._hosts[id] = replace(self._hosts[id], refused_because=reason)

    def leave_out(self, id: str, wrong: list[str]) -> None:
        """What of the host's last report does not count, and why."""
        if wrong and tuple(wrong) != self._hosts[id].left_out:
            log.error("a report is not believed", host=id, count=len(wrong), reasons=wrong[:10])
        self._hosts[id] = replace(self._hosts[id], left_out=tuple(wrong))

    def _store_hosts(self, hosts: Mapping[str, Host]) -> None:
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, hosts)
        self._take(hosts)

    # What hosts say of vNICs (`vnics`)

    def place(self, hosts: Mapping[str, Host], tenures: plugged.Tenures, logged: Sequence[Row] = ()) -> None:
        """These hosts have other vNICs than before, and whose everything is by now."""
        realised = self._realised
        where = plugged_at({id: host.bindings for id, host in {**self._hosts, **hosts}.items()})
        if where != self.world.plugged:
            realised = realise(replace(self.world, plugged=where), realised)
            others = (host for id, host in self._hosts.items() if id not in hosts)
            asked = [*hosts.values(), *concerned(self._realised, realised, others)]
            hosts = {**hosts, **advanced(realised, asked, self._key, refuse=False)}
        with self._store.begin() as transaction:
            _save(transaction, self._hosts, hosts)
            transaction.put_tenures(tenure_rows(tenures, self._tenures))
            transaction.delete_tenures(list(self._tenures.keys() - tenures.keys()))
            transaction.add_changes([*logged])
        self._realised, self._tenures = realised, tenures
        self._take(hosts)

    def expect(self, expected: Mapping[str, frozenset[str]]) -> None:
        """By host, vNICs that are about to be plugged there: it has their policy before. Raises Refused where
        one could not hold it."""
        changed = {
            id: replace(host, expected=coming)
            for id, host in self._hosts.items()
            if (coming := expected.get(id, frozenset())) != host.expected
        }
        self._store_hosts({**changed, **advanced(self._realised, changed.values(), self._key)})

    def claim(self, claims: Claims, logged: Sequence[Row] = ()) -> None:
        """These are the addresses that vNICs were seen with. Not, if a host could not hold what follows."""
        before = self.world.claims
        changed = {vnic for vnic in before.keys() | claims.keys() if before.get(vnic) != claims.get(vnic)}
        if not changed:
            return
        realised = realise(replace(self.world, claims=claims), self._realised)
        try:
            hosts = self._advanced(realised)
        except Refused as refused:
            log.error("addresses are not taken", vnics=sorted(changed), reason=str(refused))
            return
        with self._store.begin() as transaction:
            rows = [row for vnic in changed for row in claim_rows(vnic, claims.get(vnic, {}))]
            transaction.replace_claims(changed, rows)
            transaction.add_changes([*logged])
            _save(transaction, self._hosts, hosts)
        disputed = _disputed(realised) - _disputed(self._realised)
        self._realised = realised
        self._take(hosts)
        for vnic, address, reason in sorted(disputed):
            log.warning("a vNIC claims another's address", vnic=vnic, address=address, reason=reason)

    def _take(self, hosts: Mapping[str, Host]) -> None:
        self._hosts.update(hosts)
        if any(host.level.outgoing for host in hosts.values()):
            self.wake()


def _disputed(realised: Realised) -> set[tuple[str, str, str]]:
    every = (each for judged in realised.judgements.values() for each in judged)
    return {(each.vnic, each.address, each.reason) for each in every if each.state is State.REFUSED}


def _save(transaction: Transaction, before: Mapping[str, Host], hosts: Mapping[str, Host]) -> None:
    transaction.put_hosts([host_row(host) for host in hosts.values()])
    then = {id: before[id].level.outgoing if id in before else None for id in hosts}
    now = {id: host.level.outgoing for id, host in hosts.items()}
    transaction.clear_outbox([id for id in hosts if now[id] is None and then[id] is not None])
    transaction.put_outbox(
        [outbox_row(id, each) for id, each in now.items() if each is not None and each is not then[id]]
    )


def _seen(host: Host, at_ms: int) -> Host:
    return replace(host, last_seen_ms=at_ms)
