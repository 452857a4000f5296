"""/api/v1/vsfw/components: components that run on hosts beside vsfwd. What they say, and what they are sent
and asked."""

import json
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import MAX_PAGE, Json, Page, listed
from manager_stub.components.switchboard import Busy, Switchboard
from manager_stub.model import HostId, Id, Strict, patterns
from manager_stub.presence import Presence
from manager_stub.register import Register
from manager_stub.store import Store
from manager_stub.transaction import Row
from vsfwd.amqp import Link
from vsfwd.protocol.components import (
    MAX_PATIENCE_S,
    ComponentAnswer,
    check_body,
    check_component,
    check_topic,
)

_END: Final = 2**53


def _component(name: str) -> str:
    check_component(name)
    return name


def _topic(topic: str) -> str:
    check_topic(topic)
    return topic


def _body(body: dict[str, Any]) -> dict[str, Any]:
    check_body(body)
    return body


Component = Annotated[str, Field(pattern=patterns.COMPONENT), AfterValidator(_component)]
Topic = Annotated[str, Field(max_length=64, pattern=patterns.TOPIC), AfterValidator(_topic)]


class Sending(Strict):
    """To the hosts named, those of the clusters and datacenters named, or all there are."""

    topic: Topic
    body: Annotated[dict[str, Any], AfterValidator(_body)] = Field(default_factory=dict)
    hosts: list[HostId] = Field(default_factory=list)
    clusters: list[Id] = Field(default_factory=list)
    datacenters: list[Id] = Field(default_factory=list)
    all_hosts: bool = False
    timeout_s: Annotated[int, Field(ge=1, le=MAX_PATIENCE_S)] = 10


def router(
    register: Register, switchboard: Switchboard, store: Store, presence: Presence, link: Link
) -> APIRouter:
    routes = APIRouter(prefix=f"{PREFIX}/components", tags=["Component"])

    @routes.get("")
    async def list_components(page: Page) -> Json:
        """Which of which host has said something: how much of it is kept, and when it said something last."""
        return listed(store.speakers(), page, lambda row: _speaker(register, row))

    @routes.get("/{component}/messages")
    async def said(
        component: Component,
        host: Annotated[HostId | None, Query()] = None,
        topic: Annotated[Topic | None, Query()] = None,
        cursor: Annotated[int, Query(ge=1, le=_END)] = _END,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    ) -> Json:
        """What it said, on all hosts or on one, the newest first. `cursor`: older than that one."""
        rows = store.said(component, before=cursor, limit=page_size + 1, host=host, topic=topic)
        found: Json = {"results": [_said(register, row) for row in rows[:page_size]]}
        return found | {"cursor": str(rows[page_size - 1]["id"])} if len(rows) > page_size else found

    @routes.post("/{component}/messages")
    async def send(component: Component, body: Sending) -> Json:
        """`done`: vsfwd has given it to the component. One that is not there gets it neither now nor
        later."""
        return await deliver(component, body, call=False)

    @routes.post("/{component}/calls")
    async def call(component: Component, body: Sending) -> Json:
        """`done`: the component has answered, and `body` is its answer."""
        return await deliver(component, body, call=True)

    async def deliver(component: str, body: Sending, *, call: bool) -> Json:
        hosts = _hosts(register, body)
        to = body.model_dump(mode="json", include={"hosts", "clusters", "datacenters", "all_hosts"})
        switchboard.sent_by_hand(component, body.topic, to, call)
        away = {host: reason for host in hosts if (reason := unreachable(host))}
        asked = [host for host in hosts if host not in away]
        try:
            heard = await switchboard.send(
                asked, component, body.topic, body.body, call=call, patience_s=body.timeout_s
            )
        except Busy as busy:
            raise Problem(503, str(busy)) from None
        answers = {
            **heard,
            **{host: ComponentAnswer(str(uuid4()), error=reason) for host, reason in away.items()},
        }
        return {"results": [_answer(register, host, answers[host]) for host in hosts]}

    def unreachable(host: str) -> str:
        """Why nothing is sent to it; empty where it may answer."""
        return link.absence or ("host is down" if presence.is_up(host) is False else "")

    return routes


def _hosts(register: Register, to: Sending) -> list[str]:
    """In the order of their enrolment. Nobody is not everybody: who names none, means none by mistake."""
    if not (to.hosts or to.clusters or to.datacenters or to.all_hosts):
        raise Problem(400, "say hosts, clusters, datacenters or all_hosts")
    kinds = register.world.kinds
    named = set(to.hosts)
    for index, host in enumerate(to.hosts):
        if host not in register.hosts:
            raise Problem(400, f"there is no host {host}", f"hosts.{index}")
    clusters = dict.fromkeys(to.clusters, "clusters")
    for datacenter in to.datacenters:
        clusters |= dict.fromkeys(_member(kinds["datacenters"], "datacenters", datacenter).clusters, "")
    for cluster in clusters:
        named |= set(_member(kinds["clusters"], "clusters", cluster).hosts)
    return [host for host in register.hosts if to.all_hosts or host in named]


def _member(objects: Any, kind: str, id: str) -> Any:
    stored = objects.get(f"/vsfw/{kind}/{id}")
    if stored is None:
        raise Problem(400, f"there is no {id!r}", kind)
    return stored.body


def _named(register: Register, host: str) -> Json:
    known = register.hosts.get(host)
    return {"id": host, "display_name": known.display_name if known else ""}


def _speaker(register: Register, row: Row) -> Json:
    return {
        "component": row["component"],
        "host": _named(register, row["host"]),
        "messages": row["messages"],
        "last_time": row["time_ms"],
    }


def _said(register: Register, row: Row) -> Json:
    return {
        "id": row["id"],
        "time": row["time_ms"],
        "host": _named(register, row["host"]),
        "component": row["component"],
        "topic": row["topic"],
        "body": json.loads(row["body"]),
    }


def _answer(register: Register, host: str, answer: ComponentAnswer) -> Json:
    return {
        "host": _named(register, host),
        "done": not answer.error,
        "reason": answer.error,
        "body": answer.body,
    }
