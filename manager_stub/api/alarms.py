"""Alarms, in NSX's shape: /api/v1/alarms, and the same in the Policy API.

What is wrong is seen in what hosts say; an alarm is there as long as its cause, and nobody can resolve it
before. Somebody can say that they know (ACKNOWLEDGED) or do not want to see it for some hours (SUPPRESSED):
that is kept in memory and written to the audit log, and holds for this cause, in these words, only.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query

from manager_stub import audit
from manager_stub.addresses import State
from manager_stub.api.disputes import all_disputes
from manager_stub.api.errors import Problem
from manager_stub.api.objects import Json, Page, listed
from manager_stub.api.transport_nodes import trouble
from manager_stub.broker import Broker, Unreachable
from manager_stub.clock import now_ms
from manager_stub.expiries import Expiries
from manager_stub.hosts import Host
from manager_stub.presence import Presence
from manager_stub.register import Register
from manager_stub.store import Store
from vsfwd.amqp import Link
from vsfwd.protocol import topology
from vsfwd.protocol.topology import host_of

HOUR_S: Final = 3600
BROKER_AWAY_S: Final = 60.0
"""Without a session: longer than a broker needs that is started anew."""
_UPDATE_FAILED: Final = 301031
_RULE_FAILED: Final = 301032
"""Numbers of NSX's system events: the host's firewall could not be updated; a rule could not be applied."""
_MOST: Final = 10
"""vNICs, or reasons, that an alarm names."""
Word = Annotated[str | None, Query(max_length=255)]


@dataclass(frozen=True)
class Known:
    """What somebody said of an alarm. `until`: in seconds since 1970."""

    status: str
    description: str
    user: str
    since: float
    until: float = inf


class Alarms:
    """All alarms that there are, and what is known of them."""

    def __init__(
        self,
        register: Register,
        presence: Presence,
        broker: Broker,
        store: Store,
        expiries: Expiries,
        link: Link,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._register = register
        self._store = store
        self._presence = presence
        self._broker = broker
        self._expiries = expiries
        self._link = link
        self._clock = clock
        self._known: dict[str, Known] = {}

    async def all(self) -> list[Json]:
        hosts = self._register.hosts.values()
        found = [alarm for host in hosts for alarm in _of_host(host, self._presence)]
        found += [
            *await self._dead_letters(),
            *await self._cloned(),
            *_knocking(self._register, self._presence),
        ]
        found += [*_disputed(self._register), *_duplicate(self._register)]
        found += [*_expiring(self._register, self._expiries), *_no_broker(self._link)]
        causes = {alarm["id"]: alarm["description"] for alarm in found}
        now = self._clock()
        self._known = {
            id: known
            for id, known in self._known.items()
            if causes.get(id) == known.description and now < known.until
        }
        return [alarm | self._said(alarm["id"]) for alarm in found]

    async def _dead_letters(self) -> list[Json]:
        try:
            count = await self._broker.dead_letters()
        except Unreachable:
            return []
        what = f"{count} messages were refused by who they were for, or given back too often."
        manager = ("", "manager", "ManagerNode")
        letters = _shaped(
            "communication",
            "dead_letters",
            what,
            "MEDIUM",
            node=manager,
            entity=(topology.DEAD, "Queue"),
            seen_ms=now_ms(),
        )
        return [letters] if count else []

    async def _cloned(self) -> list[Json]:
        """Machines with the same certificate: one is given the messages, the others wait for it to go."""
        found: list[Json] = []
        for id in self._presence.clones():
            try:
                peers = await self._broker.peers(id)
            except Unreachable:
                continue
            if len(peers) > 1 and id in self._register.hosts:
                what = f"Several machines are this host, by its certificate: {', '.join(peers)}"
                found.append(_alarm(self._register.hosts[id], "communication", "transport_node_cloned", what))
        return found

    async def existing(self, id: str) -> Json:
        for alarm in await self.all():
            if alarm["id"] == id:
                return alarm
        raise Problem(404, f"there is no alarm {id}")

    def say(self, alarm: Json, status: str, hours: int | None) -> None:
        id, now = alarm["id"], self._clock()
        known = dict(self._known)
        if status == "RESOLVED":
            raise Problem(400, f"{id} is resolved when its cause is gone, not before", "new_status")
        if status == "SUPPRESSED" and hours is None:
            raise Problem(400, "missing: for how many hours", "suppress_duration")
        known.pop(id, None)
        if status in ("ACKNOWLEDGED", "SUPPRESSED"):
            until = now + hours * HOUR_S if status == "SUPPRESSED" and hours else inf
            known[id] = Known(status, alarm["description"], audit.actor.get(), now, until)
        before, after = {"status": alarm["status"]}, {"status": status, "suppress_duration": hours}
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(f"/alarms/{id}", before, after, int(now * 1000))])
        self._known = known

    def _said(self, id: str) -> Json:
        known = self._known.get(id)
        if known is None:
            return {"status": "OPEN"}
        if known.status == "ACKNOWLEDGED":
            return {"status": known.status}
        return {
            "status": known.status,
            "suppressed_by": known.user,
            "suppress_start_time": int(known.since * 1000),
            "suppress_duration": int((known.until - known.since) / HOUR_S),
        }


def router(alarms: Alarms) -> APIRouter:
    routes = APIRouter(tags=["Alarm"])
    for home in ("/api/v1/alarms", "/policy/api/v1/alarms"):
        _add(routes, alarms, home)
    return routes


def _add(routes: APIRouter, alarms: Alarms, home: str) -> None:
    @routes.get(home)
    async def list_alarms(
        page: Page,
        id: Word = None,
        feature_name: Word = None,
        event_type: Word = None,
        severity: Word = None,
        status: Word = None,
        node_id: Word = None,
        node_resource_type: Word = None,
    ) -> Json:
        """What is wrong now. Each filter takes several values, with commas."""
        wanted = {
            "id": id,
            "feature_name": feature_name,
            "event_type": event_type,
            "severity": severity,
            "status": status,
            "node_id": node_id,
            "node_resource_type": node_resource_type,
        }
        asked = {field: text.split(",") for field, text in wanted.items() if text is not None}
        every = await alarms.all()
        found = [each for each in every if all(each[field] in values for field, values in asked.items())]
        return listed(found, page, lambda alarm: alarm)

    @routes.get(f"{home}/{{id}}")
    async def read(id: str) -> Json:
        return await alarms.existing(id)

    @routes.post(f"{home}/{{id}}")
    async def set_status(
        id: str,
        action: Annotated[Literal["set_status"], Query()],
        new_status: Annotated[Literal["OPEN", "ACKNOWLEDGED", "SUPPRESSED", "RESOLVED"], Query()],
        suppress_duration: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    ) -> Json:
        """That somebody knows, does not want to see it for some hours, or neither any more."""
        alarms.say(await alarms.existing(id), new_status, suppress_duration)
        return await alarms.existing(id)


def _of_host(host: Host, presence: Presence) -> Iterator[Json]:
    if presence.is_up(host.id) is False:
        what = "The host has no connection to the broker."
        if not host.last_seen_ms:
            what = "The host has not been seen yet: start vsfwd there."
        yield _alarm(host, "communication", "management_channel_to_transport_node_down", what)
    if trouble(host):
        rule = not host.problem and all(each.kind != "message" for each in host.refusals)
        failed = _alarm(host, "distributed_firewall", "realization_failed", trouble(host))
        yield failed | {"event_code": _RULE_FAILED if rule else _UPDATE_FAILED}
    if presence.lags_for_s(host.id):
        what = "The host is connected, and has not had what is wanted for a while."
        delayed = _alarm(host, "distributed_firewall", "realization_delayed", what)
        yield delayed | {"event_code": _UPDATE_FAILED}
    if host.left_out:
        what = f"The host reports what cannot be: {_first(host.left_out)}"
        yield _alarm(host, "distributed_firewall", "report_refused", what)


def _no_broker(link: Link) -> Iterator[Json]:
    """Nothing reaches a host, and no host can be told to be away."""
    if link.away_for_s() < BROKER_AWAY_S:
        return
    what = "The manager has no session with a broker: nothing reaches a host. Its log says why."
    yield _shaped(
        "communication",
        "broker_down",
        what,
        "CRITICAL",
        node=("", "manager", "ManagerNode"),
        entity=("broker", "Broker"),
        seen_ms=now_ms(),
    )


def _knocking(register: Register, presence: Presence) -> Iterator[Json]:
    """Who shows a certificate of this installation and is not let in: revoked, or of an earlier enrolment."""
    for knock in presence.knocks():
        host = register.hosts.get(host_of(knock.login))
        who = (
            f"an earlier certificate of host {host.display_name}"
            if host
            else "a certificate that was revoked"
        )
        yield _shaped(
            "communication",
            "unknown_transport_node_knocks",
            f"{knock.peer} shows {who}, {knock.login}",
            "HIGH",
            node=("", "manager", "ManagerNode"),
            entity=(knock.login, "TransportNode"),
            seen_ms=now_ms(),
        )


def _disputed(register: Register) -> Iterator[Json]:
    """One for each host that claims what others have."""
    told: dict[str, list[str]] = {}
    for each in all_disputes(register):
        whose = f"host {each['host']['display_name']} ({each['host']['id']})" if each["host"] else "nobody"
        told.setdefault(each["claimed_by"]["id"], []).append(f"{each['vnic']} of {whose}")
    for id, vnics in told.items():
        host = register.hosts[id]
        what = f"Host {host.display_name} ({id}) claims vNICs that are not its own: {_first(vnics)}"
        yield _alarm(host, "distributed_firewall", "vnic_disputed", what)


def _duplicate(register: Register) -> Iterator[Json]:
    """One for each host that tells of addresses of others."""
    told: dict[str, list[str]] = {}
    for judged in register.judgements.values():
        for each in judged:
            if each.state is State.REFUSED and each.claimed.host in register.hosts:
                what = f"{each.address} at vNIC {each.vnic}, but {each.reason}"
                told.setdefault(each.claimed.host, []).append(what)
    for id, addresses in told.items():
        what = f"The host tells of addresses that others have: {_first(addresses)}"
        yield _alarm(register.hosts[id], "distributed_firewall", "duplicate_ip_address", what)


def _expiring(register: Register, expiries: Expiries) -> Iterator[Json]:
    """Of a host, and of the manager itself."""
    for id, found in expiries.of_hosts(register.hosts):
        what = f"The certificate of the host {found.description}"
        yield _alarm(register.hosts[id], "certificates", found.event_type, what, found.severity)
    for name, found in expiries.of_installation():
        yield _shaped(
            "certificates",
            found.event_type,
            f"The certificate {name}.crt {found.description}",
            found.severity,
            node=("", "manager", "ManagerNode"),
            entity=(name, "Certificate"),
            seen_ms=now_ms(),
        )


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return "; ".join(texts[:_MOST]) + more


def _alarm(host: Host, feature: str, event: str, description: str, severity: str = "CRITICAL") -> Json:
    return _shaped(
        feature,
        event,
        description,
        severity,
        node=(host.id, host.display_name, "TransportNode"),
        entity=(host.id, "TransportNode"),
        seen_ms=host.last_seen_ms,
    )


def _shaped(
    feature: str,
    event: str,
    description: str,
    severity: str,
    *,
    node: tuple[str, str, str],
    entity: tuple[str, str],
    seen_ms: int,
) -> Json:
    """`node`: id, name and type of it; `entity`: id and type."""
    node_id, node_name, node_type = node
    entity_id, entity_type = entity
    return {
        "id": f"{event}.{entity_id}",
        "feature_name": feature,
        "feature_display_name": _words(feature),
        "event_type": event,
        "event_type_display_name": _words(event),
        "summary": f"{_words(event)}: {'host ' if node_id else ''}{node_name}",
        "severity": severity,
        "node_id": node_id,
        "node_display_name": node_name,
        "node_resource_type": node_type,
        "entity_id": entity_id,
        "entity_resource_type": entity_type,
        "description": description,
        "last_reported_time": seen_ms,
    }


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
