"""What is wrong now, as an alarm each: in what hosts say, at the broker, and with the manager itself. Nothing
is kept here: what is gone is no alarm any more."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from manager_stub.addresses import State
from manager_stub.alarms.alarm import MANAGER, Alarm, Entity, named, of_host
from manager_stub.broker import Broker, Unreachable
from manager_stub.clock import now_ms
from manager_stub.dead_letters import summary
from manager_stub.expiries import Expiries
from manager_stub.hosts import Host, trouble
from manager_stub.plugged import disputes
from manager_stub.presence import Presence
from manager_stub.register import Register
from vsfwd.amqp import Link
from vsfwd.protocol import topology
from vsfwd.protocol.topology import host_of

BROKER_AWAY_S: Final = 60.0
"""Without a session: longer than a broker needs that is started anew."""
_UPDATE_FAILED: Final = 301031
_RULE_FAILED: Final = 301032
"""Numbers of NSX's system events: the host's firewall could not be updated; a rule could not be applied."""
_MOST_LETTERS: Final = 20
"""Dead letters that are looked at."""
_AWAY: Final = "management_channel_to_transport_node_down"
_LAGS: Final = "realization_delayed"
_DEAD_LETTERS: Final = "dead_letters"
_STRANGER: Final = "transport_node_unknown"
_CLONED: Final = "transport_node_cloned"


@dataclass
class Found:
    """`unsure`: events, and ids of alarms, that may be there as well: nobody could say. `dead_letters`: how
    many, where the broker said it."""

    alarms: list[Alarm]
    unsure: set[str]
    dead_letters: int | None = None


class Causes:
    def __init__(
        self, register: Register, presence: Presence, broker: Broker, expiries: Expiries, link: Link
    ) -> None:
        self._register = register
        self._presence = presence
        self._broker = broker
        self._expiries = expiries
        self._link = link

    async def all(self, *, look: bool, within_s: float | None = None) -> Found:
        """`look`: at dead letters, and not only how many there are. What the broker has not said in time is
        left out."""
        found = Found(self._in_memory(), {_DEAD_LETTERS, _STRANGER, _CLONED})
        found.unsure |= _unsure(self._register.hosts, self._presence)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ask(found, look)
        return found

    def _in_memory(self) -> list[Alarm]:
        hosts = self._register.hosts.values()
        return [
            *(alarm for host in hosts for alarm in _with_a_host(host, self._presence)),
            *_knocking(self._register, self._presence),
            *_disputed(self._register),
            *_duplicate(self._register),
            *_expiring(self._register, self._expiries),
            *_no_broker(self._link),
        ]

    async def _ask(self, found: Found, look: bool) -> None:
        """The broker, one question after the other."""
        with suppress(Unreachable):
            found.dead_letters = await self._broker.dead_letters()
            found.alarms += await self._dead_letters(found.dead_letters, look)
            found.unsure.discard(_DEAD_LETTERS)
        with suppress(Unreachable):
            found.alarms += await self._strangers()
            found.unsure.discard(_STRANGER)
        silent = False
        for id in self._presence.clones():
            try:
                found.alarms += await self._cloned(id)
            except Unreachable:
                silent = True
        if not silent:
            found.unsure.discard(_CLONED)

    async def _dead_letters(self, count: int, look: bool) -> list[Alarm]:
        if not count:
            return []
        oldest = await self._broker.oldest_dead_letters(_MOST_LETTERS) if look else []
        what = f"{count} messages were refused by who they were for, or given back too often."
        told = summary(oldest, self._register.hosts)
        more = f" Of the oldest {len(oldest)}: {told}." if told else ""
        queue = Entity(topology.DEAD, "Queue")
        return [Alarm("communication", _DEAD_LETTERS, what, "MEDIUM", MANAGER, queue, now_ms(), more=more)]

    async def _strangers(self) -> list[Alarm]:
        """This manager was restored from a backup, and they were enrolled after that."""
        logins = await self._broker.strangers(self._register.hosts)
        what = "The broker knows this host, and the manager does not: was it enrolled after the backup?"
        return [
            Alarm("communication", _STRANGER, what, "HIGH", MANAGER, node, now_ms())
            for node in (Entity(login, "TransportNode") for login in logins)
        ]

    async def _cloned(self, id: str) -> list[Alarm]:
        """Machines with the same certificate: one is given the messages, the others wait for it to go."""
        peers = await self._broker.peers(id)
        if len(peers) < 2 or id not in self._register.hosts:
            return []
        what = f"Several machines are this host, by its certificate: {', '.join(peers)}"
        return [of_host(self._register.hosts[id], "communication", _CLONED, what)]


def _unsure(hosts: Iterable[str], presence: Presence) -> set[str]:
    """Alarms of hosts of which nobody knows whether they are connected."""
    unknown = [id for id in hosts if presence.is_up(id) is None]
    return {f"{event}.{id}" for event in (_AWAY, _LAGS) for id in unknown}


def _with_a_host(host: Host, presence: Presence) -> Iterator[Alarm]:
    if presence.is_up(host.id) is False:
        what = "The host has no connection to the broker."
        if not host.last_seen_ms:
            what = "The host has not been seen yet: start vsfwd there."
        yield of_host(host, "communication", _AWAY, what)
    if why := trouble(host):
        rule = not host.problem and all(each.kind != "message" for each in host.refusals)
        code = _RULE_FAILED if rule else _UPDATE_FAILED
        yield of_host(host, "distributed_firewall", "realization_failed", why, code=code)
    if presence.lags_for_s(host.id):
        what = "The host is connected, and has not had what is wanted for a while."
        yield of_host(host, "distributed_firewall", _LAGS, what, code=_UPDATE_FAILED)
    if host.left_out:
        what = f"The host reports what cannot be: {named(host.left_out)}"
        yield of_host(host, "distributed_firewall", "report_refused", what)


def _no_broker(link: Link) -> Iterator[Alarm]:
    """Nothing reaches a host, and no host can be told to be away."""
    if link.away_for_s() < BROKER_AWAY_S:
        return
    what = "The manager has no session with a broker: nothing reaches a host. Its log says why."
    broker = Entity("broker", "Broker")
    yield Alarm("communication", "broker_down", what, "CRITICAL", MANAGER, broker, now_ms())


def _knocking(register: Register, presence: Presence) -> Iterator[Alarm]:
    """Who shows a certificate of this installation and is not let in: revoked, or of an earlier enrolment."""
    event = "unknown_transport_node_knocks"
    for knock in presence.knocks():
        host = register.hosts.get(host_of(knock.login))
        who = (
            f"an earlier certificate of host {host.display_name}"
            if host
            else "a certificate that was revoked"
        )
        what = f"{knock.peer} shows {who}, {knock.login}"
        node = Entity(knock.login, "TransportNode")
        yield Alarm("communication", event, what, "HIGH", MANAGER, node, now_ms())


def _disputed(register: Register) -> Iterator[Alarm]:
    """One for each host that claims what others have."""
    hosts, told = register.hosts, dict[str, list[str]]()
    for claimant, binding, holder in disputes(register.world, hosts.values()):
        whose = f"host {hosts[holder].display_name} ({holder})" if holder else "nobody"
        told.setdefault(claimant, []).append(f"{binding.vnic} of {whose}")
    for id, vnics in told.items():
        host = hosts[id]
        what = f"Host {host.display_name} ({id}) claims vNICs that are not its own: {named(vnics)}"
        yield of_host(host, "distributed_firewall", "vnic_disputed", what)


def _duplicate(register: Register) -> Iterator[Alarm]:
    """One for each host that tells of addresses of others."""
    told: dict[str, list[str]] = {}
    for judged in register.judgements.values():
        for each in judged:
            if each.state is State.REFUSED and each.claimed.host in register.hosts:
                what = f"{each.address} at vNIC {each.vnic}, but {each.reason}"
                told.setdefault(each.claimed.host, []).append(what)
    for id, addresses in told.items():
        what = f"The host tells of addresses that others have: {named(addresses)}"
        yield of_host(register.hosts[id], "distributed_firewall", "duplicate_ip_address", what)


def _expiring(register: Register, expiries: Expiries) -> Iterator[Alarm]:
    """Of a host, and of the manager itself."""
    for id, found in expiries.of_hosts(register.hosts):
        what = f"The certificate of the host {found.description}"
        yield of_host(register.hosts[id], "certificates", found.event_type, what, found.severity)
    for name, found in expiries.of_installation():
        what = f"The certificate {name}.crt {found.description}"
        certificate = Entity(name, "Certificate")
        yield Alarm("certificates", found.event_type, what, found.severity, MANAGER, certificate, now_ms())
