"""Alarms: what somebody should look into before users call, in the shape of NSX's (feature, event type,
severity, entity, description).

One sample in ten seconds, as NSX takes them for its thresholds. An alarm is open from the first sample that
shows its cause until a minute has passed without, or, where it is neither of a plugged vNIC nor an
incident, until the first without; both are logged. Nothing is remembered over a restart: a cause that lasts
shows again. Looked at are the flow tables: one that is nearly full of flows that give way to
nobody, and one that has refused a flow; vNICs that were seen with another's address, or have had no policy
for a minute; the certificate of this host, when it nears its end; its broker, when there is none for a
minute; and incidents."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NoReturn

import structlog

from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, TableUse
from vsfwd.incidents import Cause, Incidents

log = structlog.get_logger(log="vsfwd.alarms")

PERIOD_S: Final = 10.0
QUIET_SAMPLES: Final = 6
CLOSED_SAMPLES: Final = 6
"""In a row without a policy, until that is an alarm: one that is on its way takes seconds."""
HELD_HIGH: Final = 0.9


@dataclass
class Alarm:
    description: str
    since: datetime
    samples_left: int
    """Without its cause, until it is resolved."""
    incident: bool
    """Its entity need not be there any more."""


class Alarms:
    """`open` are the alarms of now; `tables` is how full flow tables were at the last sample, by vNIC id."""

    def __init__(
        self,
        datapath: Datapath,
        apply_thread: ApplyThread,
        duplicates: Callable[[], Mapping[str, str]],
        of_this_host: Callable[[], Mapping[Cause, str]] = dict,
        incidents: Incidents | None = None,
    ) -> None:
        self.open: dict[Cause, Alarm] = {}
        self.tables: Mapping[str, TableUse] = {}
        self._datapath = datapath
        self._apply_thread = apply_thread
        self._duplicates = duplicates
        self._of_this_host = of_this_host
        self._incidents = incidents or Incidents()
        self._refused: dict[str, int] = {}
        self._closed: dict[str, int] = {}

    async def watch(self) -> NoReturn:
        while True:
            tables = await self._looked_at()
            closed = await self._apply_thread(self._datapath.closed)
            self.sample(tables, self._duplicates(), datetime.now(UTC), self._of_this_host(), closed)
            await asyncio.sleep(PERIOD_S)

    async def _looked_at(self) -> dict[str, TableUse]:
        """One table after the other, since policy waits for each."""
        used = {id: await self._apply_thread(self._datapath.table_use, id) for id in [*self._datapath.slots]}
        return {id: use for id, use in used.items() if use}

    def sample(
        self,
        tables: Mapping[str, TableUse],
        duplicates: Mapping[str, str],
        now: datetime,
        of_this_host: Mapping[Cause, str] = MappingProxyType({}),
        closed: Set[str] = frozenset(),
    ) -> None:
        """By vNIC id. `duplicates` says in words whose address it was seen with; `closed` have no policy."""
        self.tables = tables
        incidents = self._incidents.take()
        seen = {**dict(self._causes(tables)), **of_this_host, **incidents}
        for vnic, words in duplicates.items():
            seen[Cause("duplicate_ip_address", "HIGH", vnic)] = words
        self._closed = {vnic: self._closed.get(vnic, 0) + 1 for vnic in closed}
        for vnic, samples in self._closed.items():
            if samples > CLOSED_SAMPLES:
                seen[Cause("dfw_vnic_without_policy", "HIGH", vnic)] = "it stays closed: no policy names it"
        self._refused = {vnic: use.refused for vnic, use in tables.items()}
        for cause, description in seen.items():
            if cause not in self.open:
                log.warning("alarm", feature=cause.feature, **cause._asdict(), description=description)
            since = self.open[cause].since if cause in self.open else now
            self.open[cause] = Alarm(description, since, QUIET_SAMPLES, cause in incidents)
        for cause in self.open.keys() - seen.keys():
            alarm = self.open[cause]
            alarm.samples_left -= 1
            if not alarm.samples_left or not (alarm.incident or cause.entity in tables):
                del self.open[cause]
                log.info("alarm is resolved", feature=cause.feature, **cause._asdict())

    def _causes(self, tables: Mapping[str, TableUse]) -> Iterator[tuple[Cause, str]]:
        for vnic, use in tables.items():
            if use.held > HELD_HIGH:
                cause = Cause("dfw_session_count_high", "HIGH", vnic)
                yield cause, f"{use.held:.0%} of its flow table is held by flows that are never evicted"
            refused = use.refused - self._refused.get(vnic, use.refused)
            if refused > 0:
                cause = Cause("dfw_session_refused", "CRITICAL", vnic)
                yield cause, f"its flow table is full: {refused} packets of new flows were dropped"
