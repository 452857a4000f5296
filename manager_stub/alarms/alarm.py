"""An alarm: of what, since which cause, and what somebody said of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from manager_stub.hosts import Host

_MOST: Final = 10
"""vNICs, or reasons, that an alarm names."""


@dataclass(frozen=True)
class Node:
    """Where it is: a host, or the manager, which has no id."""

    id: str
    name: str
    type: str


@dataclass(frozen=True)
class Entity:
    """What it is about."""

    id: str
    type: str


@dataclass(frozen=True)
class Known:
    """What somebody said of an alarm. `since`, `until`: in seconds since 1970."""

    status: str
    description: str
    user: str
    since: float
    until: float = inf


@dataclass(frozen=True)
class Alarm:
    feature: str
    event: str
    description: str
    severity: str
    node: Node
    entity: Entity
    seen_ms: int
    event_code: int | None = None
    """The number of NSX's system event, where it has one."""
    known: Known | None = None
    more: str = ""
    """What whoever looks closer sees too: what somebody said holds whatever it is."""

    @property
    def id(self) -> str:
        return f"{self.event}.{self.entity.id}"

    @property
    def status(self) -> str:
        return self.known.status if self.known else "OPEN"


MANAGER: Final = Node("", "manager", "ManagerNode")


def of_host(
    host: Host,
    feature: str,
    event: str,
    description: str,
    severity: str = "CRITICAL",
    code: int | None = None,
) -> Alarm:
    node, entity = Node(host.id, host.display_name, "TransportNode"), Entity(host.id, "TransportNode")
    return Alarm(feature, event, description, severity, node, entity, host.last_seen_ms, code)


def named(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return "; ".join(texts[:_MOST]) + more
