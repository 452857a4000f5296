"""Requests to the manager that must succeed, and those that enter a lab into its inventory."""

from collections.abc import Mapping
from typing import Any

import httpx

from vagrant.lab.layout import Layout, Vm
from vagrant.lab.spec import Transport
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until

INFRA = "/policy/api/v1/infra"
_INVENTORY = "/api/v1/vsfw"
_DEFAULT_RULE = f"{INFRA}/domains/default/security-policies/default-layer3-section/rules/default-layer3-rule"


def request(rest: httpx.Client, method: str, path: str, body: object = None) -> Any:
    """What the manager answers. Raises LabError with its words when it refuses."""
    return checked(rest.request(method, path, json=body))


def checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        asked = answer.request
        raise LabError(f"{asked.method} {asked.url.path}: {answer.status_code} {answer.text}")
    return answer.json() if answer.content else None


def put(rest: httpx.Client, path: str, body: Mapping[str, object]) -> None:
    """Make the object at this path below /policy/api/v1/infra/ be `body`, whether it exists already or
    not."""
    path = f"{INFRA}/{path}"
    there = rest.get(path)
    if there.is_success:
        body = {**body, "_revision": there.json()["_revision"]}
    request(rest, "PUT", path, body)


def enter_policy(rest: httpx.Client, layout: Layout) -> None:
    """Segments, and the action of the default rule."""
    for segment in layout.segments:
        overlay = layout.transport is Transport.OVERLAY
        number = {"overlay_id": segment.number} if overlay else {"vlan_ids": [str(segment.number)]}
        put(rest, f"segments/{segment.name}", {"display_name": segment.name, **number})
    request(rest, "PATCH", _DEFAULT_RULE, {"action": layout.default.upper()})


def enter_groups_of_hosts(rest: httpx.Client, layout: Layout) -> None:
    """Clusters and datacenters, once the hosts have their ids."""
    for name, members in layout.clusters.items():
        ids = [layout.host(member).id for member in members]
        request(rest, "PUT", f"{_INVENTORY}/clusters/{name}", {"hosts": ids})
    for name, clusters in layout.datacenters.items():
        request(rest, "PUT", f"{_INVENTORY}/datacenters/{name}", {"clusters": clusters})


def complete_vm(rest: httpx.Client, vm: Vm) -> None:
    """Once its host has reported the VM: its tags, and the addresses it shall have."""
    path = f"{_INVENTORY}/vms/{vm.id}"
    wait_until(lambda: rest.get(path).is_success, f"the manager to hear of VM {vm.name}", 60.0)
    body = request(rest, "GET", path)
    tags = [{"scope": tag.scope, "tag": tag.tag} for tag in vm.tags]
    (card,) = body["vnics"]
    request(rest, "PUT", path, {**body, "tags": tags, "vnics": [{**card, "addresses": [vm.v4, vm.v6]}]})


def set_tags(rest: httpx.Client, vm: Vm, tags: list[dict[str, str]]) -> None:
    body = {"external_id": vm.id, "tags": tags}
    request(rest, "POST", "/api/v1/fabric/virtual-machines?action=update_tags", body)
