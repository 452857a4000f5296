"""The inventory of `fleet.py`, and its policy: tenants of ten VMs, one on each of ten hosts, and rules for
everybody."""

import math
import uuid
from typing import Any, Final

from manager_stub.model import Entity, Group, Rule, SecurityPolicy, Vm

TENANT: Final = 10
"""VMs of one tenant: they ask for each other and for nobody else."""
RULES: Final = 5
"""Of each tenant, and for everybody."""
DOMAIN: Final = "/infra/domains/default"
EVERYBODY: Final = f"{DOMAIN}/security-policies/everybody"


def policy(size: int) -> dict[str, Entity]:
    """A tenant every ten hosts, half of whose VMs are its web servers; rules from these to all of its VMs."""
    put: dict[str, Entity] = {EVERYBODY: SecurityPolicy.model_validate({"category": "Emergency"})}
    put |= {f"{EVERYBODY}/rules/r{number}": changing_rule(-number) for number in range(RULES)}
    for tenant in range(math.ceil(size / TENANT)):
        everybody, web = f"{DOMAIN}/groups/tenant-{tenant}", f"{DOMAIN}/groups/web-{tenant}"
        section = f"{DOMAIN}/security-policies/tenant-{tenant}"
        put[everybody] = _tagged(f"tenant|{tenant}")
        put[web] = _tagged(f"web|{tenant}")
        put[section] = SecurityPolicy.model_validate({"scope": [everybody]})
        for number in range(RULES):
            entry: dict[str, Any] = {"resource_type": "L4PortSetServiceEntry", "display_name": "port"}
            entry |= {"l4_protocol": "TCP", "destination_ports": [str(8000 + number)]}
            put[f"{section}/rules/r{number}"] = Rule.model_validate(
                {
                    "action": "ALLOW",
                    "source_groups": [web],
                    "destination_groups": [everybody],
                    "service_entries": [entry],
                }
            )
    return put | {vm_path(number): vm(number, web=number % 2 == 0) for number in range(size)}


def changing_rule(number: int) -> Rule:
    return Rule.model_validate({"action": "DROP", "source_groups": [f"198.51.100.{number % 256}"]})


def _tagged(value: str) -> Group:
    condition = {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag"}
    return Group.model_validate({"expression": [condition | {"operator": "EQUALS", "value": value}]})


def vm(number: int, web: bool) -> Vm:
    tenant = str(number // TENANT)
    tags = [{"scope": scope, "tag": tenant} for scope in ("tenant", "web")[: 1 + web]]
    addresses = [f"10.{number >> 8}.{number & 255}.1", f"fd00::{number:x}"]
    card = {"id": uuid_of(2, number), "mac": mac(number), "addresses": addresses}
    return Vm.model_validate({"display_name": f"vm {number}", "tags": tags, "vnics": [card]})


def vm_path(number: int) -> str:
    return f"/vsfw/vms/{uuid_of(1, number)}"


def uuid_of(kind: int, number: int) -> str:
    return str(uuid.UUID(int=(kind << 100) + number))


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
