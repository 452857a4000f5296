"""Traceflows, in the shape of the NSX Policy API (/infra/traceflows) and of its manager API
(/api/v1/traceflows): which rules decide about a packet on its way, and why.

What NSX's transport nodes observe of an injected packet is here computed from the published policy, at
once: a traceflow is finished when it is there. They are kept in memory, and are no part of the policy:
nothing of them is audited, saved or rolled back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Response

from manager_stub import audit
from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX, Patch
from manager_stub.api.objects import Json, Page, listed
from manager_stub.api.observations import analysis, counters, observations
from manager_stub.clock import now_ms
from manager_stub.model import Id, TraceflowConfig, TraceflowRequest
from manager_stub.register import Register
from manager_stub.traceflow import trace
from vsfwd.policy.schedule import Now

_HOME: Final = f"{PREFIX}/infra/traceflows"
_OLD_HOME: Final = "/api/v1/traceflows"
MAX_OF_USER: Final = 100
"""Of each user: nobody's room is another's."""
IDLE_S: Final = 2 * 3600.0
"""A transient one that nobody asks for goes after two hours, as in NSX."""


@dataclass
class Traceflow:
    user: str
    config: TraceflowConfig
    result: Json
    observations: list[Json]
    revision: int
    created_ms: int
    asked: float


class Traceflows:
    """Those there are, by id. `clock` in seconds, from anywhere."""

    def __init__(self, register: Register, clock: Callable[[], float] = time.monotonic) -> None:
        self._register = register
        self._clock = clock
        self._all: dict[str, Traceflow] = {}

    def all(self) -> dict[str, Traceflow]:
        last = self._clock() - IDLE_S
        gone = [id for id, each in self._all.items() if each.config.is_transient and each.asked < last]
        for id in gone:
            del self._all[id]
        return self._all

    def get(self, id: str) -> Traceflow:
        found = self.all().get(id)
        if found is None:
            raise Problem(404, f"the path=[/infra/traceflows/{id}] is invalid: there is no such object")
        found.asked = self._clock()
        return found

    def run(self, id: str, config: TraceflowConfig, revision: int = 0) -> Traceflow:
        """What there was under this id is replaced, and stays whose it is; of a packet that cannot be,
        nothing is kept."""
        before = self.all().get(id)
        vnic, field = config.source
        card = self._register.realised.cards.get(vnic)
        if card is None:
            raise Problem(400, f"there is no vNIC {vnic}", field)
        now = Now(datetime.now(UTC).replace(tzinfo=None), datetime.now())
        try:
            found = trace(self._register.realised, card, config.packet, now)
        except ValueError as error:
            raise Problem(400, str(error)) from None
        seen = observations(self._register, found)
        if before is None:
            self._make_room(audit.actor.get())
        self._all[id] = Traceflow(
            before.user if before else audit.actor.get(),
            config,
            {"analysis": analysis(self._register, found), **counters(seen)}
            | {"operation_state": "FAILED" if found.unclear and found.leaving.passes else "FINISHED"},
            seen,
            revision,
            now_ms(),
            self._clock(),
        )
        return self._all[id]

    def _make_room(self, user: str) -> None:
        """A transient one of the user goes, the one that nobody has asked for longest."""
        own = {id: each for id, each in self._all.items() if each.user == user}
        if len(own) < MAX_OF_USER:
            return
        transient = {id: each.asked for id, each in own.items() if each.config.is_transient}
        if not transient:
            raise Problem(400, f"{user} has {MAX_OF_USER} traceflows, which is the limit: delete some")
        del self._all[min(transient, key=transient.__getitem__)]

    def delete(self, id: str) -> None:
        self.get(id)
        del self._all[id]


def router(register: Register) -> APIRouter:
    routes, traceflows = APIRouter(tags=["Traceflow"]), Traceflows(register)
    _add_policy_form(routes, traceflows)
    _add_manager_form(routes, traceflows)
    return routes


def _add_policy_form(routes: APIRouter, traceflows: Traceflows) -> None:
    @routes.get(_HOME)
    async def list_configs(page: Page) -> Json:
        return listed(traceflows.all().items(), page, lambda item: _config(*item))

    @routes.get(f"{_HOME}/{{id}}")
    async def read(id: Id) -> Json:
        return _config(id, traceflows.get(id))

    @routes.put(f"{_HOME}/{{id}}")
    async def put(id: Id, body: TraceflowConfig) -> Json:
        """Run it; to run the one that is there otherwise needs its `_revision`."""
        if body.id not in (None, id):
            raise Problem(400, f"{body.id!r} is not the id in the URL", "id")
        before = traceflows.all().get(id)
        current = before.revision if before else 0
        if body.revision != current and (before or body.revision is not None):
            raise Problem(412, f"the object is at revision {current}, not {body.revision}", "_revision")
        return _config(id, traceflows.run(id, body, current + bool(before)))

    @routes.patch(f"{_HOME}/{{id}}")
    async def patch(id: Id, body: Patch) -> Response:
        """Run it with these fields in place of what it had, or a new one."""
        before = traceflows.all().get(id)
        fields = before.config.model_dump(by_alias=True, exclude_unset=True) if before else {}
        config = TraceflowConfig.model_validate(fields | body)
        if config.id not in (None, id):
            raise Problem(400, f"{config.id!r} is not the id in the URL", "id")
        traceflows.run(id, config, before.revision + 1 if before else 0)
        return Response()

    @routes.post(f"{_HOME}/{{id}}", status_code=201)
    async def restart(id: Id, action: Annotated[Literal["restart"], Query()]) -> Json:
        """Ask the policy as it now is."""
        before = traceflows.get(id)
        return _config(id, traceflows.run(id, before.config, before.revision))

    @routes.delete(f"{_HOME}/{{id}}")
    async def delete(id: Id) -> Response:
        traceflows.delete(id)
        return Response()

    @routes.get(f"{_HOME}/{{id}}/status")
    async def status(id: Id) -> Json:
        return _result(id, traceflows.get(id))

    @routes.get(f"{_HOME}/{{id}}/observations")
    async def observed(id: Id, page: Page) -> Json:
        return listed(traceflows.get(id).observations, page, lambda each: each)


def _add_manager_form(routes: APIRouter, traceflows: Traceflows) -> None:
    @routes.get(_OLD_HOME)
    async def list_results(page: Page) -> Json:
        return listed(traceflows.all().items(), page, lambda item: _result(*item))

    @routes.post(_OLD_HOME, status_code=201)
    async def create(body: TraceflowRequest) -> Json:
        config = TraceflowConfig(
            source_id=body.lport_id,
            packet=body.packet,
            timeout=body.timeout // 1000,
            display_name=body.display_name,
        )
        id = str(uuid4())
        return _result(id, traceflows.run(id, config))

    @routes.get(f"{_OLD_HOME}/{{id}}")
    async def read(id: Id) -> Json:
        return _result(id, traceflows.get(id))

    @routes.delete(f"{_OLD_HOME}/{{id}}")
    async def delete(id: Id) -> Response:
        traceflows.delete(id)
        return Response()

    @routes.get(f"{_OLD_HOME}/{{id}}/observations")
    async def observed(
        id: Id,
        page: Page,
        component_name: str | None = None,
        component_type: str | None = None,
        resource_type: str | None = None,
        transport_node_name: str | None = None,
    ) -> Json:
        asked = {
            "component_name": component_name,
            "component_type": component_type,
            "resource_type": resource_type,
            "transport_node_name": transport_node_name,
        }
        wanted = {field: text for field, text in asked.items() if text is not None}
        found = [
            each
            for each in traceflows.get(id).observations
            if all(each.get(field) == text for field, text in wanted.items())
        ]
        return listed(found, page, lambda each: each)


def _config(id: str, traceflow: Traceflow) -> Json:
    return {
        **traceflow.config.model_dump(mode="json", by_alias=True, exclude_none=True),
        "id": id,
        "display_name": traceflow.config.display_name or id,
        "path": f"/infra/traceflows/{id}",
        "relative_path": id,
        "parent_path": "/infra",
        "marked_for_delete": False,
        "_system_owned": False,
        "_create_time": traceflow.created_ms,
        "_revision": traceflow.revision,
    }


def _result(id: str, traceflow: Traceflow) -> Json:
    """NSX's Traceflow."""
    vnic, _ = traceflow.config.source
    return {
        "resource_type": "Traceflow",
        "id": id,
        "display_name": traceflow.config.display_name or id,
        "lport_id": vnic,
        "timeout": traceflow.config.timeout * 1000,
        "request_status": "SUCCESS",
        "result_overflowed": False,
        **traceflow.result,
    }
