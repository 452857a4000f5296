"""/api/v1/node and its neighbours: what NSX's clients ask before they begin."""

from importlib.metadata import version
from typing import Final, Literal
from uuid import NAMESPACE_OID, uuid5

from fastapi import APIRouter
from pydantic import BaseModel

from manager_stub.api.objects import Json, Page, listed
from manager_stub.model import Entity, Tag
from vsfwd.amqp import Link

NSX_API: Final = "4.1.0.0.0.1"
"""The release whose Policy API this manager speaks: clients choose by it what they send."""

_HOSTNAME: Final = "vsfw-manager"
_TYPES: Final[dict[str, type[BaseModel]]] = {"Tag": Tag, "ManagedResource": Entity}


def installation_id(signing_public: str) -> str:
    """The same for as long as the installation has its key."""
    return str(uuid5(NAMESPACE_OID, signing_public))


def router(id: str, link: Link) -> APIRouter:
    """`id`: of the installation, which is a cluster of one node."""
    routes = APIRouter(prefix="/api/v1", tags=["Node"])

    @routes.get("/node")
    async def node() -> Json:
        return {**_versions(), "node_uuid": id, "hostname": _HOSTNAME, "export_type": "UNRESTRICTED"}

    @routes.get("/node/version")
    async def node_version() -> Json:
        return _versions()

    @routes.get("/reverse-proxy/node/health")
    async def health() -> Json:
        """Healthy is who answers: the manager is one process, and takes policy without a broker too."""
        broker = "DOWN" if link.absence else "UP"
        return {"healthy": True, "components_health": f"MANAGER:UP, POLICY:UP, BROKER:{broker}"}

    @routes.get("/cluster/status")
    async def cluster_status() -> Json:
        return {
            "cluster_id": id,
            "mgmt_cluster_status": {"status": "STABLE", "online_nodes": [{"uuid": id}], "offline_nodes": []},
            "control_cluster_status": {"status": "STABLE"},
            "overall_status": "STABLE",
        }

    @routes.get("/cluster")
    async def cluster() -> Json:
        return {"cluster_id": id, "nodes": [{"node_uuid": id, "fqdn": _HOSTNAME, "status": "JOINED"}]}

    @routes.get("/cluster/nodes")
    async def cluster_nodes(page: Page) -> Json:
        node = {
            "id": id,
            "external_id": id,
            "display_name": _HOSTNAME,
            "manager_role": {"type": "ManagementClusterRoleConfig"},
        }
        return listed([node], page, lambda each: each)

    @routes.get("/spec/vmware/types/{name}")
    async def type_spec(name: Literal["Tag", "ManagedResource"]) -> Json:
        """The limits of tags, which clients keep to."""
        return _TYPES[name].model_json_schema()

    return routes


def _versions() -> Json:
    return {"node_version": NSX_API, "product_version": f"vsfwd {version('vsfwd')}"}
