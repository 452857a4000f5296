"""What must exist on RabbitMQ, declared through its management HTTP API: the topology of
`vsfwd.protocol.topology`, and each host's user, rights and queues.

Every call says what should be, so all of it can be said again at any time, after a crash at any step too.
Rights are those of the least: a host reads its two queues and writes the event exchange under its own keys,
nothing else.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import cycle
from typing import Any, Final, Literal
from urllib.parse import quote

import httpx
import structlog

from manager_stub.dead_letters import DeadLetter, letter
from vsfwd.policy.model import is_uuid
from vsfwd.protocol import components, topology
from vsfwd.protocol.messages import EVENTS

log = structlog.get_logger("manager.broker")

ADMIN: Final = "admin"
"""User of the management API."""
_TIMEOUT: Final = httpx.Timeout(10.0, connect=4.0)
"""A node that is cut off is found sooner than one that is busy."""
_QUEUE: Final = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,  # a cloned host does not silently take half of the messages
    "x-delivery-limit": topology.DELIVERY_LIMIT,
    "x-dead-letter-exchange": topology.DEAD,
}
_POLICY_BACKLOG: Final = 32
"""Only the newest is of use, and one is under way at a time: more than a few are copies sent again."""
_APP_BACKLOG: Final = 1000
_DEAD_BACKLOG: Final = 1000
_DEAD_LOOKS: Final = 1_000_000
"""To look at a dead letter is to give it back, and RabbitMQ 4.0 drops what is given back more than 20 times,
unless somebody says more. -1, for as often as one likes, is refused by 3.10."""
_COMPONENT_BACKLOG: Final = 10_000
"""Messages of all components together; the oldest goes first."""
_REPORT_BACKLOG: Final = 50_000
"""Reports of all hosts together: a thousand hosts say all of themselves in thirty thousand."""
_PRESENCE_BACKLOG: Final = 100_000
_BACKLOG_BYTES: Final = 64 * 1024 * 1024
"""Of what hosts send. The oldest goes first: reports are levelled, and a host that is not heard is asked
again."""
_LIMITS: Final = {"max-connections": 16, "max-channels": 64}
"""Of a host, which has two of each, and for a while those that died in silence. Of each that is open the
broker has a process."""
_NO_PASSWORD: Final = {"password_hash": "", "tags": ""}
"""A user who can log in with a certificate only."""
_VHOST: Final = topology.VHOST
_NOTHING: Final = "^$"
Right = Literal["write", "read"]
"""What a host has at the broker: to say something, to hear something."""


class Unreachable(Exception):
    """The broker did not do what it was told; the text says what that was."""


class Broker:
    def __init__(
        self,
        urls: Sequence[str],
        password: str,
        tls: ssl.SSLContext,
        logins: Callable[[str], Sequence[str]] = lambda host: (host,),
    ) -> None:
        """`urls`: of every node of the cluster; one that does not answer is followed by the next. `logins` of
        a host: all it ever had, the last is the one in force."""
        self.logins = logins
        self._client = httpx.AsyncClient(
            base_url=urls[0], auth=(ADMIN, password), verify=tls, timeout=_TIMEOUT, trust_env=False
        )
        self._nodes = len(urls)
        self._next_url = cycle([*urls[1:], urls[0]])
        self._adding = asyncio.Lock()
        """RabbitMQ refuses to declare a user that another request has just declared: a session that begins
        and an enrolment may add the same host."""
        self._removed: set[str] = set()
        self._shut_out: set[tuple[str, Right]] = set()
        """Hosts, and the right that each has lost for a while."""

    async def close(self) -> None:
        await self._client.aclose()

    async def set_up(self) -> None:
        """Exchanges, the manager's queue, the dead-letter queue, the manager's user."""
        await self._put(f"vhosts/{_VHOST}", {})
        for exchange, kind in (
            (topology.COMMANDS, "topic"),
            (topology.EVENTS, "topic"),
            (topology.DEAD, "fanout"),
        ):
            await self._put(f"exchanges/{_VHOST}/{exchange}", {"type": kind, "durable": True})
        await self._queue(topology.MANAGER_QUEUE, {**_QUEUE, "x-max-length-bytes": _BACKLOG_BYTES})
        # By a policy, for a queue that is there keeps the arguments it was made with.
        most = {"pattern": _exactly(topology.MANAGER_QUEUE), "definition": {"max-length": _REPORT_BACKLOG}}
        await self._put(f"policies/{_VHOST}/reports", {**most, "apply-to": "queues"})
        dead = {"x-queue-type": "quorum", "x-max-length": _DEAD_BACKLOG, "x-max-length-bytes": _BACKLOG_BYTES}
        await self._queue(topology.DEAD, dead)
        looks = {"pattern": _exactly(topology.DEAD), "definition": {"delivery-limit": _DEAD_LOOKS}}
        await self._put(f"policies/{_VHOST}/dead-letters", {**looks, "apply-to": "queues"})
        for kind in EVENTS:
            await self._bind(topology.EVENTS, topology.MANAGER_QUEUE, topology.event_key("*", kind))
        kept = {"x-max-length": _COMPONENT_BACKLOG, "x-max-length-bytes": _BACKLOG_BYTES}
        await self._queue(topology.COMPONENT_QUEUE, {**_QUEUE, **kept})
        for kind in components.KINDS:
            await self._bind(topology.EVENTS, topology.COMPONENT_QUEUE, topology.event_key("*", kind))
        await self._queue(topology.MOVE_QUEUE, {**_QUEUE, "x-max-length-bytes": _BACKLOG_BYTES})
        await self._bind(topology.EVENTS, topology.MOVE_QUEUE, topology.event_key("*", topology.MOVE))
        await self._bind(topology.DEAD, topology.DEAD, "")
        await self._put(f"users/{topology.MANAGER_USER}", _NO_PASSWORD)
        await self._allow(
            topology.MANAGER_USER,
            write=_exactly(topology.COMMANDS),
            read=_exactly(
                topology.MANAGER_QUEUE,
                topology.COMPONENT_QUEUE,
                topology.MOVE_QUEUE,
                topology.PRESENCE_QUEUE,
            ),
        )

    async def add_host(self, host: str) -> None:
        """Who it was before goes first. Then user and rights; the binding of the app queue last: where that
        is, everything is."""
        if not is_uuid(host):  # it goes into patterns and URLs
            raise ValueError(f"{host!r} is not a host id")
        async with self._adding:
            policy, app = topology.policy_queue(host), topology.app_queue(host)
            *earlier, login = self.logins(host)
            for each in earlier:
                await self._delete(f"users/{each}")
            await self._put(f"users/{login}", _NO_PASSWORD)
            await self._grant(host)
            for limit, count in _LIMITS.items():
                await self._put(f"user-limits/{login}/{limit}", {"value": count})
            await self._queue(policy, {**_QUEUE, "x-max-length": _POLICY_BACKLOG})
            await self._queue(app, {**_QUEUE, "x-max-length": _APP_BACKLOG})
            await self._bind(topology.COMMANDS, policy, topology.policy_key(host))
            await self._bind(topology.COMMANDS, app, topology.app_key(host))

    async def add_missing_hosts(self, hosts: Iterable[str]) -> None:
        """After a broker lost what it held, or was replaced; and those that an earlier release added, which
        hosts of this one may say more than. Nobody is shut out any more."""
        self._shut_out.clear()
        bindings = await self._call("list bindings", lambda: self._client.get(f"/api/bindings/{_VHOST}"))
        bound = {(each["source"], each["destination"]) for each in bindings.json()}
        may_say = await self._rights("topic-permissions", "write")
        may_hear = await self._rights("permissions", "read")
        limits = await self._call("list limits", lambda: self._client.get("/api/user-limits"))
        limited = {each["user"] for each in limits.json() if each["value"] == _LIMITS}
        for host in list(hosts):
            login = self.logins(host)[-1]
            there = (topology.COMMANDS, topology.app_queue(host)) in bound and login in limited
            may = may_say.get(login) == _event_keys(host) and may_hear.get(login) == _own_queues(host)
            if host not in self._removed and not (there and may):
                await self.add_host(host)

    async def strangers(self, hosts: Iterable[str]) -> list[str]:
        """Logins of hosts that are none of these, or have another: of a manager that knew more."""
        known = {login for host in hosts for login in self.logins(host)}
        return sorted(
            login
            for login in await self._rights("topic-permissions", "write")
            if is_uuid(host := topology.host_of(login)) and login not in known and host not in self._removed
        )

    async def remove_host(self, host: str) -> None:
        """The user first: that closes its connection. From now on no session brings the host back, unless it
        turns out that it could not be removed."""
        self._removed.add(host)
        try:
            for login in self.logins(host):
                await self._delete(f"users/{login}")
            for queue in (topology.policy_queue(host), topology.app_queue(host)):
                await self._delete(f"queues/{_VHOST}/{queue}")
        except Unreachable:
            self._removed.discard(host)
            raise

    async def shut_out(self, host: str, right: Right) -> None:
        """It has lost the right, whoever adds it, until it is let in. Connections that are open go: they may
        remember that it had it."""
        self._shut_out.add((host, right))
        await self._grant(host)
        await self._delete(f"connections/username/{self.logins(host)[-1]}")

    async def let_in(self, host: str, right: Right) -> None:
        self._shut_out.discard((host, right))
        await self.add_host(host)

    async def close_connections(self, user: str, but: str) -> None:
        """Of a user, all that are not called that."""
        columns = {"columns": "name,user,client_properties.connection_name"}
        url = f"/api/vhosts/{_VHOST}/connections"
        found = await self._call("list connections", lambda: self._client.get(url, params=columns))
        for each in found.json():
            if each["user"] == user and each.get("client_properties", {}).get("connection_name") != but:
                await self._delete(f"connections/{each['name']}")

    async def set_up_presence(self) -> None:
        """The queue of the broker's own events, empty: what is in it is older than what `consumers` says."""
        await self._queue(topology.PRESENCE_QUEUE, {**_QUEUE, "x-max-length": _PRESENCE_BACKLOG})
        await self._delete(f"queues/{_VHOST}/{topology.PRESENCE_QUEUE}/contents")
        for kind in ("consumer.created", "consumer.deleted", "user.authentication.failure"):
            await self._bind(topology.BROKER_EVENTS, topology.PRESENCE_QUEUE, kind)

    async def consumers(self) -> list[str]:
        """Of each consumer of a policy queue its host, as of the broker's last statistics (every 5 s)."""
        consumers = await self._call("list consumers", lambda: self._client.get(f"/api/consumers/{_VHOST}"))
        hosts = (topology.host_of_queue(each["queue"]["name"]) for each in consumers.json())
        return [host for host in hosts if host]

    async def peers(self, host: str) -> list[str]:
        """Where the consumers of a host's policy queue are, as of the last statistics."""
        queue = f"/api/queues/{_VHOST}/{topology.policy_queue(host)}"
        found = await self._call("list consumers of a queue", lambda: self._client.get(queue))
        details = [each["channel_details"] for each in found.json().get("consumer_details", ())]
        return sorted(f"{each['peer_host']}:{each['peer_port']}" for each in details)

    async def dead_letters(self) -> int:
        queue = f"/api/queues/{_VHOST}/{topology.DEAD}"
        found = await self._call("count dead letters", lambda: self._client.get(queue))
        return int(found.json().get("messages", 0))

    async def oldest_dead_letters(self, count: int) -> list[DeadLetter]:
        """Up to so many, which stay where they are. None where the broker cannot show them: their properties
        are their publishers'."""
        url = f"/api/queues/{_VHOST}/{topology.DEAD}/get"
        how = {"count": count, "ackmode": "reject_requeue_true", "encoding": "base64", "truncate": 1}
        try:
            found = await self._call("look at dead letters", lambda: self._client.post(url, json=how))
        except Unreachable as error:
            log.warning("dead letters cannot be looked at", reason=str(error))
            return []
        return [letter(each) for each in found.json()]

    async def forget_dead_letters(self) -> None:
        await self._delete(f"queues/{_VHOST}/{topology.DEAD}/contents")

    async def _grant(self, host: str) -> None:
        """What a host may, but for what it has lost for a while."""
        login = self.logins(host)[-1]
        # Without a topic permission every key is allowed; with it a host can speak for nobody else.
        keys = _NOTHING if (host, "write") in self._shut_out else _event_keys(host)
        topic_rights = {"exchange": topology.EVENTS, "write": keys, "read": _NOTHING}
        await self._put(f"topic-permissions/{_VHOST}/{login}", topic_rights)
        queues = _NOTHING if (host, "read") in self._shut_out else _own_queues(host)
        await self._allow(login, write=_exactly(topology.EVENTS), read=queues)

    async def _rights(self, which: str, to: str) -> dict[str, str]:
        """By user, a pattern."""
        url = f"/api/vhosts/{_VHOST}/{which}"
        rights = await self._call(f"list {which}", lambda: self._client.get(url))
        return {each["user"]: each[to] for each in rights.json()}

    async def _allow(self, user: str, *, write: str, read: str) -> None:
        await self._put(f"permissions/{_VHOST}/{user}", {"configure": _NOTHING, "write": write, "read": read})

    async def _queue(self, name: str, arguments: dict[str, Any]) -> None:
        await self._put(f"queues/{_VHOST}/{name}", {"durable": True, "arguments": arguments})

    async def _bind(self, exchange: str, queue: str, key: str) -> None:
        url = f"/api/bindings/{_VHOST}/e/{exchange}/q/{queue}"
        await self._call(
            f"bind {queue} to {exchange}", lambda: self._client.post(url, json={"routing_key": key})
        )

    async def _put(self, what: str, body: dict[str, Any]) -> None:
        await self._call(f"declare {what}", lambda: self._client.put(f"/api/{quote(what)}", json=body))

    async def _delete(self, what: str) -> None:
        await self._call(
            f"delete {what}", lambda: self._client.delete(f"/api/{quote(what)}"), gone_is_fine=True
        )

    async def _call(
        self, what: str, request: Callable[[], Awaitable[httpx.Response]], gone_is_fine: bool = False
    ) -> httpx.Response:
        for _ in range(self._nodes):
            try:
                response = await request()
                break
            except httpx.HTTPError as error:
                reason = f"{error or type(error).__name__}"
                self._client.base_url = next(self._next_url)
        else:
            raise Unreachable(f"{what}: {reason}")
        if response.is_server_error:  # of a node that is without the others, say: the next call asks another
            self._client.base_url = next(self._next_url)
        if response.is_error and not (gone_is_fine and response.status_code == httpx.codes.NOT_FOUND):
            raise Unreachable(f"{what}: {response.status_code} {response.text[:200]}")
        return response


def _own_queues(host: str) -> str:
    return _exactly(topology.policy_queue(host), topology.app_queue(host))


def _event_keys(host: str) -> str:
    return _exactly(*(topology.event_key(host, kind) for kind in (*EVENTS, *components.KINDS, topology.MOVE)))


def _exactly(*names: str) -> str:
    """A pattern for these names and no others."""
    return f"^({'|'.join(re.escape(name) for name in names)})$"
