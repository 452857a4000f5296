"""What Prometheus is told of the installation, and the page that says what: of what is in memory; what only
the broker knows is handed in. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from manager_stub.alarms.alarm import Alarm
from manager_stub.hosts import Host
from manager_stub.presence import Presence
from vsfwd import metrics
from vsfwd.metrics import SEVERITIES, Family, Sample

_HOST: Final = ("host", "name")
_STATES: Final = {True: "up", False: "down", None: "unknown"}
METRICS: Final = (
    Family("vsfw_manager_info", "Always 1: version of the manager.", ("version",)),
    Family("vsfw_manager_broker_connected", "1 while the manager has a session with a broker, else 0."),
    Family("vsfw_manager_hosts", f"Hosts by state: {', '.join(_STATES.values())}.", ("state",)),
    Family(
        "vsfw_manager_host_up",
        "1 while the host is connected to the broker, 0 while it is not; none while nobody knows.",
        _HOST,
    ),
    Family(
        "vsfw_manager_host_in_sync",
        "1 where the host has said that it has what it is to have, else 0.",
        _HOST,
    ),
    Family("vsfw_manager_host_generation_wanted", "Number of the policy that the host is to have.", _HOST),
    Family("vsfw_manager_host_generation_applied", "Number of the policy that it has said it has.", _HOST),
    Family("vsfw_manager_messages_unconfirmed", "Messages of policy that hosts have not said they applied."),
    Family(
        "vsfw_manager_component_messages_waiting", "Messages to components of hosts that have not gone out."
    ),
    Family("vsfw_manager_components", "Hosts on which the component has said something.", ("component",)),
    Family(
        "vsfw_manager_alarms",
        f"Open alarms by severity: {', '.join(SEVERITIES)}; of those that only the broker "
        "knows, none while it does not answer.",
        ("severity",),
    ),
    Family("vsfw_manager_dead_letters", "Messages that nobody took; none while the broker does not answer."),
)


def page() -> str:
    return metrics.page(
        "Metrics of the manager",
        "What `GET /api/v1/vsfw/metrics` answers; [how Prometheus asks](OPERATE.md#metrics). "
        "`host` is the id of a host.",
        METRICS,
    )


def of_hosts(hosts: Iterable[Host], presence: Presence) -> Iterator[Sample]:
    """Of each, and of all together."""
    states = Counter[bool | None]()
    unconfirmed = 0
    for host in hosts:
        labels, up, level = (host.id, host.display_name), presence.is_up(host.id), host.level
        states[up] += 1
        unconfirmed += level.outgoing is not None
        if up is not None:
            yield Sample("vsfw_manager_host_up", up, labels)
        yield Sample("vsfw_manager_host_in_sync", level.in_sync, labels)
        yield Sample("vsfw_manager_host_generation_wanted", level.generation, labels)
        yield Sample("vsfw_manager_host_generation_applied", level.applied.generation, labels)
    yield from (Sample("vsfw_manager_hosts", states[up], (state,)) for up, state in _STATES.items())
    yield Sample("vsfw_manager_messages_unconfirmed", unconfirmed)


def of_components(hosts: Mapping[str, int], waiting: int) -> Iterator[Sample]:
    """`hosts`: how many, by component."""
    yield from (Sample("vsfw_manager_components", count, (name,)) for name, count in sorted(hosts.items()))
    yield Sample("vsfw_manager_component_messages_waiting", waiting)


def of_alarms(alarms: Iterable[Alarm]) -> Iterator[Sample]:
    open_ = Counter(alarm.severity for alarm in alarms if alarm.status == "OPEN")
    yield from (Sample("vsfw_manager_alarms", open_[severity], (severity,)) for severity in SEVERITIES)
