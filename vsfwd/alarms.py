"""Alarms: what somebody should look into before users call, in the shape of NSX's (feature, event type,
severity, entity, description).

One sample in ten seconds, as NSX takes them for its thresholds. An alarm is open from the first sample that
shows its cause until a minute has passed without; both are logged. Nothing is remembered over a restart: a
cause that lasts shows again. Looked at are the flow tables: one that is nearly full of flows that give way to
nobody, and one that has refused a flow; vNICs that were seen with another's address; the certificate of this
host, when it nears its end; and its broker, when there is none for a minute."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn

import structlog

from vsfwd.datapath import Datapath, TableUse
from vsfwd.reconciler import ApplyThread

log = structlog.get_logger(log="vsfwd.alarms")

FEATURE: Final = "distributed_firewall"
PERIOD_S: Final = 10.0
QUIET_SAMPLES: Final = 6
HELD_HIGH: Final = 0.9


class Cause(NamedTuple):
    """What an alarm is about; `entity` is the id of a vNIC, or of the host."""

    event_type: str
    severity: str
    entity: str

    @property
    def feature(self) -> str:
        if self.event_type.startswith("management_channel_"):
            return "communication"
        return "certificates" if self.event_type.startswith("certificate_") else FEATURE


@dataclass
class Alarm:
    description: str
    since: datetime
    samples_left: int
    """Without its cause, until it is resolved."""


class Alarms:
    """`open` are the alarms of now."""

    def __init__(
        self,
        datapath: Datapath,
        apply_thread: ApplyThread,
        duplicates: Callable[[], Mapping[str, str]],
        of_this_host: Callable[[], Mapping[Cause, str]] = dict,
    ) -> None:
        self.open: dict[Cause, Alarm] = {}
        self._datapath = datapath
        self._apply_thread = apply_thread
        self._duplicates = duplicates
        self._of_this_host = of_this_host
        self._refused: dict[str, int] = {}

    async def watch(self) -> NoReturn:
        while True:
            tables = await self._apply_thread(self._datapath.table_use)
            self.sample(tables, self._duplicates(), datetime.now(UTC), self._of_this_host())
            await asyncio.sleep(PERIOD_S)

    def sample(
        self,
        tables: Mapping[str, TableUse],
        duplicates: Mapping[str, str],
        now: datetime,
        of_this_host: Mapping[Cause, str] = MappingProxyType({}),
    ) -> None:
        """By vNIC id. `duplicates` says in words whose address it was seen with."""
        seen = {**dict(self._causes(tables)), **of_this_host}
        for vnic, words in duplicates.items():
            seen[Cause("duplicate_ip_address", "HIGH", vnic)] = words
        self._refused = {vnic: use.refused for vnic, use in tables.items()}
        for cause, description in seen.items():
            if cause not in self.open:
                log.warning("alarm", feature=cause.feature, **cause._asdict(), description=description)
            since = self.open[cause].since if cause in self.open else now
            self.open[cause] = Alarm(description, since, QUIET_SAMPLES)
        for cause in self.open.keys() - seen.keys():
            self.open[cause].samples_left -= 1
            if not self.open[cause].samples_left or cause.entity not in tables:
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
