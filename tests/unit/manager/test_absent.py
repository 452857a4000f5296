"""What NSX has and this manager has not."""

import pytest

from manager_stub.api.absent import ABSENT
from tests.unit.manager.rest import Manager


@pytest.mark.parametrize("url", ABSENT)
async def test_there_is_nothing_of_it_and_nothing_can_be_made(manager: Manager, url: str) -> None:
    """The list is empty, an object is not there, and who wants to make one hears why not."""
    home = f"/policy/api/v1{url}"
    assert await manager.call("GET", home) == {"results": [], "result_count": 0}
    for path in (f"{home}/x", f"{home}/x/y"):
        missing = await manager.answer("GET", path)
        assert (missing.status_code, missing.json()["error_code"]) == (404, 600)
        for method in ("PUT", "PATCH", "POST"):
            refused = await manager.answer(method, path, {"display_name": "x"})
            assert refused.status_code == 400
            assert refused.json()["error_message"].endswith(ABSENT[url])


async def test_an_installation_is_a_cluster_of_one_node(manager: Manager) -> None:
    """The same id wherever clients look for one, and after a restart."""
    cluster = await manager.call("GET", "/api/v1/cluster")
    status = await manager.call("GET", "/api/v1/cluster/status")
    node = await manager.call("GET", "/api/v1/node")
    (member,) = (await manager.call("GET", "/api/v1/cluster/nodes"))["results"]
    ids = {cluster["cluster_id"], status["cluster_id"], node["node_uuid"], member["id"]}
    again = Manager(manager.directory, manager.admin[1])
    ids.add((await again.call("GET", "/api/v1/cluster"))["cluster_id"])
    await again.close()
    assert len(ids) == 1
