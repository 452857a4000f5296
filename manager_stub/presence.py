"""Who is connected, who lags behind, who knocks and is not let in. In memory: it is told again.

The broker says when a host's consumer comes and goes (`amq.rabbitmq.event`): at once when a connection is
closed, and when it dies in silence, after two AMQP heartbeats that are missed (10 s each). What the host says
itself comes on top, every 30 s at least: one that has said nothing for AWAY_AFTER_S is away, whatever the
broker believes. Nobody is away because the broker, or this manager, was. No I/O.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from manager_stub.clock import now_ms
from manager_stub.hosts import Host

AWAY_AFTER_S: Final = 75.0
"""Neutron's `agent_down_time`, for heartbeats of 30 s."""
LAGS_AFTER_S: Final = 30.0
"""A connected host that has not all it is to have for so long: what is usual takes milliseconds."""
KNOCKS_S: Final = 600.0
"""How long somebody who was not let in is remembered."""
MAX_KNOCKS: Final = 256
MAX_CONSUMERS: Final = 16
"""Of one host, that are told apart: the broker lets it open as many as it likes."""


@dataclass(frozen=True)
class Knock:
    """The last of `count` attempts to log in as `login`."""

    login: str
    peer: str
    count: int
    at: float


class Presence:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._consumers: dict[str, set[str]] = {}
        """Those that came since then."""
        self._doubles: set[str] = set()
        """Hosts that had several consumers then."""
        self._signs: dict[str, float] = {}
        """When each host was there last."""
        self._closed: set[str] = set()
        """Those whose last consumer went."""
        self._behind: dict[str, float] = {}
        self._knocks: dict[str, Knock] = {}
        self._since: dict[str, tuple[bool | None, int]] = {}

    # What is heard

    def begin(self, consumers: Iterable[str]) -> None:
        """From now on the broker tells; a few seconds ago there were these consumers, each by its host."""
        now = self._begun = self._clock()
        found = Counter(consumers)
        self._consumers.clear()
        self._closed.clear()
        self._signs = dict.fromkeys(found, now)
        self._doubles = {host for host, count in found.items() if count > 1}

    def end(self) -> None:
        """The broker tells nothing any more."""
        self._begun = None

    def came(self, host: str, tag: str) -> None:
        tags = self._consumers.setdefault(host, set())
        if len(tags) < MAX_CONSUMERS:
            tags.add(tag)
        self._closed.discard(host)
        self._signs[host] = self._clock()

    def went(self, host: str, tag: str) -> None:
        tags = self._consumers.get(host, set())
        tags.discard(tag)
        if host in self._doubles:
            self._doubles.discard(host)
        elif not tags:
            self._closed.add(host)
            self._signs[host] = self._clock()

    def heard(self, host: str) -> None:
        """What a host said before it went may be read after: then it is gone all the same."""
        if host not in self._closed:
            self._signs[host] = self._clock()

    def knocked(self, login: str, peer: str) -> None:
        """Somebody with a certificate of this installation was not let in."""
        before = self._knocks.pop(login, None)
        self._knocks[login] = Knock(login, peer, before.count + 1 if before else 1, self._clock())
        if len(self._knocks) > MAX_KNOCKS:
            del self._knocks[next(iter(self._knocks))]

    def look(self, hosts: Mapping[str, Host]) -> None:
        """To be called every few seconds: who has not what is wanted, and since when."""
        now = self._clock()
        behind = {id for id, host in hosts.items() if not host.level.in_sync}
        self._behind = {id: self._behind.get(id, now) for id in behind}
        for known in (self._consumers, self._signs, self._since):
            for id in known.keys() - hosts.keys():
                del known[id]
        self._closed &= hosts.keys()
        self._doubles &= hosts.keys()

    # What is known

    def is_up(self, host: str) -> bool | None:
        """None: it is not known."""
        up = self._is_up(host)
        if host not in self._since or self._since[host][0] is not up:
            self._since[host] = up, now_ms()
        return up

    def _is_up(self, host: str) -> bool | None:
        if self._begun is None:
            return None
        if host in self._closed:
            return False
        if self._clock() - self._signs.get(host, self._begun) >= AWAY_AFTER_S:
            return False
        return True if host in self._signs else None

    def since_ms(self, host: str) -> int:
        """Since when it is as `is_up` says."""
        self.is_up(host)
        return self._since[host][1]

    def away_for_s(self, host: str) -> float:
        """Since it was there last, as far as is known."""
        if self.is_up(host) is not False or self._begun is None:
            return 0.0
        return self._clock() - self._signs.get(host, self._begun)

    def lags_for_s(self, host: str) -> float:
        """That a connected host has not had what is wanted; 0 for less than LAGS_AFTER_S."""
        since = self._behind.get(host)
        if since is None or self.is_up(host) is not True or self._clock() - since < LAGS_AFTER_S:
            return 0.0
        return self._clock() - since

    def clones(self) -> list[str]:
        """Hosts of which there may be more than one."""
        return [*self._doubles, *(host for host, tags in self._consumers.items() if len(tags) > 1)]

    def knocks(self) -> list[Knock]:
        now = self._clock()
        return [knock for knock in self._knocks.values() if now - knock.at < KNOCKS_S]
