"""ALG services: from REST to the rules a host is sent. Row X40 of the attack catalogue: off unless said."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager
from tests.unit.manager.serving import rules_sent
from vsfwd.policy.model import TCP, UDP, Alg, Service

SECTION = f"{DOMAIN}/security-policies/s"
FTP = Service(TCP, ((21, 21),), alg=Alg.FTP)


async def sent(manager: Manager, **rule: Any) -> tuple[Service, ...] | None:
    """The services of this rule, as the host reads them."""
    section = {"rules": [{"id": "r", "action": "ALLOW", **rule}]}
    await manager.call("PUT", SECTION, section)
    return rules_sent(manager)["r"].services


@pytest.mark.parametrize(
    ("name", "port", "wanted"),
    [
        ("FTP", "21", FTP),
        ("FTP", "2121", Service(TCP, ((2121, 2121),), alg=Alg.FTP)),
        ("TFTP", "69", Service(UDP, ((69, 69),), alg=Alg.TFTP)),
    ],
)
async def test_x40_an_alg_entry_is_its_port_and_its_alg(
    serving: Manager, name: str, port: str, wanted: Service
) -> None:
    """The protocol is the ALG's."""
    entry = {"resource_type": "ALGTypeServiceEntry", "alg": name, "destination_ports": [port]}
    assert await sent(serving, service_entries=[entry]) == (wanted,)


async def test_x40_a_service_of_tcp_has_no_alg(serving: Manager) -> None:
    """Whatever its port; the predefined FTP and TFTP services have theirs."""
    entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["21"]}
    assert await sent(serving, service_entries=[entry]) == (Service(TCP, ((21, 21),)),)


async def test_ftp_and_tftp_are_predefined(serving: Manager) -> None:
    """With the ports everybody uses."""
    services = ["/infra/services/FTP", "/infra/services/TFTP"]
    assert await sent(serving, services=services) == (FTP, Service(UDP, ((69, 69),), alg=Alg.TFTP))


async def test_a_service_with_a_second_port_is_refused_where_a_rule_has_the_first(serving: Manager) -> None:
    """Also when it is the service that changes, and nothing is stored."""
    entries = [
        {"resource_type": "ALGTypeServiceEntry", "alg": "FTP", "destination_ports": [port]}
        for port in ("21", "2121")
    ]
    await serving.call("PUT", f"{INFRA}/services/mine", {"service_entries": entries[:1]})
    await sent(serving, services=["/infra/services/mine", "/infra/services/FTP"])
    refused = await serving.answer("PATCH", f"{INFRA}/services/mine", {"service_entries": entries[1:]})
    assert refused.status_code == 400
    assert "one port for FTP" in refused.text
