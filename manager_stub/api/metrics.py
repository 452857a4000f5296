"""/api/v1/vsfw/metrics: the installation for Prometheus, in its text format."""

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from manager_stub.alarms.alarms import Alarms
from manager_stub.api.inventory import PREFIX
from manager_stub.components.switchboard import Switchboard
from manager_stub.metrics import METRICS, of_alarms, of_components, of_hosts
from manager_stub.presence import Presence
from manager_stub.register import Register
from vsfwd.amqp import Link
from vsfwd.metrics import CONTENT_TYPE, Sample, exposition

BROKER_S: Final = 3.0
"""What the broker may take to answer: Prometheus waits ten seconds, and for the rest of it in vain."""


def router(
    register: Register,
    presence: Presence,
    link: Link,
    switchboard: Switchboard,
    alarms: Alarms,
) -> APIRouter:
    routes = APIRouter(tags=["Metrics"])

    @routes.get(f"{PREFIX}/metrics", response_class=PlainTextResponse)
    async def read() -> PlainTextResponse:
        """What Prometheus may know, in its text format."""
        found = await alarms.found(look=False, within_s=BROKER_S)
        samples = [*known(), *of_alarms(found.alarms)]
        if found.dead_letters is not None:
            samples.append(Sample("vsfw_manager_dead_letters", found.dead_letters))
        # Thousands of lines: beside the thread that changes and publishes.
        text = await asyncio.to_thread(exposition, METRICS, samples)
        return PlainTextResponse(text, headers={"Content-Type": CONTENT_TYPE})

    def known() -> Iterator[Sample]:
        yield Sample("vsfw_manager_info", 1, (version("vsfwd"),))
        yield Sample("vsfw_manager_broker_connected", not link.absence)
        yield from of_hosts(register.hosts.values(), presence)
        yield from of_components(switchboard.hosts_by_component(), len(switchboard.outgoing))

    return routes
