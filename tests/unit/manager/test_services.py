"""Services: from REST to the rules a host is sent; nesting; what is predefined."""

from typing import Any

import pytest

from manager_stub import iana
from tests.unit.manager.rest import DOMAIN, INFRA, Manager
from tests.unit.manager.serving import rules_sent
from vsfwd.policy.model import TCP, UDP, Service

SECTION = f"{DOMAIN}/security-policies/s"
SERVICES = f"{INFRA}/services"


def entry(kind: str, **fields: Any) -> dict[str, Any]:
    return {"resource_type": f"{kind}ServiceEntry", **fields}


def ports(protocol: str, *destination: str, source: tuple[str, ...] = ()) -> dict[str, Any]:
    return entry(
        "L4PortSet",
        l4_protocol=protocol,
        destination_ports=list(destination),
        source_ports=list(source),
    )


def nested(name: str) -> dict[str, Any]:
    return entry("NestedService", nested_service_path=f"/infra/services/{name}")


async def put(manager: Manager, name: str, *entries: dict[str, Any]) -> None:
    await manager.call("PATCH", f"{SERVICES}/{name}", {"service_entries": list(entries)})


async def sent(manager: Manager, **rule: Any) -> tuple[Service, ...] | None:
    """The services of this rule, as the host reads them."""
    await manager.call("PATCH", SECTION, {"rules": [{"id": "r", "action": "ALLOW", **rule}]})
    return now(manager)


def now(manager: Manager) -> tuple[Service, ...] | None:
    return rules_sent(manager)["r"].services


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (ports("TCP", "80", "8000-8080"), Service(TCP, ((80, 80), (8000, 8080)))),
        (ports("UDP", "53", source=("1024-65535",)), Service(UDP, ((53, 53),), ((1024, 65535),))),
        (ports("UDP", source=("53",)), Service(UDP, (), ((53, 53),))),
        (ports("TCP"), Service(TCP)),
        (
            entry("ICMPType", protocol="ICMPv4", icmp_type=3, icmp_code=4),
            Service(1, icmp_type=3, icmp_code=4),
        ),
        (entry("ICMPType", protocol="ICMPv6", icmp_type=128), Service(58, icmp_type=128)),
        (entry("ICMPType", protocol="ICMPv6"), Service(58)),
        (entry("IPProtocol", protocol_number=47), Service(47)),
        (entry("IGMPType"), Service(2)),
    ],
)
async def test_each_kind_of_entry(serving: Manager, said: dict[str, Any], read: Service) -> None:
    """In a service and in a rule of its own, it is the same."""
    assert await sent(serving, service_entries=[said]) == (read,)
    await put(serving, "mine", said)
    assert await sent(serving, service_entries=[], services=["/infra/services/mine"]) == (read,)


async def test_a_nested_service_is_its_entries(serving: Manager) -> None:
    """At any depth, each service once, by a path or in the rule itself; and it changes with what it names."""
    await put(serving, "web", ports("TCP", "80"))
    await put(serving, "more", nested("web"), ports("UDP", "443"))
    await put(serving, "all", nested("more"), nested("web"), ports("TCP", "22"))
    web, quic, ssh = (Service(TCP, ((80, 80),)), Service(UDP, ((443, 443),)), Service(TCP, ((22, 22),)))
    assert set(await sent(serving, services=["/infra/services/all"]) or ()) == {web, quic, ssh}
    assert set(await sent(serving, services=[], service_entries=[nested("more")]) or ()) == {web, quic}
    await put(serving, "web", ports("TCP", "8080"))
    assert set(now(serving) or ()) == {Service(TCP, ((8080, 8080),)), quic}


async def test_a_cycle_of_services_is_refused(serving: Manager) -> None:
    """However long, with the entry that closes it named; and nothing changes."""
    await put(serving, "a", ports("TCP", "1"))
    await put(serving, "b", nested("a"))
    await put(serving, "c", nested("b"))
    before = serving.stored()
    closing = {"service_entries": [ports("TCP", "2"), nested("c")]}
    refused = await serving.answer("PATCH", f"{SERVICES}/a", closing)
    assert refused.status_code == 400
    assert (
        "service_entries.1.nested_service_path: /infra/services/c has /infra/services/a in it" in refused.text
    )
    assert serving.stored() == before


async def test_a_nested_service_cannot_be_deleted(serving: Manager) -> None:
    """As little as one that a rule names."""
    await put(serving, "a", ports("TCP", "1"))
    await put(serving, "b", nested("a"))
    refused = await serving.answer("DELETE", f"{SERVICES}/a")
    assert refused.status_code == 400
    assert "is used by /infra/services/b" in refused.text


async def test_a_service_deep_below_a_rule_cannot_become_one_of_frames(serving: Manager) -> None:
    """What a rule for packets names stays about packets."""
    await put(serving, "a", ports("TCP", "1"))
    await put(serving, "b", nested("a"))
    await sent(serving, services=["/infra/services/b"])
    frames = {"service_entries": [entry("EtherType", ether_type=0x88CC)]}
    refused = await serving.answer("PATCH", f"{SERVICES}/a", frames)
    assert refused.status_code == 400
    assert "services.0: not for a rule of another section" in refused.text


async def test_source_ports_count_against_the_rules_a_host_holds(
    serving: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule is a line for each set of source ports that its services have."""
    monkeypatch.setattr("manager_stub.levels.MAX_RULES", 6)
    three = [ports("TCP", "80", source=(port,)) for port in ("1", "2", "3")]
    assert len(await sent(serving, service_entries=three) or ()) == 3
    four = {"rules": [{"id": "r", "service_entries": [*three, ports("TCP", "81")]}]}
    refused = await serving.answer("PATCH", SECTION, four)
    assert refused.status_code == 400
    assert "7 rules apply there, counted in lines; a host holds at most 6" in refused.text


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("HTTPS", [("TCP", ["443"])]),
        ("DNS-UDP", [("UDP", ["53"])]),
        ("domain", [("TCP", ["53"]), ("UDP", ["53"])]),
        ("imaps", [("TCP", ["993"])]),
        ("postgresql", None),
        ("syslog", None),
    ],
)
async def test_predefined_services(
    manager: Manager, name: str, entries: list[tuple[str, list[str]]] | None
) -> None:
    """NSX's names and IANA's, read like any other, and never changed; where both have a name, NSX's."""
    answer = await manager.answer("GET", f"{SERVICES}/{name}")
    if entries is None:
        assert answer.status_code == 404
        return
    service = answer.json()
    assert [(e["l4_protocol"], e["destination_ports"]) for e in service["service_entries"]] == entries
    assert service["_system_owned"]
    assert service["is_default"]
    refused = await manager.answer("PATCH", f"{SERVICES}/{name}", {"service_entries": [ports("TCP", "1")]})
    assert refused.status_code == 400
    assert "it is predefined" in refused.text


async def test_a_service_of_ones_own_is_not_a_default(manager: Manager) -> None:
    """It can be told from those that are."""
    await put(manager, "mine", ports("TCP", "1"))
    service = await manager.call("GET", f"{SERVICES}/mine")
    assert not service["_system_owned"]
    assert not service["is_default"]


def test_the_registry_is_condensed() -> None:
    """A service is a line, whatever stands beside its ports; what is neither TCP nor UDP is left out."""
    text = "# comment\n\nssh\t\t22/tcp\t\t# Secure\ndomain 53/tcp\ndomain 53/udp nameserver\nsctp-x 9/sctp\n"
    assert iana.condensed(text) == "ssh tcp/22\ndomain tcp/53 udp/53\n"
    assert iana.registry()["domain"] == {"TCP": ["53"], "UDP": ["53"]}
