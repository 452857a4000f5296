"""/api/v1/node and its neighbours: what NSX's clients ask before they begin."""

from importlib.metadata import version
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from manager_stub.api.objects import Json
from manager_stub.model import Entity, Tag

NSX_API: Final = "4.1.0.0.0.1"
"""The release whose Policy API this manager speaks: clients choose by it what they send."""

_TYPES: Final[dict[str, type[BaseModel]]] = {"Tag": Tag, "ManagedResource": Entity}


def router() -> APIRouter:
    routes = APIRouter(prefix="/api/v1", tags=["Node"])

    @routes.get("/node")
    async def node() -> Json:
        return {**_versions(), "hostname": "vsfw-manager", "export_type": "UNRESTRICTED"}

    @routes.get("/node/version")
    async def node_version() -> Json:
        return _versions()

    @routes.get("/reverse-proxy/node/health")
    async def health() -> Json:
        """Whoever reads this has an answer: the manager is one process."""
        return {"healthy": True, "components_health": "MANAGER:UP, POLICY:UP"}

    @routes.get("/cluster/status")
    async def cluster_status() -> Json:
        return {"mgmt_cluster_status": {"status": "STABLE"}, "control_cluster_status": {"status": "STABLE"}}

    @routes.get("/spec/vmware/types/{name}")
    async def type_spec(name: Literal["Tag", "ManagedResource"]) -> Json:
        """The limits of tags, which clients keep to."""
        return _TYPES[name].model_json_schema()

    return routes


def _versions() -> Json:
    return {"node_version": NSX_API, "product_version": f"vsfwd {version('vsfwd')}"}
