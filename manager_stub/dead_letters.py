"""Messages that nobody took: whose they are, and why, as the broker keeps them. Pure.

What a publisher wrote is in them: of their properties nothing is believed but what the broker vouches for
(`user_id`), or added itself (the first of `x-death`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from manager_stub.hosts import Host
from vsfwd.protocol import topology

_REASONS: Final = {
    "rejected": "refused",
    "delivery_limit": "given back too often",
    "maxlen": "dropped from a full queue",
}
"""RabbitMQ's words, and ours."""
_MOST: Final = 5
"""Kinds of letters that a summary tells of."""


@dataclass(frozen=True)
class DeadLetter:
    """`host`: who said it, or whom it was for (`to_host`); empty where neither is known."""

    host: str
    to_host: bool
    queue: str
    key: str
    reason: str
    time_ms: int
    size: int


def letter(found: Mapping[str, Any]) -> DeadLetter:
    """Of a message as the management API shows it."""
    properties = found.get("properties") or {}  # an empty list where there are none
    death = _first_death(properties)
    queue, reason, time_s = str(death.get("queue", "")), str(death.get("reason", "")), death.get("time")
    return DeadLetter(
        topology.owner_of(queue) or topology.host_of(str(properties.get("user_id", ""))),
        bool(topology.owner_of(queue)),
        queue,
        str(found.get("routing_key", "")),
        _REASONS.get(reason, reason or "for no known reason"),
        time_s * 1000 if isinstance(time_s, int) else 0,
        int(found.get("payload_bytes", 0)),
    )


def _first_death(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    deaths = (properties.get("headers") or {}).get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def summary(letters: Sequence[DeadLetter], hosts: Mapping[str, Host]) -> str:
    """How many of which host, and why."""
    counts = Counter((each.host, each.to_host, each.reason) for each in letters)
    told = [f"{count} {why(*kind, hosts)}" for kind, count in counts.most_common(_MOST)]
    return "; ".join([*told, *(["and others"] if len(counts) > _MOST else [])])


def why(id: str, to_host: bool, reason: str, hosts: Mapping[str, Host]) -> str:
    """In words. Of what the manager refused the host's last is quoted, as long as the manager runs."""
    host = hosts.get(id)
    name = f"host {host.display_name}" if host else f"host {id}" if id else "nobody known"
    if to_host:
        return f"to {name}, {reason}"
    last = f": {host.refused_because}" if host and host.refused_because else ""
    return f"of {name}, {reason}{last}"
