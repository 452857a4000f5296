"""vNICs as the ports of their segment: named and tagged, nothing else."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
OTHER = "22222222-0000-4000-8000-000000000002"
PORTS = f"{INFRA}/segments/blue/ports"
PORT = f"{PORTS}/{VNIC}"


@pytest.fixture
async def blue(manager: Manager) -> Manager:
    """A VM with a vNIC on the segment blue and one on no segment; a group of ports with a tag."""
    await manager.call("PUT", f"{INFRA}/segments/blue", {})
    on_blue = {"id": VNIC, "mac": "02:00:00:00:00:01", "segment_path": "/infra/segments/blue"}
    vnics = [on_blue, {"id": OTHER, "mac": "02:00:00:00:00:02"}]
    await manager.call("PUT", f"/api/v1/vsfw/vms/{VM}", {"display_name": "web", "vnics": vnics})
    tag = {"resource_type": "Condition", "member_type": "SegmentPort", "key": "Tag", "operator": "EQUALS"}
    await manager.call("PUT", f"{DOMAIN}/groups/dmz", {"expression": [tag | {"value": "zone|dmz"}]})
    return manager


async def members(manager: Manager) -> list[Any]:
    results = (await manager.call("GET", f"{DOMAIN}/groups/dmz/members/vifs"))["results"]
    return [each["external_id"] for each in results]


async def test_a_segment_has_the_vnics_that_are_on_it(blue: Manager) -> None:
    """And no others; another segment has none, and what is no segment is not there."""
    assert [each["id"] for each in (await blue.call("GET", PORTS))["results"]] == [VNIC]
    await blue.call("PUT", f"{INFRA}/segments/red", {})
    assert (await blue.call("GET", f"{INFRA}/segments/red/ports"))["results"] == []
    for missing in (f"{INFRA}/segments/red/ports/{VNIC}", f"{PORTS}/{OTHER}", f"{INFRA}/segments/no/ports"):
        assert (await blue.answer("GET", missing)).status_code == 404


async def test_a_tag_of_a_port_makes_its_vnic_a_member(blue: Manager) -> None:
    """By PATCH, which leaves the name alone, and no more by a PUT without the tag."""
    await blue.call("PATCH", PORT, {"display_name": "uplink", "tags": [{"scope": "zone", "tag": "dmz"}]})
    assert await members(blue) == [VNIC]
    await blue.call("PATCH", PORT, {"tags": [{"scope": "zone", "tag": "dmz"}, {"tag": "more"}]})
    port = await blue.call("GET", PORT)
    assert (port["display_name"], len(port["tags"])) == ("uplink", 2)
    await blue.call("PUT", PORT, {"_revision": port["_revision"]})
    assert await members(blue) == []


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"attachment": {"id": OTHER}}, 400, "attachment"),
        ({"address_bindings": [{"ip_address": "10.0.0.9"}]}, 400, "address_bindings"),
        ({"admin_state": "DOWN"}, 400, "admin_state"),
        ({"id": OTHER}, 400, "id"),
        ({"init_state": "UNBLOCKED_VLAN"}, 400, "init_state"),
        ({"_revision": 7}, 412, "_revision"),
    ],
)
async def test_what_is_the_vms_matter_is_refused_by_name(
    blue: Manager, change: dict[str, Any], status: int, field: str
) -> None:
    """And changes nothing, not even the tags beside it."""
    for method in ("PUT", "PATCH"):
        port = await blue.call("GET", PORT)
        body = port | {"tags": [{"tag": "new"}]} | change
        answer = await blue.answer(method, PORT, body)
        assert (answer.status_code, answer.json()["error_message"].split(":")[0]) == (status, field)
        assert (await blue.call("GET", PORT)) == port
