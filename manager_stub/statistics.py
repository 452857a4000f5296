"""What rules have counted, as hosts say it: added up for each host, and over all of them.

A host says what a rule has counted since the host began with it, so a report that is lost, comes twice or
was not written down adds up with the next; what went back began anew. A host is believed about rules it has,
or had. Written down is all of it together, now and then, since no host can tell when that was.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from manager_stub import audit, clock
from manager_stub.hosts import Host
from manager_stub.register import Register
from manager_stub.store import Store
from manager_stub.transaction import Row
from vsfwd.policy.model import Action, Rule, Tracking
from vsfwd.protocol.messages import STATISTICS_AGAIN_S, RuleCount, Statistics

SILENT_AFTER_S: Final = 2 * STATISTICS_AGAIN_S
"""A host that has said nothing of its rules for so long does not report them."""
LARGEST: Final = 2**63 - 1
"""What the database holds; a host can say what it likes."""
MAX_BOOTS: Final = 8
"""Of a host, remembered: what it said before the last ones is not in a queue any more."""


@dataclass(frozen=True)
class Total:
    """`hits`: how often the rule was asked and decided; of a rule that tracks its flows that is each flow, of
    others each packet."""

    packets: int = 0
    bytes: int = 0
    sessions: int = 0
    hits: int = 0
    last_hit_ms: int = 0

    def with_(self, more: "Total") -> "Total":
        return Total(
            min(self.packets + more.packets, LARGEST),
            min(self.bytes + more.bytes, LARGEST),
            min(self.sessions + more.sessions, LARGEST),
            min(self.hits + more.hits, LARGEST),
            max(self.last_hit_ms, more.last_hit_ms),
        )


@dataclass(frozen=True)
class Counted:
    """Of a rule on a host. `said`: packets, bytes and sessions as the host said them last."""

    total: Total = Total()
    said: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class HostCounts:
    """Of a host that reports: since when, and when it did last. `boots`: its boots, the last one of now;
    `at_ms`: the time since, of its last report."""

    begun_ms: int
    said_ms: int
    boots: tuple[str, ...] = ()
    at_ms: int = 0
    rules: Mapping[int, Counted] = field(default_factory=dict)

    def silent(self, now_ms: int) -> bool:
        return now_ms - self.said_ms > SILENT_AFTER_S * 1000


def heard(
    known: HostCounts | None, said: Statistics, wanted: Mapping[str, bytes], now_ms: int
) -> tuple[HostCounts, Mapping[int, Total]]:
    """What is known of a host after a report, and what that adds; the same if it came too late. `wanted` are
    the rules it is to have. Pure."""
    known = known or HostCounts(now_ms, now_ms)
    rebooted = said.boot != (known.boots or ("",))[-1]
    if said.boot in known.boots[:-1] or (not rebooted and said.at_ms < known.at_ms):
        return known, {}
    rules = dict(known.rules)
    if rebooted:  # all counters with it
        rules = {rule: replace(counted, said=(0, 0, 0)) for rule, counted in rules.items()}
    added: dict[int, Total] = {}
    for id, count in said.rules.items():
        if id not in wanted and int(id) not in rules:
            continue
        before = rules.get(int(id), Counted())
        more = _more(before.said, count, wanted.get(id), now_ms)
        rules[int(id)] = Counted(before.total.with_(more), (count.packets, count.bytes, count.sessions))
        added[int(id)] = more
    boots = (*known.boots, said.boot)[-MAX_BOOTS:] if rebooted else known.boots
    return HostCounts(known.begun_ms, now_ms, boots, said.at_ms, rules), added


def _more(before: tuple[int, int, int], count: RuleCount, wanted: bytes | None, now_ms: int) -> Total:
    now = (count.packets, count.bytes, count.sessions)
    if any(new < old for new, old in zip(now, before, strict=True)):
        before = (0, 0, 0)
    packets, bytes, sessions = (new - old for new, old in zip(now, before, strict=True))
    if not packets:
        return Total()
    hits = sessions if wanted is not None and _tracks(wanted) else packets
    return Total(packets, bytes, sessions, hits, max(now_ms - 1000 * max(count.age_s, 0), 1))


def _tracks(wanted: bytes) -> bool:
    """Whether packets of a flow that the rule allowed pass without being asked about again."""
    rule = msgspec.json.decode(wanted, type=Rule)
    stateless = rule.monitored or rule.frames is not None or rule.tracking is Tracking.STATELESS
    return rule.action is Action.ALLOW and not stateless


RESET: Final = "/infra/settings/firewall/stats"
"""The path of a reset in the audit log: that of NSX's call."""


class RuleStatistics:
    def __init__(self, store: Store, register: Register, now_ms: Callable[[], int] = clock.now_ms) -> None:
        self._store = store
        self._register = register
        self.now_ms = now_ms
        self._hosts = _loaded(store)
        self._unsaved: dict[str, set[int]] = {}
        """Rules by the hosts that have reported since all was written down."""
        self.totals: dict[int, Total] = {}
        """By rule."""
        self._add_up()

    @property
    def hosts(self) -> Mapping[str, HostCounts]:
        """As they are now, by id; those that have reported."""
        return {id: counts for id, counts in self._hosts.items() if id in self._register.hosts}

    def heard(self, id: str, said: Statistics) -> None:
        wanted = self._register.hosts[id].level.wanted.objects["rules"]
        self._hosts[id], added = heard(self._hosts.get(id), said, wanted, self.now_ms())
        for rule, more in added.items():
            self.totals[rule] = self.totals.get(rule, Total()).with_(more)
        self._unsaved.setdefault(id, set()).update(added)

    def unreported(self, rules: Iterable[int]) -> list[Host]:
        """Hosts that are to have one of these rules and do not say what it counts: of an older release, or
        away."""
        ids, now = {str(rule) for rule in rules}, self.now_ms()
        return [
            host
            for host in self._register.hosts.values()
            if ((counts := self._hosts.get(host.id)) is None or counts.silent(now))
            and not ids.isdisjoint(host.level.wanted.objects["rules"])
        ]

    def reset(self) -> None:
        """From zero, everywhere. When a rule was hit last stays known."""
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(RESET, None, {"action": "reset"}, clock.now_ms())])
        for id, counts in self._hosts.items():
            rules = {
                rule: replace(counted, total=Total(last_hit_ms=counted.total.last_hit_ms))
                for rule, counted in counts.rules.items()
            }
            self._hosts[id] = replace(counts, rules=rules)
            self._unsaved.setdefault(id, set()).update(rules)
        self._add_up()

    def save(self) -> None:
        """Write down what is new, and forget rules and hosts that are gone."""
        there = {rule.number for rule in self._register.world.rules.values()}
        gone = {rule for counts in self._hosts.values() for rule in counts.rules.keys() - there}
        if gone or self._hosts.keys() - self._register.hosts.keys():
            self._hosts = {
                id: replace(counts, rules={rule: counts.rules[rule] for rule in counts.rules.keys() & there})
                for id, counts in self.hosts.items()
            }
            self._add_up()
        unsaved = {id: rules & there for id, rules in self._unsaved.items() if id in self._hosts}
        if unsaved or gone:
            with self._store.begin() as transaction:
                transaction.put_host_statistics([_host_row(id, self._hosts[id]) for id in unsaved])
                transaction.put_rule_statistics(
                    [_row(id, rule, self._hosts[id].rules[rule]) for id in unsaved for rule in unsaved[id]]
                )
                transaction.delete_rule_statistics(sorted(gone))
        self._unsaved = {}

    def _add_up(self) -> None:
        self.totals = {}
        for counts in self._hosts.values():
            for rule, counted in counts.rules.items():
                self.totals[rule] = self.totals.get(rule, Total()).with_(counted.total)


def _host_row(id: str, counts: HostCounts) -> Row:
    return {
        "host": id,
        "begun_ms": counts.begun_ms,
        "said_ms": counts.said_ms,
        "boots": json.dumps(counts.boots),
        "at_ms": counts.at_ms,
    }


def _row(id: str, rule: int, counted: Counted) -> Row:
    said = dict(zip(("said_packets", "said_bytes", "said_sessions"), counted.said, strict=True))
    return {"host": id, "rule": rule, **vars(counted.total), **said}


def _loaded(store: Store) -> dict[str, HostCounts]:
    rules: dict[str, dict[int, Counted]] = {}
    for row in store.rule_statistics():
        total = Total(row["packets"], row["bytes"], row["sessions"], row["hits"], row["last_hit_ms"])
        said = (row["said_packets"], row["said_bytes"], row["said_sessions"])
        rules.setdefault(row["host"], {})[row["rule"]] = Counted(total, said)
    return {
        row["host"]: HostCounts(
            row["begun_ms"],
            row["said_ms"],
            tuple(json.loads(row["boots"])),
            row["at_ms"],
            rules.get(row["host"], {}),
        )
        for row in store.host_statistics()
    }
