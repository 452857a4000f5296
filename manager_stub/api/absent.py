"""What NSX has and this manager has not: lists of it are empty, as they would be where nobody uses it; who
wants to make some of it is told why not; nothing is taken and forgotten."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from manager_stub.api.errors import Problem
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, Page, listed

_DOMAIN: Final = "/infra/domains/default"
_ROUTERS: Final = "no router is here: segments and vNICs have a firewall, gateways do not exist"
_LAYER_7: Final = "rules are about layers 2 to 4: applications and names of hosts are not looked into"
_INTRUSION: Final = "there is no intrusion detection"
_TENANTS: Final = "there are no projects: everything is in /infra"
ABSENT: Final = {
    "/infra/context-profiles": _LAYER_7,
    "/infra/l7-access-profiles": _LAYER_7,
    "/infra/tier-0s": _ROUTERS,
    "/infra/tier-1s": _ROUTERS,
    f"{_DOMAIN}/gateway-policies": _ROUTERS,
    f"{_DOMAIN}/redirection-policies": "there is no service insertion",
    f"{_DOMAIN}/endpoint-policies": "there is no service insertion",
    f"{_DOMAIN}/intrusion-service-policies": _INTRUSION,
    "/infra/settings/firewall/security/intrusion-services/profiles": _INTRUSION,
    "/orgs": _TENANTS,
    "/orgs/default/projects": _TENANTS,
}
"""Paths of lists, and why there is nothing in them."""


def router() -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["Absent"])
    for url in sorted(ABSENT, key=len, reverse=True):
        _add(routes, url, ABSENT[url])
    return routes


def _add(routes: APIRouter, url: str, why: str) -> None:
    @routes.get(url)
    async def list_nothing(page: Page) -> Json:
        """There are none."""
        return listed((), page, lambda each: each)

    @routes.get(f"{url}/{{below:path}}")
    async def read(below: str) -> Response:
        raise Problem(404, f"the path=[{url}/{below}] is invalid: {why}")

    @routes.put(f"{url}/{{below:path}}")
    @routes.patch(f"{url}/{{below:path}}")
    @routes.post(f"{url}/{{below:path}}")
    async def refuse(request: Request, below: str) -> Response:
        """Refused, with the reason."""
        raise Problem(400, f"{request.method} {url}/{below}: {why}")
