"""What `vsfwctl metrics` prints, made of the daemon's answers, and the page that says what. Pure."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import vsfwd.ipc.interface as api
from vsfwd import metrics
from vsfwd.metrics import SEVERITIES, Family, Sample

_VNIC: Final = ("vnic", "vm")
_RULE: Final = ("rule", "name")
STATES: Final = ("open", "closed", "excluded", "unattached")
METRICS: Final = (
    Family("vsfwd_info", "Always 1: version of vsfwd, id of the host.", ("version", "host")),
    Family("vsfwd_policy_epoch", "The manager's epoch of the policy in force."),
    Family("vsfwd_policy_generation", "Number of the policy in force, among those of this host."),
    Family(
        "vsfwd_policy_realised_timestamp_seconds", "When the last change was in the kernel; none before one."
    ),
    Family(
        "vsfwd_policy_realise_seconds",
        "From the last message on until it was in the kernel; none before one.",
    ),
    Family(
        "vsfwd_messages_total",
        "Messages of policy since the start: put in force (applied), come twice (duplicate), refused.",
        ("result",),
    ),
    Family("vsfwd_broker_connected", "1 while there is a session with a broker, else 0."),
    Family("vsfwd_vnics", f"vNICs by state: {', '.join(STATES)}.", ("state",)),
    Family("vsfwd_vnics_behind", "vNICs where another program runs before those of vsfwd."),
    Family("vsfwd_objects_refused", "Objects of the policy that are not in force."),
    Family("vsfwd_alarms", f"Alarms by severity: {', '.join(SEVERITIES)}.", ("severity",)),
    Family("vsfwd_table_entries", "What tables hold: rules, rows, hosts, prefixes.", ("table",)),
    Family(
        "vsfwd_flow_table_held_ratio",
        "Share of the places of a vNIC's flow table that flows hold which are never evicted, of a sample.",
        _VNIC,
    ),
    Family("vsfwd_rule_packets_total", "Packets that the rule has decided on, over all vNICs.", _RULE),
    Family("vsfwd_rule_bytes_total", "Bytes of these.", _RULE),
    Family("vsfwd_rule_sessions_total", "Sessions that the rule has decided on, over all vNICs.", _RULE),
    Family("vsfwd_rule_events_suppressed_total", "Events the rule was not logged with, as too many.", _RULE),
    Family(
        "vsfwd_dropped_packets_total",
        "Packets dropped since the vNIC was attached, by reason.",
        (*_VNIC, "reason"),
    ),
    Family(
        "vsfwd_unfiltered_packets_total", "Packets that passed because the vNIC is, or was, excluded.", _VNIC
    ),
    Family("vsfwd_early_passed_packets_total", "Packets that an early drop let pass.", ("device",)),
    Family(
        "vsfwd_early_dropped_packets_total",
        "Packets that an early drop dropped, by its prefixes or its rate.",
        ("device", "reason"),
    ),
    Family("vsfwd_log_lines_lost_total", "Lines of logged rules that nobody read in time."),
    Family("vsfwd_events_lost_total", "Events of logged rules for which the kernel's ring had no room."),
)


def exposed(host: api.HostStatus, counted: api.HostStats) -> bytes:
    return metrics.exposition(METRICS, (*_status(host), *_counted(counted)))


def page() -> str:
    return metrics.page(
        "Metrics of a host",
        "What `vsfwctl metrics` prints; [how Prometheus gets it](OPERATE.md#metrics). `vm` is a VM's name, "
        "`name` a rule's; reasons of drops are [DROPS.md](DROPS.md).",
        METRICS,
    )


def _status(host: api.HostStatus) -> Iterator[Sample]:
    yield Sample("vsfwd_info", 1, (host.version, host.host_id))
    yield Sample("vsfwd_policy_epoch", host.epoch)
    yield Sample("vsfwd_policy_generation", host.generation)
    if host.realised_at is not None:
        at_s = datetime.fromisoformat(host.realised_at).timestamp()
        yield Sample("vsfwd_policy_realised_timestamp_seconds", at_s)
        yield Sample("vsfwd_policy_realise_seconds", host.duration_us / 1e6)
    yield Sample("vsfwd_messages_total", host.messages_applied, ("applied",))
    yield Sample("vsfwd_messages_total", host.messages_duplicate, ("duplicate",))
    yield Sample("vsfwd_messages_total", host.messages_refused, ("refused",))
    yield Sample("vsfwd_broker_connected", host.broker is not None)
    states = Counter(each.state for each in host.vnics)
    yield from (Sample("vsfwd_vnics", states[state], (state,)) for state in STATES)
    yield Sample("vsfwd_vnics_behind", int(host.datapath["vnics_behind"]))
    yield Sample("vsfwd_objects_refused", len(host.refusals))
    alarms = Counter(each.severity for each in host.alarms)
    yield from (Sample("vsfwd_alarms", alarms[severity], (severity,)) for severity in SEVERITIES)
    for table in ("rules", "rows", "hosts", "prefixes"):
        yield Sample("vsfwd_table_entries", getattr(host.image, table), (table,))
    for drop in host.early:
        yield Sample("vsfwd_early_passed_packets_total", drop.passed, (drop.device,))
        yield Sample("vsfwd_early_dropped_packets_total", drop.dropped_blocked, (drop.device, "prefix"))
        yield Sample("vsfwd_early_dropped_packets_total", drop.dropped_rate, (drop.device, "rate"))
    yield Sample("vsfwd_log_lines_lost_total", host.log_lines_lost)
    yield Sample("vsfwd_events_lost_total", int(host.datapath["events_lost"]))


def _counted(counted: api.HostStats) -> Iterator[Sample]:
    for rule in counted.rules:
        labels = (str(rule.id), rule.name)
        yield Sample("vsfwd_rule_packets_total", rule.packets, labels)
        yield Sample("vsfwd_rule_bytes_total", rule.bytes, labels)
        yield Sample("vsfwd_rule_sessions_total", rule.sessions, labels)
        yield Sample("vsfwd_rule_events_suppressed_total", rule.suppressed, labels)
    for vnic in counted.drops:
        for reason, packets in vnic.reasons.items():
            yield Sample("vsfwd_dropped_packets_total", packets, (vnic.vnic, vnic.vm_name, reason))
    for one in counted.unfiltered:
        yield Sample("vsfwd_unfiltered_packets_total", one.packets, (one.vnic, one.vm_name))
    for table in counted.flows:
        yield Sample("vsfwd_flow_table_held_ratio", table.held, (table.vnic, table.vm_name))
