"""All alarms there are, and what is known of them.

An alarm is there as long as its cause, and nobody can resolve it before. Somebody can say that they know
(ACKNOWLEDGED) or do not want to see it for some hours (SUPPRESSED): that is kept in memory and written to the
audit log, and holds for this cause, in these words, only.
"""

import time
from collections.abc import Callable, Set
from dataclasses import replace
from math import inf
from typing import Final

from manager_stub import audit
from manager_stub.alarms.alarm import Alarm, Known
from manager_stub.alarms.causes import Causes, Found
from manager_stub.checks import Refused
from manager_stub.store import Store

HOUR_S: Final = 3600


class Alarms:
    def __init__(self, causes: Causes, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._causes = causes
        self._store = store
        self._clock = clock
        self._known: dict[str, Known] = {}

    async def all(self) -> list[Alarm]:
        return (await self.found(look=True)).alarms

    async def found(self, *, look: bool, within_s: float | None = None) -> Found:
        """What somebody said of an alarm is forgotten when it is gone, and not while nobody can say whether
        it is."""
        found = await self._causes.all(look=look, within_s=within_s)
        words = {alarm.id: alarm.description for alarm in found.alarms}
        now = self._clock()
        self._known = {
            id: known
            for id, known in self._known.items()
            if now < known.until
            and (words[id] == known.description if id in words else _is_unsure(id, found.unsure))
        }
        alarms = [replace(alarm, known=self._known.get(alarm.id)) for alarm in found.alarms]
        return replace(found, alarms=alarms)

    async def find(self, id: str) -> Alarm | None:
        return next((alarm for alarm in await self.all() if alarm.id == id), None)

    def say(self, alarm: Alarm, status: str, hours: int | None) -> None:
        """Raises Refused."""
        id, now = alarm.id, self._clock()
        known = dict(self._known)
        if status == "RESOLVED":
            raise Refused("new_status", f"{id} is resolved when its cause is gone, not before")
        if status == "SUPPRESSED" and hours is None:
            raise Refused("suppress_duration", "missing: for how many hours")
        known.pop(id, None)
        if status in ("ACKNOWLEDGED", "SUPPRESSED"):
            until = now + hours * HOUR_S if status == "SUPPRESSED" and hours else inf
            known[id] = Known(status, alarm.description, audit.actor.get(), now, until)
        before, after = {"status": alarm.status}, {"status": status, "suppress_duration": hours}
        with self._store.begin() as transaction:
            transaction.add_changes([audit.change(f"/alarms/{id}", before, after, int(now * 1000))])
        self._known = known


def _is_unsure(id: str, unsure: Set[str]) -> bool:
    event, _, _ = id.partition(".")
    return id in unsure or event in unsure
