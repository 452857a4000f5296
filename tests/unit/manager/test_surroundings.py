"""What NSX's clients ask for around the policy: nodes and their status, alarms, capacity, certificates,
realized state."""

from typing import Any

import pytest
from cryptography import x509

from tests.unit.manager.rest import DOMAIN, INFRA, Manager
from vsfwd.protocol.messages import Applied, Binding, Bindings, Hello, Refusal, digest_text

HOST = "33333333-0000-4000-8000-000000000001"
VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
NODE = f"/api/v1/transport-nodes/{HOST}"


@pytest.fixture
async def hosted(manager: Manager) -> Manager:
    """One host, connected, with one VM; it has not yet said that it applied anything."""
    manager.parts.presence.begin([HOST])
    vnic = {"id": VNIC, "mac": "02:00:00:00:00:01"}
    await manager.call("PUT", f"/api/v1/vsfw/vms/{VM}", {"display_name": "web", "vnics": [vnic]})
    manager.register.add_host(HOST, "host1")
    manager.register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    manager.vnics.bound(HOST, Bindings((Binding(VNIC, VM, "02:00:00:00:00:01", "veth0"),)))
    return manager


def says(manager: Manager, *refusals: Refusal) -> None:
    """The host has applied what it was sent, message by message, until it has all."""
    level = manager.register.hosts[HOST].level
    at = level.outgoing.position if level.outgoing else level.wanted_position
    manager.register.reported({HOST: Applied(at.epoch, at.generation, at.digest, refusals=refusals)})
    if manager.register.hosts[HOST].level.outgoing is not None:
        says(manager, *refusals)


async def test_a_host_is_a_transport_node_with_a_status(hosted: Manager) -> None:
    """Up while it is connected; its state is a success once it has what it is to have."""
    (node,) = (await hosted.call("GET", "/api/v1/transport-nodes"))["results"]
    assert (node["id"], node["display_name"]) == (HOST, "host1")
    status = await hosted.call("GET", f"{NODE}/status")
    assert (status["status"], status["control_connection_status"]) == ("UP", {"status": "UP"})
    assert (await hosted.call("GET", f"{NODE}/state"))["state"] == "in_progress"
    says(hosted)
    assert (await hosted.call("GET", f"{NODE}/state"))["state"] == "success"
    assert (await hosted.call("GET", "/api/v1/transport-nodes/status"))["up_count"] == 1
    missing = NODE.replace("0001", "0002")
    assert (await hosted.answer("GET", f"{missing}/status")).status_code == 404


async def test_what_is_wrong_with_a_host_is_an_alarm_until_it_is_right(hosted: Manager) -> None:
    """What it refused, then that it is away; without a cause there is no alarm."""
    assert (await hosted.call("GET", "/api/v1/alarms"))["results"] == []
    says(hosted, Refusal("rule", "1005", "too much"))
    (alarm,) = (await hosted.call("GET", "/api/v1/alarms"))["results"]
    assert (alarm["event_type"], alarm["description"]) == ("realization_failed", "rule 1005: too much")
    assert (await hosted.call("GET", f"{NODE}/status"))["status"] == "DEGRADED"
    says(hosted)
    hosted.parts.presence.went(HOST, "tag")
    (alarm,) = (await hosted.call("GET", "/api/v1/alarms"))["results"]
    assert (alarm["event_type"], alarm["node_id"]) == ("management_channel_to_transport_node_down", HOST)
    assert (await hosted.call("GET", f"{NODE}/status"))["status"] == "DOWN"


async def test_a_host_that_was_never_there_has_to_be_started(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was enrolled, and that is all."""
    manager.register.add_host(HOST, "host1")
    monkeypatch.setattr(manager.parts.presence, "is_up", lambda host: False)
    (alarm,) = (await manager.call("GET", "/api/v1/alarms"))["results"]
    assert alarm["description"] == "The host has not been seen yet: start vsfwd there."


async def test_a_minute_without_a_broker_is_an_alarm(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is one again."""
    for away_s, expected in ((59.0, []), (60.0, ["broker_down"]), (0.0, [])):
        monkeypatch.setattr(manager.parts.publisher, "away_for_s", lambda away_s=away_s: away_s)
        found = (await manager.call("GET", "/api/v1/alarms"))["results"]
        assert [each["event_type"] for each in found] == expected


async def test_health_names_a_broker_that_is_away_at_once(manager: Manager) -> None:
    """And the manager goes on taking policy."""
    for session, state in (("amqps://broker", "UP"), (None, "DOWN")):
        manager.parts.publisher.connected_to = session
        health = await manager.call("GET", "/api/v1/reverse-proxy/node/health")
        assert (health["healthy"], health["components_health"][-len(state) :]) == (True, state)


async def test_a_host_of_which_nothing_is_known_says_that_there_is_no_broker(manager: Manager) -> None:
    """With the broker, and what it answered."""
    manager.register.add_host(HOST, "host1")
    link = manager.parts.publisher
    link.connected_to, link.last_error = None, "amqps://10.0.0.1:5671: refused"
    shown = await manager.call("GET", f"/api/v1/vsfw/hosts/{HOST}")
    assert (shown["connected"], shown["no_broker"]) == (None, "no broker (amqps://10.0.0.1:5671: refused)")
    link.connected_to = "amqps://10.0.0.1:5671"
    assert (await manager.call("GET", f"/api/v1/vsfw/hosts/{HOST}"))["no_broker"] == ""


async def test_a_broker_that_cannot_be_asked_leaves_the_status_unknown(manager: Manager) -> None:
    """Neither up nor down, and no alarm about what is not known."""
    manager.register.add_host(HOST, "host1")
    assert (await manager.call("GET", f"{NODE}/status"))["status"] == "UNKNOWN"
    assert (await manager.call("GET", "/api/v1/alarms"))["result_count"] == 0


async def test_an_object_is_realized_when_the_hosts_have_it(hosted: Manager) -> None:
    """Not before they say so, and not any more after the next change."""
    await hosted.call("PUT", f"{DOMAIN}/groups/g", {})
    query = "intent_path=/infra/domains/default/groups/g"

    async def state() -> tuple[Any, Any]:
        entities = await hosted.call("GET", f"{INFRA}/realized-state/realized-entities?{query}")
        status = await hosted.call("GET", f"{INFRA}/realized-state/status?{query}")
        return entities["results"][0]["state"], status["consolidated_status"]["consolidated_status"]

    assert await state() == ("UNREALIZED", "IN_PROGRESS")
    says(hosted)
    assert await state() == ("REALIZED", "SUCCESS")
    await hosted.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [{"id": "r", "action": "DROP"}]})
    assert await state() == ("UNREALIZED", "IN_PROGRESS")


async def test_certificates_are_shown_and_no_keys(manager: Manager) -> None:
    """As they are in the state directory."""
    shown = (await manager.call("GET", "/api/v1/trust-management/certificates"))["results"]
    assert [each["id"] for each in shown] == ["ca", "server", "broker", "amqp"]
    for each in shown:
        x509.load_pem_x509_certificate(each["pem_encoded"].encode())
    assert "PRIVATE" not in str(shown)
    assert (await manager.answer("GET", f"{INFRA}/certificates/signing")).status_code == 404


async def test_capacity_counts_what_has_a_limit(hosted: Manager) -> None:
    """A rule more is one more on the host that has it."""

    async def rules() -> Any:
        usage = await hosted.call("GET", "/api/v1/capacity/dashboard/usage")
        return usage["capacity_usage"][0]["current_usage_count"]

    before = await rules()
    await hosted.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [{"id": "r", "action": "DROP"}]})
    assert await rules() == before + 1


@pytest.mark.parametrize("url", ["domains", "sites", "sites/default/enforcement-points"])
async def test_there_is_one_of_each_place(manager: Manager, url: str) -> None:
    """Which is called default."""
    (place,) = (await manager.call("GET", f"{INFRA}/{url}"))["results"]
    assert place["path"] == f"/infra/{url}/default"
    assert await manager.call("GET", f"{INFRA}/{url}/default") == place
    assert (await manager.answer("GET", f"{INFRA}/{url}/other")).status_code == 404
