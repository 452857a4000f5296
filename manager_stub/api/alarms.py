"""Alarms, in NSX's shape: /api/v1/alarms, and the same in the Policy API."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from manager_stub.alarms.alarm import Alarm, Known
from manager_stub.alarms.alarms import HOUR_S, Alarms
from manager_stub.api.errors import Problem
from manager_stub.api.objects import Json, Page, listed

Word = Annotated[str | None, Query(max_length=255)]


def router(alarms: Alarms) -> APIRouter:
    routes = APIRouter(tags=["Alarm"])
    for home in ("/api/v1/alarms", "/policy/api/v1/alarms"):
        _add(routes, alarms, home)
    return routes


def _add(routes: APIRouter, alarms: Alarms, home: str) -> None:
    @routes.get(home)
    async def list_alarms(
        page: Page,
        id: Word = None,
        feature_name: Word = None,
        event_type: Word = None,
        severity: Word = None,
        status: Word = None,
        node_id: Word = None,
        node_resource_type: Word = None,
    ) -> Json:
        """What is wrong now. Each filter takes several values, with commas."""
        wanted = {
            "id": id,
            "feature_name": feature_name,
            "event_type": event_type,
            "severity": severity,
            "status": status,
            "node_id": node_id,
            "node_resource_type": node_resource_type,
        }
        asked = {field: text.split(",") for field, text in wanted.items() if text is not None}
        every = [_shown(alarm) for alarm in await alarms.all()]
        found = [each for each in every if all(each[field] in values for field, values in asked.items())]
        return listed(found, page, lambda alarm: alarm)

    @routes.get(f"{home}/{{id}}")
    async def read(id: str) -> Json:
        return _shown(await _existing(alarms, id))

    @routes.post(f"{home}/{{id}}")
    async def set_status(
        id: str,
        action: Annotated[Literal["set_status"], Query()],
        new_status: Annotated[Literal["OPEN", "ACKNOWLEDGED", "SUPPRESSED", "RESOLVED"], Query()],
        suppress_duration: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    ) -> Json:
        """That somebody knows, does not want to see it for some hours, or neither any more."""
        alarms.say(await _existing(alarms, id), new_status, suppress_duration)
        return _shown(await _existing(alarms, id))


async def _existing(alarms: Alarms, id: str) -> Alarm:
    alarm = await alarms.find(id)
    if alarm is None:
        raise Problem(404, f"there is no alarm {id}")
    return alarm


def _shown(alarm: Alarm) -> Json:
    event, node = _words(alarm.event), alarm.node
    return {
        "id": alarm.id,
        "feature_name": alarm.feature,
        "feature_display_name": _words(alarm.feature),
        "event_type": alarm.event,
        "event_type_display_name": event,
        "summary": f"{event}: {'host ' if node.id else ''}{node.name}",
        "severity": alarm.severity,
        "node_id": node.id,
        "node_display_name": node.name,
        "node_resource_type": node.type,
        "entity_id": alarm.entity.id,
        "entity_resource_type": alarm.entity.type,
        "description": alarm.description + alarm.more,
        "last_reported_time": alarm.seen_ms,
        **({"event_code": alarm.event_code} if alarm.event_code else {}),
        "status": alarm.status,
        **(_suppressed(alarm.known) if alarm.known and alarm.status == "SUPPRESSED" else {}),
    }


def _suppressed(known: Known) -> Json:
    return {
        "suppressed_by": known.user,
        "suppress_start_time": int(known.since * 1000),
        "suppress_duration": int((known.until - known.since) / HOUR_S),
    }


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
