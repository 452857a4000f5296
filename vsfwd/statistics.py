"""What rules have counted, told to the manager at a slow pace: once a minute what moved, and now and then all
of it (`messages.Statistics`).

The kernel counts, and goes on while the daemon is away; this only reads. Nothing of it delays policy: the
thread that applies policy is asked for a few counters at a time."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, DatapathError, RuleCounters
from vsfwd.protocol.messages import MAX_COUNTS, STATISTICS_AGAIN_S, RuleCount, Statistics

log = structlog.get_logger(log="vsfwd.statistics")

AT_ONCE: Final = 64
"""Counters read in one turn of the thread, a millisecond or two of it."""
NOTHING: Final = (0, 0, 0)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Counts = tuple[int, int, int]
"""Packets, bytes, sessions."""


class RuleStatistics:
    """`send` sends to the manager."""

    def __init__(
        self,
        datapath: Datapath,
        apply_thread: ApplyThread,
        send: Callable[[Statistics], None],
        period_s: float,
    ) -> None:
        self._datapath = datapath
        self._apply_thread = apply_thread
        self._send = send
        self.period_s = period_s
        self._boot = _BOOT_ID.read_text().strip()
        self._seen: Mapping[int, Counts] | None = None
        self._moved_s: Mapping[int, float] = {}
        """When each rule was seen to count."""
        self._told: Mapping[int, Counts] = {}
        self._all_due_s = 0.0

    async def run(self) -> NoReturn:
        """Hosts that start together do not all speak at once."""
        await asyncio.sleep(random.uniform(0, self.period_s))
        while True:
            try:
                counters = await read_counters(self._apply_thread, self._datapath)
            except DatapathError as error:
                log.warning("rule counters not read", reason=str(error))
            else:
                for report in self.reports(counters, time.clock_gettime(time.CLOCK_BOOTTIME)):
                    self._send(report)
            await asyncio.sleep(self.period_s)

    def start_over(self) -> None:
        """The manager may know nothing: the next time all is told."""
        self._all_due_s = 0.0

    def reports(self, counters: Mapping[int, RuleCounters], now_s: float) -> Iterator[Statistics]:
        """What is to be told at `now_s`, seconds since the boot. A rule that has left took its counters with
        it; that is told too, so that it is known to begin anew when it is back."""
        counts = {rule: (each.packets, each.bytes, each.sessions) for rule, each in counters.items()}
        self._look(counts, now_s)
        there = {rule: each for rule, each in counts.items() if each != NOTHING}
        due = {rule for rule in there.keys() | self._told if there.get(rule) != self._told.get(rule)}
        if all_of_it := now_s >= self._all_due_s:
            due |= there.keys()
            self._all_due_s = now_s + STATISTICS_AGAIN_S
        self._told = there
        for some in _parts(due, MAX_COUNTS) or [[]] * all_of_it:
            told = {str(rule): self._count(rule, counts.get(rule, NOTHING), now_s) for rule in some}
            yield Statistics(self._boot, int(now_s * 1000), told)

    def _look(self, counts: Mapping[int, Counts], now_s: float) -> None:
        moved_s = {rule: at_s for rule, at_s in self._moved_s.items() if rule in counts}
        if self._seen is not None:
            before = {rule: self._seen.get(rule, NOTHING)[0] for rule in counts}
            moved_s |= {rule: now_s for rule, each in counts.items() if each[0] not in (0, before[rule])}
        self._seen, self._moved_s = counts, moved_s

    def _count(self, rule: int, counts: Counts, now_s: float) -> RuleCount:
        moved_s = self._moved_s.get(rule)
        return RuleCount(*counts, -1 if moved_s is None else int(now_s - moved_s))


async def read_counters(
    apply_thread: Callable[..., Awaitable[Any]], datapath: Datapath
) -> dict[int, RuleCounters]:
    """By rule id, of all that are counted. Raises DatapathError."""
    found: dict[int, RuleCounters] = {}
    for some in _parts(await apply_thread(datapath.counted_rules), AT_ONCE):
        found |= await apply_thread(datapath.rule_counters, some)
    return found


def _parts(rules: Set[int], size: int) -> list[list[int]]:
    ordered = sorted(rules)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
