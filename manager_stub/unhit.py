"""Rules that no packet has met, as far as hosts say. Pure, over what they have said at one moment.

That nobody has told of a hit is not that there was none: a rule counts as unhit only where a host that is to
have it has reported all the time, and the hosts that have not are named beside."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from manager_stub.findings import MAX_NAMED, Finding, Kind
from manager_stub.model import Rule
from manager_stub.register import Register
from manager_stub.statistics import HostCounts, RuleStatistics, Total
from manager_stub.world import Stored

DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True)
class HostSaid:
    """`rules` are those it is to have, by id; `counts` is None where it never said what they count."""

    path: str
    name: str
    rules: Set[str]
    counts: HostCounts | None


@dataclass(frozen=True)
class Hits:
    """What is known at `now_ms`."""

    hosts: tuple[HostSaid, ...]
    totals: Mapping[int, Total]
    now_ms: int


NO_HITS: Final = Hits((), {}, 0)


def hits(register: Register, statistics: RuleStatistics) -> Hits:
    """As it is now."""
    said = statistics.hosts
    hosts = (
        HostSaid(
            f"/vsfw/hosts/{host.id}",
            host.display_name,
            host.level.wanted.objects["rules"].keys(),
            said.get(host.id),
        )
        for host in register.hosts.values()
    )
    return Hits(tuple(hosts), dict(statistics.totals), statistics.now_ms())


def never_hit(rules: Iterable[Stored[Rule]], known: Hits, days: int) -> Iterator[Finding]:
    """Those not hit for so many days; of 0 those that never were, however short that is known."""
    before_ms = known.now_ms - days * DAY_MS
    waiting: dict[str, tuple[Stored[Rule], int]] = {}
    for rule in rules:
        last_ms = known.totals.get(rule.number, Total()).last_hit_ms
        if rule.created_ms <= before_ms and (last_ms < before_ms if days else not last_ms):
            waiting[str(rule.number)] = rule, last_ms
    watched: dict[str, int] = {}
    unwatched: dict[str, list[HostSaid]] = {}
    for host in known.hosts:
        here = host.rules & waiting.keys()
        if host.counts is not None and not _is_silent(host, known) and host.counts.begun_ms <= before_ms:
            begun_ms = host.counts.begun_ms
            watched |= {id: min(begun_ms, watched.get(id, begun_ms)) for id in here}
        else:
            for id in here:
                unwatched.setdefault(id, []).append(host)
    for id, begun_ms in watched.items():
        rule, last_ms = waiting[id]
        yield _never_hit(rule, last_ms, max(rule.created_ms, last_ms, begun_ms), unwatched.get(id, []))


def _never_hit(rule: Stored[Rule], last_ms: int, since_ms: int, unknown: list[HostSaid]) -> Finding:
    why = f"no packet since {_time(since_ms)}" + ("" if last_ms else ", nor before as far as is known")
    if unknown:
        names = [host.name for host in unknown[:MAX_NAMED]]
        more = [f"{len(unknown) - MAX_NAMED} more"] * (len(unknown) > MAX_NAMED)
        why += f"; not known of {', '.join(names + more)}"
    step = "ask whose it is; disable it before it is deleted"
    return Finding(Kind.NEVER_HIT, rule.path, why, step, tuple(host.path for host in unknown))


def unreported(known: Hits) -> Iterator[Finding]:
    for host in known.hosts:
        if host.rules and _is_silent(host, known):
            when = f"since {_time(host.counts.said_ms)}" if host.counts else "ever"
            why = f"has not said {when} what its rules count: whether they are hit there is not known"
            step = "bring its vsfwd back, or to this release"
            yield Finding(Kind.UNREPORTED_HOST, host.path, why, step, name=host.name)


def _is_silent(host: HostSaid, known: Hits) -> bool:
    return host.counts is None or host.counts.silent(known.now_ms)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
